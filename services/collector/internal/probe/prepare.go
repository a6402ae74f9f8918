package probe

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/palisade-sec/palisade/services/collector/internal/kernel"
)

// areasPerCPU are the areas of memory that records are built in, see bpf/area.h.
const areasPerCPU = 4

// loadObject reads the built-in programs for the kernel.
func loadObject(k kernel.Kernel) (*ebpf.CollectionSpec, error) {
	load := loadCollector
	if k.Legacy {
		load = loadLegacy
	}
	object, err := load()
	if err != nil {
		return nil, fmt.Errorf("read built-in programs: %w", err)
	}
	return object, nil
}

// digestOf tells apart what would be loaded: programs, tier, kernel and sizes.
func digestOf(k kernel.Kernel, tier Tier, cfg Config) []byte {
	sum := sha256.New()
	programs := _CollectorBytes
	if k.Legacy {
		programs = _LegacyBytes
	}
	sum.Write(programs)
	sum.Write(_DnsBytes)
	fmt.Fprintln(sum, k.Release, tier, cfg.UrgentBytes, cfg.BulkBytes, cfg.Syscalls)
	return sum.Sum(nil)
}

// size fills in what only this machine and this load know: sizes and load-time switches.
func size(object *ebpf.CollectionSpec, cfg Config, tier Tier, k kernel.Kernel, generation uint64) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count processors: %w", err)
	}
	iteratorArea := uint32(cpus * areasPerCPU) //nolint:gosec // processors are few
	object.Maps["urgent"].MaxEntries = cfg.UrgentBytes
	object.Maps["bulk"].MaxEntries = cfg.BulkBytes
	object.Maps["areas"].MaxEntries = iteratorArea + 1
	object.Maps["guard_keys"].MaxEntries = iteratorArea + 1
	if !cfg.Syscalls {
		object.Maps[syscallsMap].MaxEntries = 1
	}
	values := map[string]any{
		"chown_at_exit":         flag(!k.StructArguments),
		"cgroup_by_memory_v1":   flag(k.CgroupByMemory),
		"exit_tells_group_dead": flag(k.ExitTellsGroupDead),
		"generation":            generation,
		"has_cast":              flag(k.Cast),
		"kill_guarded":          flag(!tier.CanDeny()),
		"modify_return":         flag(tier == TierModifyReturn),
		"opcode_is_third":       flag(opcodeIsThird(k)),
		"has_loop":              flag(k.Loop),
		"iterator_area":         iteratorArea,
	}
	if k.Legacy {
		delete(values, "has_cast") // that object cannot even name it
	}
	for name, value := range values {
		if err := object.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

func flag(on bool) uint8 {
	if on {
		return 1
	}
	return 0
}

// loadable is a program to load: of a hook, for one of its places.
type loadable struct {
	hook Hook
	// place is the hook's name, or the kernel function of one of its calls.
	place string
	spec  *ebpf.ProgramSpec
}

// name is how errors of cilium/ebpf, and maps of programs, call it.
func (l loadable) name() string {
	if l.place == l.hook.Name {
		return l.hook.Program
	}
	return l.hook.Program + "." + l.place
}

// programsOf makes the list of programs that a tier's hooks need on the kernel; hooks without any place there are missing.
func programsOf(hooks []Hook, tier Tier, object *ebpf.CollectionSpec, k kernel.Kernel) (list []loadable, missing []Hook) {
	for _, hook := range hooks {
		if hook.Place == Cgroup {
			continue // of another object
		}
		places := []string{hook.Name}
		if hook.Place == Call {
			places = functionsOf(hook.Calls, k)
		}
		if len(places) == 0 {
			missing = append(missing, hook)
		}
		for _, place := range places {
			spec := object.Programs[hook.programOf(place)].Copy()
			target(spec, hook, tier)
			if hook.Place == Call {
				spec.AttachTo = place
			}
			list = append(list, loadable{hook: hook, place: place, spec: spec})
		}
	}
	return list, missing
}

// abiPrefixes are what a call's function begins with, on one architecture or another: native, then the 32-bit ones.
var abiPrefixes = []string{"__x64_sys_", "__arm64_sys_", "__ia32_sys_", "__ia32_compat_sys_"}

// callOf is the system call of a kernel function, and whether in this architecture's own ABI.
func callOf(function string) (call string, native bool) {
	for i, prefix := range abiPrefixes {
		if call, ok := strings.CutPrefix(function, prefix); ok {
			return call, i < nativePrefixes
		}
	}
	return function, false
}

// nativePrefixes is how many of them are native.
const nativePrefixes = 2

// functionsOf finds the kernel's functions of system calls, in every ABI.
func functionsOf(calls []string, k kernel.Kernel) []string {
	var found []string
	for _, call := range calls {
		for _, prefix := range abiPrefixes {
			if k.HasFunction(prefix + call) {
				found = append(found, prefix+call)
			}
		}
	}
	slices.Sort(found)
	return found
}

package probe

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/palisade-sec/palisade/services/collector/internal/kernel"
)

func TestHooksNameProgramsThatExist(t *testing.T) {
	for name, load := range map[string]func() (*ebpf.CollectionSpec, error){"collector": loadCollector, "legacy": loadLegacy} {
		object, err := load()
		if err != nil {
			t.Fatal(err)
		}
		packet, err := loadDns()
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(object.Programs, packet.Programs)
		used := map[string]bool{trial: true}
		for _, hook := range slices.Concat(lifecycle, ends, entries, decisions, calls, callsAtOnce, packets, slices.Collect(maps.Values(rings))) {
			for _, program := range programNames(hook) {
				if _, ok := object.Programs[program]; !ok {
					t.Errorf("%s: hook %s: no program %s", name, hook.Name, program)
				}
				used[program] = true
			}
			if !hook.Required && hook.Without == "" {
				t.Errorf("hook %s: optional, but nothing says what is missing without it", hook.Name)
			}
			if (hook.Place == Call) != (len(hook.Calls) > 0) || hook.Family == "" {
				t.Errorf("hook %s: calls %v, family %q do not fit its place", hook.Name, hook.Calls, hook.Family)
			}
		}
		for program := range object.Programs {
			if !used[program] {
				t.Errorf("%s: program %s is on no hook", name, program)
			}
		}
	}
}

// programNames are the C functions for all of the hook's places.
func programNames(hook Hook) []string {
	if !hook.Each {
		return []string{hook.Program}
	}
	var names []string
	for _, call := range hook.Calls {
		names = append(names, hook.programOf(call))
	}
	return names
}

func TestConfigValidate(t *testing.T) {
	for size, ok := range map[uint32]bool{0: false, 1: false, 2048: false, 4096: true, 5000: false, 16 << 20: true, 1 << 30: true, 1 << 31: false} {
		cfg := DefaultConfig()
		cfg.BulkBytes = size
		err := cfg.Validate()
		if (err == nil) != ok {
			t.Errorf("Validate(%d) = %v, want ok %v", size, err, ok)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "probes.bulk_bytes: ") {
			t.Errorf("Validate(%d) = %v, want the key first", size, err)
		}
	}
	bad := Config{Tier: "best", Pins: "here", Rates: Rates{UrgentPerSecond: 1 << 31, BulkPerSecond: 1 << 31, BurstSeconds: 1 << 20}}
	err := bad.Validate()
	for _, key := range []string{"urgent_bytes", "bulk_bytes", "tier", "pins", "rates.urgent_per_second", "rates.bulk_per_second", "rates.burst_seconds"} {
		if err == nil || !strings.Contains(err.Error(), "probes."+key+": ") {
			t.Errorf("Validate = %v, want a fault of probes.%s", err, key)
		}
	}
}

// The same programs are on an LSM hook and, in the tier modify-return, on the function that asks it.
func TestAskingFunctionsHaveTheHooksArguments(t *testing.T) {
	k, err := kernel.Read()
	if err != nil {
		t.Fatal(err)
	}
	if !k.HasFunction("bpf_lsm_file_open") {
		t.Skipf("Linux %s is built without BPF LSM", k.Release)
	}
	for _, hook := range decisionsOf(k) {
		asked, asks := parameters(k, "bpf_lsm_"+hook.Name), parameters(k, hook.function())
		same := slices.Equal(asked, asks)
		if except := hook.Name == "mmap_file"; same == except { // on_mmap_file knows the difference
			t.Errorf("%s has the arguments %v, %s has %v", hook.Name, asked, hook.function(), asks)
		}
	}
}

// parameters are the types of a kernel function's parameters, as far as they tell them apart.
func parameters(k kernel.Kernel, function string) []string {
	var f *btf.Func
	if err := k.Types.TypeByName(function, &f); err != nil {
		return []string{err.Error()}
	}
	var types []string
	for _, parameter := range f.Type.(*btf.FuncProto).Params {
		types = append(types, fmt.Sprint(parameter.Type))
	}
	return types
}

// Package probe loads the collector's BPF programs and attaches them. In: a configuration and the kernel's BTF. Out:
// two rings of records, counters of those that are missing, an iterator over processes, all of them file descriptors that stay
// valid when the process drops its capabilities. With a directory for pins, all of it outlives the process, and the
// next one takes it over.
//
// # Privileges
//
// Load needs CAP_BPF and CAP_PERFMON, and CAP_NET_ADMIN for DNS; nothing after it does, but see Set.Keeps.
package probe

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/palisade-sec/palisade/services/collector/internal/kernel"
)

// Config of the probes.
type Config struct {
	// UrgentBytes and BulkBytes are the sizes of the rings records wait in: powers of two, at least a page.
	UrgentBytes uint32 `yaml:"urgent_bytes"`
	BulkBytes   uint32 `yaml:"bulk_bytes"`
	// Rates bound what one workload may send.
	Rates Rates `yaml:"rates"`
	// Tier is used instead of the best one that works, if it is not empty.
	Tier Tier `yaml:"tier"`
	// Syscalls learns which system calls each workload makes. Every one of them then costs a little more.
	Syscalls bool `yaml:"syscalls"`
	// Pins is a directory in a BPF file system, the collector's own; if it is empty nothing outlives the collector.
	Pins string `yaml:"pins"`
}

// DefaultConfig is for a node with some tens of containers.
func DefaultConfig() Config {
	return Config{UrgentBytes: 4 << 20, BulkBytes: 4 << 20, Rates: DefaultRates()}
}

// maxRingBytes is a quarter of what the kernel can address in one ring.
const maxRingBytes = 1 << 30

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	page := uint32(os.Getpagesize()) //nolint:gosec // a page is small
	for key, bytes := range map[string]uint32{"probes.urgent_bytes": c.UrgentBytes, "probes.bulk_bytes": c.BulkBytes} {
		if bytes < page || bytes > maxRingBytes || bits.OnesCount32(bytes) != 1 {
			errs = append(errs, fmt.Errorf("%s: %d is not a power of two from %d to %d", key, bytes, page, maxRingBytes))
		}
	}
	switch c.Tier {
	case "", TierLSM, TierModifyReturn, TierTracepoint:
	default:
		errs = append(errs, fmt.Errorf("probes.tier: %q is not one of %s, %s, %s", c.Tier, TierLSM, TierModifyReturn, TierTracepoint))
	}
	if c.Pins != "" && !filepath.IsAbs(c.Pins) {
		errs = append(errs, fmt.Errorf("probes.pins: %q is not an absolute path", c.Pins))
	}
	return errors.Join(append(errs, c.Rates.validate())...)
}

// Set is the loaded and attached programs. Close detaches them, unless they are pinned.
type Set struct {
	tier       Tier
	worse      []string // why it is not a better tier
	kernel     kernel.Kernel
	rates      Rates
	generation uint64 // of the programs, random
	resumed    bool
	syscalls   bool
	pins       pins
	maps       collectorMaps
	notices    *ebpf.Map
	held       []held
	tasks      *link.Iter // nil if the kernel has no task iterator
	walker     *ebpf.Program
	missing    []Missing
}

// Missing is an optional hook that is not in place.
type Missing struct {
	Hook
	// Reason is the kernel's.
	Reason string
}

// Tier is what this kernel allows.
func (s *Set) Tier() Tier { return s.tier }

// Worse says why it is not a better one, a line for each.
func (s *Set) Worse() []string { return s.worse }

// Keeps are the capabilities without which the kernel would not let go on who has loaded the programs: none since Linux 5.19.
func (s *Set) Keeps() []string {
	if s.kernel.MapsNeedCapability {
		return []string{"BPF"}
	}
	return nil
}

// Resumed says that the programs ran before this process did, and have gone on without a collector.
func (s *Set) Resumed() bool { return s.resumed }

// Release is the kernel's.
func (s *Set) Release() string { return s.kernel.Release }

// Pins is the directory for pins, "" if there is none.
func (s *Set) Pins() string { return s.pins.directory }

// Urgent is the ring of what matters most. It belongs to the set, as Bulk does.
func (s *Set) Urgent() *ebpf.Map { return s.maps.Urgent }

// Bulk is the ring of what floods.
func (s *Set) Bulk() *ebpf.Map { return s.maps.Bulk }

// GuardMaps are what guards are kept in, laid out as bpf/guard.h has them.
type GuardMaps struct {
	Settings, Scopes, Files, Properties, Paths, Networks, Names *ebpf.Map
}

type (
	// GuardSettings is the layout that bpf2go made of the C struct.
	GuardSettings = collectorGuardSettings
	// GuardScopeKey is the layout that bpf2go made of the C struct.
	GuardScopeKey = collectorGuardScopeKey
	// GuardFileKey is the layout that bpf2go made of the C struct.
	GuardFileKey = collectorGuardFileKey
	// GuardPropertyKey is the layout that bpf2go made of the C struct.
	GuardPropertyKey = collectorGuardPropertyKey
	// GuardPathKey is the layout that bpf2go made of the C struct.
	GuardPathKey = collectorGuardPathKey
	// GuardNetworkKey is the layout that bpf2go made of the C struct.
	GuardNetworkKey = collectorGuardNetworkKey
	// GuardNameKey is the layout that bpf2go made of the C struct.
	GuardNameKey = collectorGuardNameKey
)

// Guards are the maps that guards are kept in. They belong to the set.
func (s *Set) Guards() GuardMaps {
	return GuardMaps{
		Settings: s.maps.GuardSettings, Scopes: s.maps.GuardScopes, Files: s.maps.GuardFiles,
		Properties: s.maps.GuardProperties, Paths: s.maps.GuardPaths, Networks: s.maps.GuardNetworks, Names: s.maps.GuardNames,
	}
}

// WorkloadMaps are what workloads are kept in, laid out as bpf/workload.h has them.
type WorkloadMaps struct {
	Registered, Generation, Homes *ebpf.Map
}

// Home is the layout that bpf2go made of the C struct.
type Home = collectorHome

// Workloads are the maps that workloads are kept in. They belong to the set.
func (s *Set) Workloads() WorkloadMaps {
	return WorkloadMaps{Registered: s.maps.Workloads, Generation: s.maps.WorkloadsGeneration, Homes: s.maps.Homes}
}

// Attached are the hooks that are in place, in the order in which they were attached.
func (s *Set) Attached() []Hook {
	var hooks []Hook
	for _, h := range s.held {
		if len(hooks) == 0 || hooks[len(hooks)-1].Program != h.hook.Program {
			hooks = append(hooks, h.hook)
		}
	}
	return hooks
}

// Missing are the optional hooks that are not, with the kernel's reasons.
func (s *Set) Missing() []Missing { return s.missing }

// Run says how often a hook's program ran at one of its places, and for how long, both together. The kernel counts only while
// somebody has told it to: sysctl kernel.bpf_stats_enabled, or BPF_ENABLE_STATS.
type Run struct {
	Hook string
	// Program is the C function, which two hooks of one name have not in common.
	Program string
	// Place is the hook's name, or the kernel function of one of its calls.
	Place string
	Count uint64
	Total time.Duration
	// Missed is how often the kernel left the program out, because it was running on that processor already. It is counted
	// always, from Linux 5.12 on.
	Missed uint64
}

// Runs lists every program, in the order in which they were attached. It needs no capability.
func (s *Set) Runs() ([]Run, error) {
	all := s.held
	if s.walker != nil {
		all = append(slices.Clone(all), held{hook: Hook{Name: iterator, Program: "on_task"}, place: iterator, program: s.walker})
	}
	runs := make([]Run, 0, len(all))
	for _, h := range all {
		stats, err := h.program.Stats()
		if err != nil {
			return nil, fmt.Errorf("read how often %s ran: %w", h.place, err)
		}
		runs = append(runs, Run{
			Hook: h.hook.Name, Program: h.hook.Program, Place: h.place, Count: stats.RunCount, Total: stats.Runtime, Missed: stats.RecursionMisses,
		})
	}
	return runs, nil
}

func (s *Set) miss(hook Hook, reason string) {
	s.missing = append(s.missing, Missing{Hook: hook, Reason: reason})
}

// Sign is something that a program tells at one look. The numbers are bpf/ring.h's enum sign.
type Sign uint32

// The signs.
const (
	// SignShort: something was counted in the shortfalls.
	SignShort Sign = 0
	// SignExecChecked: the kernel asked for the decision on an exec.
	SignExecChecked Sign = 1
)

// TakeSign says whether a sign was set since it was last taken, by whichever collector.
func (s *Set) TakeSign(sign Sign) (bool, error) {
	var set uint32
	if err := s.maps.Signs.Lookup(uint32(sign), &set); err != nil {
		return false, fmt.Errorf("read sign %d: %w", sign, err)
	}
	if set == 0 {
		return false, nil
	}
	if err := s.maps.Signs.Put(uint32(sign), uint32(0)); err != nil {
		return false, fmt.Errorf("clear sign %d: %w", sign, err)
	}
	return true, nil
}

// NewShortfalls says whether Shortfalls may have changed since it was last asked. What is counted in between is said next time.
func (s *Set) NewShortfalls() (bool, error) { return s.TakeSign(SignShort) }

// ErrNoIterator means that the kernel refused the task iterator.
var ErrNoIterator = errors.New("no task iterator on this kernel")

// Tasks starts one walk over all processes; reading it yields a record each. One walk at a time: they share memory.
func (s *Set) Tasks() (io.ReadCloser, error) {
	if s.tasks == nil {
		return nil, ErrNoIterator
	}
	walk, err := s.tasks.Open()
	if err != nil {
		return nil, fmt.Errorf("open task iterator: %w", err)
	}
	return walk, nil
}

// Close lets go of everything. What is not pinned is detached and unloaded.
func (s *Set) Close() error {
	var errs []error
	for _, h := range s.held {
		errs = append(errs, h.link.Close(), h.program.Close())
	}
	if s.tasks != nil {
		errs = append(errs, s.tasks.Close())
	}
	if s.walker != nil {
		errs = append(errs, s.walker.Close())
	}
	errs = append(errs, s.notices.Close(), s.maps.Close())
	s.held, s.tasks, s.walker, s.notices = nil, nil, nil, nil
	return errors.Join(errs...)
}

// Remove closes the set and removes its pins, after which nothing of it is left in the kernel.
func (s *Set) Remove() error { return errors.Join(s.pins.forget(), s.Close()) }

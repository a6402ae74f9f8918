// Package probe loads the collector's BPF programs and attaches them. In: a configuration and the kernel's BTF. Out:
// a ring of records, counters of lost ones, an iterator over processes, all of them file descriptors that stay valid
// when the process drops its capabilities.
//
// # Privileges
//
// Load needs CAP_BPF and CAP_PERFMON, nothing after it does.
package probe

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// Tier is what these programs need of the kernel.
const Tier = "tracepoint"

// Config of the probes.
type Config struct {
	// RingBytes is the size of the ring records wait in: a power of two, at least a page.
	RingBytes uint32 `yaml:"ring_bytes"`
}

// maxRingBytes is a quarter of what the kernel can address in one ring.
const maxRingBytes = 1 << 30

// Validate reports every fault.
func (c Config) Validate() error {
	if page := uint32(os.Getpagesize()); c.RingBytes < page || c.RingBytes > maxRingBytes || bits.OnesCount32(c.RingBytes) != 1 { //nolint:gosec // a page is small
		return fmt.Errorf("probes.ring_bytes: %d is not a power of two from %d to %d", c.RingBytes, page, maxRingBytes)
	}
	return nil
}

// Set is the loaded and attached programs. Close detaches them.
type Set struct {
	config   Config
	maps     collectorMaps
	programs map[string]*ebpf.Program // by hook
	links    []io.Closer
	tasks    *link.Iter // nil if the kernel has no task iterator
	attached []string
	missing  []Hook
}

// Load loads and attaches everything. If a required hook is refused, nothing stays behind.
func Load(cfg Config) (*Set, error) {
	kernel, err := readKernel()
	if err != nil {
		return nil, err
	}
	spec, err := prepare(cfg, kernel)
	if err != nil {
		return nil, err
	}
	set := &Set{config: cfg, programs: make(map[string]*ebpf.Program)}
	if err := set.load(spec, kernel); err != nil {
		return nil, errors.Join(err, set.Close())
	}
	for _, hook := range hooks {
		if err := set.attach(hook); err != nil {
			return nil, errors.Join(explain(hook.Name, kernel.release, err), set.Close())
		}
	}
	return set, nil
}

// prepare fills in what only this machine knows: sizes and load-time switches.
func prepare(cfg Config, kernel kernel) (*ebpf.CollectionSpec, error) {
	spec, err := loadCollector()
	if err != nil {
		return nil, fmt.Errorf("read built-in programs: %w", err)
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count processors: %w", err)
	}
	spec.Maps["events"].MaxEntries = cfg.RingBytes
	spec.Maps["scratches"].MaxEntries = uint32(cpus) //nolint:gosec // a count of processors is small and positive
	for name, on := range map[string]bool{
		"cgroup_by_memory_v1":   kernel.cgroupByMemory,
		"exit_tells_group_dead": kernel.exitTellsGroupDead,
	} {
		var value uint8
		if on {
			value = 1
		}
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	return spec, nil
}

// load loads the maps and programs, leaving out optional programs that the kernel refuses.
func (s *Set) load(spec *ebpf.CollectionSpec, kernel kernel) error {
	for {
		collection, err := ebpf.NewCollection(spec)
		if err == nil {
			defer collection.Close() // what is not taken out of it
			if err := collection.Assign(&s.maps); err != nil {
				return fmt.Errorf("assign maps: %w", err)
			}
			for _, hook := range hooks {
				if _, ok := spec.Programs[hook.Program]; ok {
					s.programs[hook.Name] = collection.DetachProgram(hook.Program)
				}
			}
			return nil
		}
		hook, ok := refused(err)
		if !ok || hook.Required {
			return explain(hook.Name, kernel.release, err)
		}
		s.missing = append(s.missing, hook)
		delete(spec.Programs, hook.Program)
	}
}

func (s *Set) attach(hook Hook) error {
	program, ok := s.programs[hook.Name]
	if !ok {
		return nil
	}
	if hook.Name == iterator {
		tasks, err := link.AttachIter(link.IterOptions{Program: program})
		if err != nil {
			return err
		}
		s.tasks = tasks
		s.links = append(s.links, tasks)
	} else {
		l, err := link.AttachTracing(link.TracingOptions{Program: program})
		if err != nil {
			return err
		}
		s.links = append(s.links, l)
	}
	s.attached = append(s.attached, hook.Name)
	return nil
}

// Events is the ring. It belongs to the set.
func (s *Set) Events() *ebpf.Map { return s.maps.Events }

// Attached names the hooks that are in place; Missing are those the kernel refused.
func (s *Set) Attached() []string { return s.attached }

// Missing are the optional hooks that the kernel refused.
func (s *Set) Missing() []Hook { return s.missing }

// RingBytes is the ring's size.
func (s *Set) RingBytes() uint32 { return s.config.RingBytes }

// Lost counts the records that did not fit the ring since Load, by kind.
func (s *Set) Lost() ([record.Kinds]uint64, error) {
	var sums [record.Kinds]uint64
	var perCPU []uint64
	for kind := range sums {
		if err := s.maps.Lost.Lookup(uint32(kind), &perCPU); err != nil { //nolint:gosec // below record.Kinds
			return sums, fmt.Errorf("read lost counter %d: %w", kind, err)
		}
		for _, n := range perCPU {
			sums[kind] += n
		}
	}
	return sums, nil
}

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

// Close detaches and unloads everything.
func (s *Set) Close() error {
	var errs []error
	for _, l := range s.links {
		errs = append(errs, l.Close())
	}
	for _, p := range s.programs {
		errs = append(errs, p.Close())
	}
	return errors.Join(append(errs, s.maps.Close())...)
}

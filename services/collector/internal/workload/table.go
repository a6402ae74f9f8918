// Package workload keeps which cgroups are workloads', for the kernel and for events. In: registrations; what the kernel has
// found of each cgroup in which something happened. Out: the maps that bpf/workload.h looks into, and whose an event is.
package workload

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
)

// ErrInvalid means that a cgroup cannot be a workload's.
var ErrInvalid = errors.New("not a workload's cgroup")

// rootCgroup is the id of a hierarchy's root; the host's processes are in it, or anywhere below.
const rootCgroup = 1

// maxKnown bounds what is remembered of cgroups; then it is asked for again.
const maxKnown = 16384

// Table is the workloads that are registered. It is safe for concurrent use.
type Table struct {
	maps probe.WorkloadMaps

	mu         sync.Mutex
	generation uint64
	registered map[uint64]bool
	// known is what the kernel found, of this generation.
	known map[uint64]uint64
}

// NewTable returns a table over the maps, which may hold workloads from before.
func NewTable(maps probe.WorkloadMaps) (*Table, error) {
	t := &Table{maps: maps, registered: map[uint64]bool{}, known: map[uint64]uint64{}}
	if err := maps.Generation.Lookup(uint32(0), &t.generation); err != nil {
		return nil, fmt.Errorf("read workloads: %w", err)
	}
	var id uint64
	var present uint8
	all := maps.Registered.Iterate()
	for all.Next(&id, &present) {
		t.registered[id] = true
	}
	if err := all.Err(); err != nil {
		return nil, fmt.Errorf("read workloads: %w", err)
	}
	return t, nil
}

// Len is how many are registered.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.registered)
}

// Register adds workloads by their cgroups, all or none. It fails with ErrInvalid, or if they do not fit.
func (t *Table) Register(cgroups []uint64) error {
	for i, id := range cgroups {
		if id <= rootCgroup {
			return fmt.Errorf("%w: cgroup_ids[%d]: %d", ErrInvalid, i, id)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var added []uint64
	for _, id := range cgroups {
		if t.registered[id] {
			continue
		}
		if err := t.maps.Registered.Put(id, uint8(1)); err != nil {
			return errors.Join(fmt.Errorf("register the workload of cgroup %d: %w", id, err), t.remove(added))
		}
		t.registered[id] = true
		added = append(added, id)
	}
	return t.advance(len(added) > 0)
}

// Forget removes workloads.
func (t *Table) Forget(cgroups []uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := len(t.registered)
	err := t.remove(cgroups)
	return errors.Join(err, t.advance(len(t.registered) != before))
}

// remove expects mu to be held.
func (t *Table) remove(cgroups []uint64) error {
	for _, id := range cgroups {
		if err := t.maps.Registered.Delete(id); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget the workload of cgroup %d: %w", id, err)
		}
		delete(t.registered, id)
	}
	return nil
}

// advance makes the kernel look anew; it expects mu to be held. A look that began before has the generation from before.
func (t *Table) advance(changed bool) error {
	if !changed {
		return nil
	}
	if err := t.maps.Generation.Put(uint32(0), t.generation+1); err != nil {
		return fmt.Errorf("switch to new workloads: %w", err)
	}
	t.generation++
	clear(t.known)
	return nil
}

// Attribute says of each event whose it is (Event.workload_cgroup_id).
func (t *Table) Attribute(events []*eventv1.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.generation == 0 {
		return
	}
	for _, event := range events {
		event.WorkloadCgroupId = t.of(event.GetCgroupId())
	}
}

// of expects mu to be held.
func (t *Table) of(cgroup uint64) uint64 {
	if t.registered[cgroup] {
		return cgroup
	}
	if workload, ok := t.known[cgroup]; ok {
		return workload
	}
	var home probe.Home
	if err := t.maps.Homes.Lookup(cgroup, &home); err != nil || home.CgroupId != cgroup {
		return 0
	}
	// What was found before the last change is true of what happened before it, and will be found anew.
	if home.Generation == t.generation {
		if len(t.known) >= maxKnown {
			clear(t.known)
		}
		t.known[cgroup] = home.Workload
	}
	return home.Workload
}

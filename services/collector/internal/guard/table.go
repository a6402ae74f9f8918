package guard

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
)

// Table is the guards that are in force. It is safe for concurrent use.
type Table struct {
	mu   sync.Mutex // one change at a time
	maps probe.GuardMaps
}

// NewTable returns a table over the maps, which may hold guards from before.
func NewTable(maps probe.GuardMaps) *Table { return &Table{maps: maps} }

// Status is what people are shown.
type Status struct {
	Generation uint32
	Guards     int
}

// Status counts what is in force.
func (t *Table) Status() (Status, error) {
	now, err := t.settings()
	if err != nil {
		return Status{}, err
	}
	guards := 0
	for _, count := range []func(uint32) (int, error){
		func(g uint32) (int, error) {
			return countOf(t.maps.Files, g, func(k probe.GuardFileKey) uint32 { return k.Generation })
		},
		func(g uint32) (int, error) {
			return countOf(t.maps.Properties, g, func(k probe.GuardPropertyKey) uint32 { return k.Generation })
		},
		func(g uint32) (int, error) {
			return countOf(t.maps.Paths, g, func(k probe.GuardPathKey) uint32 { return k.Generation })
		},
		func(g uint32) (int, error) {
			return countOf(t.maps.Networks, g, func(k probe.GuardNetworkKey) uint32 { return k.Generation })
		},
		func(g uint32) (int, error) {
			return countOf(t.maps.Names, g, func(k probe.GuardNameKey) uint32 {
				if k.Bits == nameFixedBytes*8 {
					return 0 // says only that there are others
				}
				return k.Generation
			})
		},
	} {
		n, err := count(now.Generation)
		if err != nil {
			return Status{}, err
		}
		guards += n
	}
	return Status{Generation: now.Generation, Guards: guards}, nil
}

// Apply replaces all guards. On an error those from before stay in force. It returns the new generation.
func (t *Table) Apply(guards []*collectorv1.Guard) (uint32, error) {
	e, err := compile(guards)
	if err != nil {
		return 0, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now, err := t.settings()
	if err != nil {
		return 0, err
	}
	next := now.Generation + 1
	if next == 0 { // no generation: nothing is looked at
		next = 1
	}
	if err := t.fill(e, next); err != nil {
		return 0, errors.Join(err, t.sweep(now.Generation))
	}
	if err := t.maps.Settings.Put(uint32(0), probe.GuardSettings{Generation: next, Families: e.families}); err != nil {
		return 0, errors.Join(fmt.Errorf("switch to new guards: %w", err), t.sweep(now.Generation))
	}
	return next, t.sweep(next)
}

func (t *Table) settings() (probe.GuardSettings, error) {
	var now probe.GuardSettings
	if err := t.maps.Settings.Lookup(uint32(0), &now); err != nil {
		return now, fmt.Errorf("read guards: %w", err)
	}
	return now, nil
}

// fill puts the entries into the maps under a generation that nobody looks at yet.
func (t *Table) fill(e entries, generation uint32) error {
	for cgroup, scope := range e.scopes {
		if err := t.maps.Scopes.Put(probe.GuardScopeKey{CgroupId: cgroup, Generation: generation}, scope); err != nil {
			return fmt.Errorf("put scope of cgroup %d: %w", cgroup, err)
		}
	}
	return errors.Join(
		put(t.maps.Files, e.files, func(k *probe.GuardFileKey) { k.Generation = generation }),
		put(t.maps.Properties, e.properties, func(k *probe.GuardPropertyKey) { k.Generation = generation }),
		put(t.maps.Paths, e.paths, func(k *probe.GuardPathKey) { k.Generation = generation }),
		put(t.maps.Networks, e.networks, func(k *probe.GuardNetworkKey) { k.Generation = generation }),
		put(t.maps.Names, e.names, func(k *probe.GuardNameKey) { k.Generation = generation }),
	)
}

// put adds guards to their map; stamp gives a key its generation.
func put[K comparable](m *ebpf.Map, guards map[K]uint32, stamp func(*K)) error {
	for key, id := range guards {
		stamp(&key)
		if err := m.Put(&key, id); err != nil {
			return fmt.Errorf("put guard %d: %w", id, err)
		}
	}
	return nil
}

// sweep removes the entries of every generation but one.
func (t *Table) sweep(keep uint32) error {
	return errors.Join(
		removeBut(t.maps.Scopes, keep, func(k probe.GuardScopeKey) uint32 { return k.Generation }),
		removeBut(t.maps.Files, keep, func(k probe.GuardFileKey) uint32 { return k.Generation }),
		removeBut(t.maps.Properties, keep, func(k probe.GuardPropertyKey) uint32 { return k.Generation }),
		removeBut(t.maps.Paths, keep, func(k probe.GuardPathKey) uint32 { return k.Generation }),
		removeBut(t.maps.Networks, keep, func(k probe.GuardNetworkKey) uint32 { return k.Generation }),
		removeBut(t.maps.Names, keep, func(k probe.GuardNameKey) uint32 { return k.Generation }),
	)
}

// keysOf lists a map's keys. Nobody but us changes it, so none is missed.
func keysOf[K any](m *ebpf.Map) ([]K, error) {
	var keys []K
	var key K
	var value uint32
	all := m.Iterate()
	for all.Next(&key, &value) {
		keys = append(keys, key)
	}
	if err := all.Err(); err != nil {
		return nil, fmt.Errorf("read guards: %w", err)
	}
	return keys, nil
}

func removeBut[K any](m *ebpf.Map, keep uint32, generation func(K) uint32) error {
	keys, err := keysOf[K](m)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if generation(key) == keep {
			continue
		}
		if err := m.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove an old guard: %w", err)
		}
	}
	return nil
}

func countOf[K any](m *ebpf.Map, want uint32, generation func(K) uint32) (int, error) {
	keys, err := keysOf[K](m)
	n := 0
	for _, key := range keys {
		if generation(key) == want {
			n++
		}
	}
	return n, err
}

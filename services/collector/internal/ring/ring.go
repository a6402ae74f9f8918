package ring

import (
	"fmt"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/palisade-sec/palisade/services/collector/internal/probe"
)

// Keep keeps the progress of rings: how many records of one, since it was made, the subscriber has acknowledged, and how many
// have had their place given back to the kernel. It outlives the process, as the rings do. *probe.Set is one.
type Keep interface {
	Progress(ring uint32) (probe.Progress, error)
	SetProgress(ring uint32, p probe.Progress) error
}

// place is how far into a ring something is: in bytes, and in records.
type place struct {
	position, records uint64
}

// ring is one of the kernel's rings, read ahead of what is given back: a record keeps its place until the subscriber has
// acknowledged it, so that a collector that is killed finds it again. When more than half of the ring is taken by records that
// were read, their places are given back early; what a kill then loses is known by count.
type ring struct {
	id     uint32 // as in Event.ring
	memory *mapped
	keep   Keep
	// unread is the first record that was not read; only the reader uses it.
	unread place

	mu       sync.Mutex
	closed   bool           // guarded by mu, like all below
	freed    place          // what the kernel may write over
	progress probe.Progress // as kept
}

// openRing maps a ring. Records up to the left ones an earlier collector had read, given back, and not had acknowledged; see settle.
func openRing(id uint32, m *ebpf.Map, keep Keep) (r *ring, left probe.Progress, err error) {
	left, err = keep.Progress(id)
	if err != nil {
		return nil, left, err
	}
	memory, err := mapRing(m)
	if err != nil {
		return nil, left, err
	}
	at := place{position: memory.consumer.Load(), records: left.Freed}
	settled := probe.Progress{Acknowledged: left.Freed, Freed: left.Freed}
	return &ring{id: id, memory: memory, keep: keep, unread: at, freed: at, progress: settled}, left, nil
}

// settle makes what an earlier collector had left behind no longer this ring's to tell of.
func (r *ring) settle() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.keep.SetProgress(r.id, r.progress); err != nil {
		return fmt.Errorf("settle ring %d: %w", r.id, err)
	}
	return nil
}

// read calls take with each record that is there, until there were n or their sizes add up to bytes, and returns both.
func (r *ring) read(n, bytes int, take func(sample []byte, position uint64)) (count, size int) {
	for count < n && size < bytes {
		sample, next, ok := r.memory.at(r.unread.position)
		if !ok {
			break
		}
		if sample != nil {
			take(sample, r.unread.position)
			size += len(sample)
		}
		r.unread.position, r.unread.records = next, r.unread.records+1
		count++
	}
	return count, size
}

// dry says that everything that was written has been read, given back and counted, so that the kernel will wake us for
// the next record: it does only for a consumer that has caught up.
func (r *ring) dry() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.freed.position == r.memory.producer.Load()
}

// acknowledge gives back what lies before a place, all of which is in safe hands.
func (r *ring) acknowledge(at place) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || at.records <= r.progress.Acknowledged && at.position <= r.freed.position {
		return nil // the batch held nothing of this ring, which must not cost a system call
	}
	r.progress.Acknowledged = max(r.progress.Acknowledged, at.records)
	return r.free(at)
}

// relieve gives back the places of records that were read, if they take more than half of the ring.
func (r *ring) relieve() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.memory.producer.Load()-r.freed.position <= r.memory.size/2 {
		return nil
	}
	return r.free(r.unread)
}

// free lets the kernel write over what lies before a place. What was given back is written down first, so that a kill in
// between makes the loss look larger, never smaller. mu is held.
func (r *ring) free(at place) error {
	ahead := at.position > r.freed.position
	if ahead {
		r.progress.Freed = at.records
	}
	if err := r.keep.SetProgress(r.id, r.progress); err != nil {
		return fmt.Errorf("keep progress of ring %d: %w", r.id, err)
	}
	if ahead {
		r.freed = at
		r.memory.consumer.Store(at.position)
	}
	return nil
}

// waiting is how many bytes of the ring are taken, by records that were not read or not acknowledged.
func (r *ring) waiting() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0
	}
	return r.memory.producer.Load() - r.freed.position
}

func (r *ring) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	return r.memory.close()
}

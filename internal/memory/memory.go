// Package memory keeps a process small: it collects early under load, and gives back what a storm took once the storm
// is over.
package memory

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/palisade-sec/palisade/internal/periodic"
)

const (
	// lookEvery is how often the process is looked at.
	lookEvery = 15 * time.Second
	// quietBytes is how much a process that rests allocates in that time at most.
	quietBytes = 8 << 20
)

// Keeper gives memory back.
type Keeper struct {
	every     time.Duration
	allocated func() uint64
	release   func()
}

// New sets the soft limit, in bytes, towards which the collector works, and returns a keeper; Run it as a task.
// GOMEMLIMIT in the environment comes before limit.
func New(limit int64, environment string) *Keeper {
	if environment == "" {
		debug.SetMemoryLimit(limit)
	}
	return &Keeper{every: lookEvery, allocated: allocated, release: debug.FreeOSMemory}
}

// Run releases memory once after every busy time, until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	last, released := k.allocated(), uint64(0)
	return periodic.Run(ctx, k.every, func(context.Context) error {
		now := k.allocated()
		if now-last < quietBytes && now-released > quietBytes {
			k.release()
			released = k.allocated()
		}
		last = now
		return nil
	})
}

// allocated is how many bytes the process has ever allocated on the heap.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

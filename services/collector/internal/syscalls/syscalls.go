// Package syscalls tells which system calls workloads make. In: the sets that the programs keep in the kernel. Out: an event
// for what has come to a set, at most one a second for each workload and ABI. A collector that starts tells of whole sets: it
// does not know what its predecessor got acknowledged.
package syscalls

import (
	"context"
	"slices"
	"time"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/internal/periodic"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
	"github.com/palisade-sec/palisade/services/collector/internal/ring"
)

const (
	// interval is how often the sets are looked at.
	interval = time.Second
	// maxBatch events are published together.
	maxBatch = 512
)

// Sets are what the programs keep. *probe.Set has them.
type Sets interface {
	Syscalls() (map[probe.SyscallTable]probe.Syscalls, error)
}

// Reporter tells what comes to the sets.
type Reporter struct {
	sets    Sets
	decoder record.Decoder
	publish ring.Publish
	told    map[probe.SyscallTable]probe.Syscalls
}

// NewReporter returns a reporter that has told nothing yet.
func NewReporter(sets Sets, decoder record.Decoder, publish ring.Publish) *Reporter {
	return &Reporter{sets: sets, decoder: decoder, publish: publish}
}

// Run looks at the sets every second until ctx ends. It fails if they cannot be read.
func (r *Reporter) Run(ctx context.Context) error {
	return periodic.Run(ctx, interval, r.report)
}

// report publishes what has come since the last report. What the kernel has dropped is forgotten, so memory is bounded as
// the kernel's.
func (r *Reporter) report(ctx context.Context) error {
	all, err := r.sets.Syscalls()
	if err != nil {
		return err
	}
	var events []*eventv1.Event
	now := ring.Boottime()
	for table, used := range all {
		numbers := used.Without(r.told[table]).Numbers()
		if len(numbers) == 0 {
			continue
		}
		event := &eventv1.Event{
			CgroupId: table.CgroupID, Abi: table.ABI, Kind: &eventv1.Event_SyscallsUsed{SyscallsUsed: &eventv1.SyscallsUsed{Numbers: numbers}},
		}
		events = append(events, r.decoder.Stamp(event, now))
	}
	for batch := range slices.Chunk(events, maxBatch) {
		if err := r.publish(ctx, batch, func() {}); err != nil {
			return err
		}
	}
	r.told = all
	return nil
}

package ring

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// lossInterval keeps the promise that loss is known within a second.
const lossInterval = 500 * time.Millisecond

// Losses reports what the kernel could not write.
type Losses struct {
	lost     func() ([record.Kinds]uint64, error)
	decoder  record.Decoder
	publish  Publish
	reported [record.Kinds]uint64
}

// NewLosses returns a reporter of the counters that lost reads. They only grow.
func NewLosses(lost func() ([record.Kinds]uint64, error), decoder record.Decoder, publish Publish) *Losses {
	return &Losses{lost: lost, decoder: decoder, publish: publish}
}

// Run looks at the counters every half second until ctx ends.
func (l *Losses) Run(ctx context.Context) error {
	ticker := time.NewTicker(lossInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if err := l.report(ctx); err != nil {
			return err
		}
	}
}

// report publishes one event a class that lost something since the last report.
func (l *Losses) report(ctx context.Context) error {
	lost, err := l.lost()
	if err != nil {
		return err
	}
	var events []*eventv1.Event
	for kind, total := range lost {
		if total == l.reported[kind] {
			continue
		}
		loss := &eventv1.Loss{Class: record.Kind(kind).Class(), Count: total - l.reported[kind]} //nolint:gosec // below record.Kinds
		events = append(events, l.decoder.Stamp(&eventv1.Event{Kind: &eventv1.Event_Loss{Loss: loss}}, Boottime()))
	}
	if len(events) == 0 {
		return nil
	}
	if err := l.publish(ctx, events); err != nil {
		return err
	}
	l.reported = lost
	return nil
}

// Boottime is the clock records carry: nanoseconds since boot, suspend included.
func Boottime() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // cannot happen: the clock exists since Linux 2.6.39
	}
	return uint64(ts.Nano()) //nolint:gosec // never negative
}

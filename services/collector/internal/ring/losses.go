package ring

import (
	"context"
	"maps"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// lossInterval keeps the promise that loss is known within a second.
const lossInterval = 500 * time.Millisecond

// Ledger is the kernel's counters of what is missing, and what of it was told. *probe.Set is one.
type Ledger interface {
	// Shortfalls only grow.
	Shortfalls() (map[probe.Account]probe.Shortfall, error)
	// Told is what SetTold kept, also by an earlier collector.
	Told() (map[probe.Account]probe.Shortfall, error)
	SetTold(told map[probe.Account]probe.Shortfall) error
}

// Losses reports what is missing.
type Losses struct {
	ledger  Ledger
	decoder record.Decoder
	publish Publish
	told    map[probe.Account]probe.Shortfall // published, perhaps not acknowledged yet
	failed  atomic.Pointer[error]
}

// NewLosses returns a reporter that goes on where the ledger was told.
func NewLosses(ledger Ledger, decoder record.Decoder, publish Publish) (*Losses, error) {
	told, err := ledger.Told()
	if err != nil {
		return nil, err
	}
	return &Losses{ledger: ledger, decoder: decoder, publish: publish, told: told}, nil
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
		if err := l.failed.Load(); err != nil {
			return *err
		}
	}
}

// report publishes an event for whatever is missing since the last report.
func (l *Losses) report(ctx context.Context) error {
	all, err := l.ledger.Shortfalls()
	if err != nil {
		return err
	}
	var events []*eventv1.Event
	news := make(map[probe.Account]probe.Shortfall)
	for account, total := range all {
		before := l.told[account]
		if total == before {
			continue
		}
		news[account] = total
		events = append(events, l.events(account, before, total)...)
	}
	if len(events) == 0 {
		return nil
	}
	done := func() {
		if err := l.ledger.SetTold(news); err != nil {
			l.failed.Store(&err)
		}
	}
	if err := l.publish(ctx, events, done); err != nil {
		return err
	}
	maps.Copy(l.told, news)
	return nil
}

// events tell of one account: what did not fit, and what was over the rate.
func (l *Losses) events(account probe.Account, before, total probe.Shortfall) []*eventv1.Event {
	var events []*eventv1.Event
	add := func(count uint64, reason eventv1.LossReason) {
		if count == 0 {
			return
		}
		loss := &eventv1.Loss{Class: account.Kind.Class(), Count: count, Reason: reason, Cpu: int32(account.CPU)} //nolint:gosec // processors are few
		events = append(events, l.decoder.Stamp(&eventv1.Event{CgroupId: account.CgroupID, Kind: &eventv1.Event_Loss{Loss: loss}}, Boottime()))
	}
	add(total.Lost-before.Lost, eventv1.LossReason_LOSS_REASON_RING_FULL)
	add(total.Dropped-before.Dropped, eventv1.LossReason_LOSS_REASON_RATE)
	return events
}

// LeftBehind is the event that tells of records that an earlier collector had taken out of the rings and died with, nil if
// there are none.
func LeftBehind(count uint64, decoder record.Decoder) *eventv1.Event {
	if count == 0 {
		return nil
	}
	loss := &eventv1.Loss{Class: "any", Count: count, Reason: eventv1.LossReason_LOSS_REASON_KILLED, Cpu: -1}
	return decoder.Stamp(&eventv1.Event{Kind: &eventv1.Event_Loss{Loss: loss}}, Boottime())
}

// Boottime is the clock records carry: nanoseconds since boot, suspend included.
func Boottime() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // cannot happen: the clock exists since Linux 2.6.39
	}
	return uint64(ts.Nano()) //nolint:gosec // never negative
}

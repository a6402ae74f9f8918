package ring

import (
	"context"
	"errors"
	"maps"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/internal/periodic"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// AnyClass is the class of records of which it is not known.
const AnyClass = "any"

// lossInterval keeps the promise that loss is known within a second.
const lossInterval = 500 * time.Millisecond

// Ledger is the kernel's counters of what is missing, and what of it was told. *probe.Set is one.
type Ledger interface {
	// NewShortfalls says whether Shortfalls may have changed since it was last asked, by anybody. It is cheap.
	NewShortfalls() (bool, error)
	// Shortfalls only grow.
	Shortfalls() (map[probe.Account]probe.Shortfall, error)
	// Told is what SetTold kept, also by an earlier collector.
	Told() (map[probe.Account]probe.Shortfall, error)
	SetTold(told map[probe.Account]probe.Shortfall) error
	// LeftOut only grows, by the program's id.
	LeftOut() ([]probe.LeftOut, error)
	// ToldLeftOut is what SetToldLeftOut kept, by the program's id, also by an earlier collector.
	ToldLeftOut() (map[uint32]uint64, error)
	SetToldLeftOut(told map[uint32]uint64) error
}

// Losses reports what is missing.
type Losses struct {
	ledger  Ledger
	decoder record.Decoder
	publish Publish
	looked  bool                              // at the shortfalls, at least once
	told    map[probe.Account]probe.Shortfall // published, perhaps not acknowledged yet
	toldOut map[uint32]uint64                 // the same of programs left out
	failed  atomic.Pointer[error]
}

// NewLosses returns a reporter that goes on where the ledger was told.
func NewLosses(ledger Ledger, decoder record.Decoder, publish Publish) (*Losses, error) {
	told, err := ledger.Told()
	if err != nil {
		return nil, err
	}
	toldOut, err := ledger.ToldLeftOut()
	if err != nil {
		return nil, err
	}
	return &Losses{ledger: ledger, decoder: decoder, publish: publish, told: told, toldOut: toldOut}, nil
}

// Run looks at the counters every half second until ctx ends.
func (l *Losses) Run(ctx context.Context) error {
	return periodic.Run(ctx, lossInterval, func(ctx context.Context) error {
		if err := l.report(ctx); err != nil {
			return err
		}
		if err := l.failed.Load(); err != nil {
			return *err
		}
		return nil
	})
}

// report publishes an event for whatever is missing since the last report.
func (l *Losses) report(ctx context.Context) error {
	short, shortEvents, err := l.short()
	if err != nil {
		return err
	}
	out, outEvents, err := l.leftOut()
	if err != nil {
		return err
	}
	events := append(shortEvents, outEvents...)
	if len(events) == 0 {
		return nil
	}
	done := func() {
		if err := errors.Join(l.ledger.SetTold(short), l.ledger.SetToldLeftOut(out)); err != nil {
			l.failed.Store(&err)
		}
	}
	if err := l.publish(ctx, events, done); err != nil {
		return err
	}
	maps.Copy(l.told, short)
	maps.Copy(l.toldOut, out)
	return nil
}

// short is what was not told of the shortfalls yet. It looks at them, thousands of counters perhaps, only if there is news.
func (l *Losses) short() (news map[probe.Account]probe.Shortfall, events []*eventv1.Event, err error) {
	changed, err := l.ledger.NewShortfalls()
	if err != nil || l.looked && !changed {
		return nil, nil, err
	}
	all, err := l.ledger.Shortfalls()
	if err != nil {
		return nil, nil, err
	}
	l.looked = true
	news = make(map[probe.Account]probe.Shortfall)
	for account, total := range all {
		if before := l.told[account]; total != before {
			news[account] = total
			events = append(events, l.events(account, before, total)...)
		}
	}
	return news, events, nil
}

// leftOut is what was not told yet of programs that the kernel left out. Of each it is known which records it makes, but not
// whether it would have made one.
func (l *Losses) leftOut() (news map[uint32]uint64, events []*eventv1.Event, err error) {
	all, err := l.ledger.LeftOut()
	if err != nil {
		return nil, nil, err
	}
	news = make(map[uint32]uint64)
	for _, out := range all {
		before := l.toldOut[out.ID]
		if out.Count <= before {
			continue
		}
		news[out.ID] = out.Count
		class := AnyClass
		if kind := out.Kind(); kind != 0 {
			class = kind.Class()
		}
		loss := &eventv1.Loss{Class: class, Count: out.Count - before, Reason: eventv1.LossReason_LOSS_REASON_LEFT_OUT, Cpu: -1}
		events = append(events, l.decoder.Stamp(&eventv1.Event{Kind: &eventv1.Event_Loss{Loss: loss}}, Boottime()))
	}
	return news, events, nil
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
	loss := &eventv1.Loss{Class: AnyClass, Count: count, Reason: eventv1.LossReason_LOSS_REASON_KILLED, Cpu: -1}
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

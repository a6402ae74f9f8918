package ring

import (
	"context"
	"errors"
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
	// Notices are those that KeepNotices kept and DropNotices did not drop, also by an earlier collector, in the order of their
	// numbers; last is the greatest number there ever was.
	Notices() (kept []probe.Notice, last uint64, err error)
	KeepNotices(notices []probe.Notice) error
	DropNotices(notices []probe.Notice) error
}

// Losses reports what is missing. Of each count a notice is kept before it is published, and dropped once it is acknowledged and
// the count is kept as told: whenever the collector is killed, the next one says again just what may not have been heard, and who
// has heard it knows it by its number.
type Losses struct {
	ledger  Ledger
	decoder record.Decoder
	publish Publish
	looked  bool                              // at the shortfalls, at least once
	told    map[probe.Account]probe.Shortfall // published, perhaps not acknowledged yet
	toldOut map[uint32]uint64                 // the same of programs left out
	last    uint64                            // number of a notice
	again   []probe.Notice                    // kept by an earlier collector, not published by this one yet
	waiting atomic.Int64                      // notices that are kept
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
	again, last, err := ledger.Notices()
	if err != nil {
		return nil, err
	}
	l := &Losses{ledger: ledger, decoder: decoder, publish: publish, told: told, toldOut: toldOut, again: again, last: last}
	l.waiting.Store(int64(len(again)))
	for _, notice := range again {
		l.count(notice)
	}
	return l, nil
}

// TakeOver also tells of records that an earlier collector had taken out of the rings and died with. Run must not have begun.
func (l *Losses) TakeOver(reader *Reader) error {
	var lost []probe.Notice
	for ring, left := range reader.leftBehind {
		notice := probe.Notice{Reason: eventv1.LossReason_LOSS_REASON_KILLED, CPU: -1, Source: ring, Before: left.Acknowledged, Total: left.Freed}
		for _, old := range l.again { // a collector that was killed before it had settled
			if old.Reason == notice.Reason && old.Source == ring {
				notice.Before = max(notice.Before, old.Total)
			}
		}
		if notice.Total > notice.Before {
			lost = append(lost, l.number(notice))
		}
	}
	if err := l.ledger.KeepNotices(lost); err != nil {
		return err
	}
	l.again = append(l.again, lost...)
	l.waiting.Add(int64(len(lost)))
	return reader.settle()
}

// number gives a notice its name.
func (l *Losses) number(notice probe.Notice) probe.Notice {
	l.last++
	notice.Number, notice.BoottimeNs = l.last, Boottime()
	return notice
}

// count takes what a notice tells of as told.
func (l *Losses) count(notice probe.Notice) {
	account := accountOf(notice)
	told := l.told[account]
	switch notice.Reason { //nolint:exhaustive // what a kill has lost is told of in notices alone
	case eventv1.LossReason_LOSS_REASON_RING_FULL:
		told.Lost = max(told.Lost, notice.Total)
		l.told[account] = told
	case eventv1.LossReason_LOSS_REASON_RATE:
		told.Dropped = max(told.Dropped, notice.Total)
		l.told[account] = told
	case eventv1.LossReason_LOSS_REASON_LEFT_OUT:
		l.toldOut[notice.Source] = max(l.toldOut[notice.Source], notice.Total)
	}
}

func accountOf(notice probe.Notice) probe.Account {
	return probe.Account{CgroupID: notice.CgroupID, Kind: record.Kind(notice.Kind), CPU: int(notice.CPU)}
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
	if len(l.again) > 0 {
		if err := l.tell(ctx, l.again); err != nil {
			return err
		}
		l.again = nil
	}
	short, err := l.short()
	if err != nil {
		return err
	}
	out, err := l.leftOut()
	if err != nil {
		return err
	}
	news := append(short, out...)
	if room := probe.MaxNotices - int(l.waiting.Load()); len(news) > room {
		news, l.looked = news[:max(room, 0)], false // the others are told once something is acknowledged
	}
	if len(news) == 0 {
		return nil
	}
	for i := range news {
		news[i] = l.number(news[i])
	}
	if err := l.ledger.KeepNotices(news); err != nil {
		return err
	}
	l.waiting.Add(int64(len(news)))
	return l.tell(ctx, news)
}

// tell publishes notices that are kept.
func (l *Losses) tell(ctx context.Context, notices []probe.Notice) error {
	events := make([]*eventv1.Event, len(notices))
	for i, notice := range notices {
		events[i] = l.event(notice)
		l.count(notice)
	}
	short, out := map[probe.Account]probe.Shortfall{}, map[uint32]uint64{}
	for _, notice := range notices {
		switch notice.Reason { //nolint:exhaustive // see count
		case eventv1.LossReason_LOSS_REASON_LEFT_OUT:
			out[notice.Source] = notice.Total
		case eventv1.LossReason_LOSS_REASON_RING_FULL, eventv1.LossReason_LOSS_REASON_RATE:
			short[accountOf(notice)] = l.told[accountOf(notice)]
		}
	}
	return l.publish(ctx, events, func() { l.acknowledged(notices, short, out) })
}

// acknowledged drops notices once what they tell of is kept as told.
func (l *Losses) acknowledged(notices []probe.Notice, short map[probe.Account]probe.Shortfall, out map[uint32]uint64) {
	err := errors.Join(l.ledger.SetTold(short), l.ledger.SetToldLeftOut(out))
	if err == nil {
		err = l.ledger.DropNotices(notices)
	}
	if err != nil {
		l.failed.Store(&err)
	}
	l.waiting.Add(-int64(len(notices)))
}

// event says what a notice does.
func (l *Losses) event(notice probe.Notice) *eventv1.Event {
	class := AnyClass
	if notice.Kind != 0 {
		class = record.Kind(notice.Kind).Class()
	}
	loss := &eventv1.Loss{Class: class, Count: notice.Total - notice.Before, Reason: notice.Reason, Cpu: notice.CPU}
	event := l.decoder.Stamp(&eventv1.Event{CgroupId: notice.CgroupID, Kind: &eventv1.Event_Loss{Loss: loss}}, notice.BoottimeNs)
	event.Ring, event.Position = probe.LossRing, notice.Number
	return event
}

// short is what was not told of the shortfalls yet. It looks at them, thousands of counters perhaps, only if there is news.
func (l *Losses) short() (news []probe.Notice, err error) {
	changed, err := l.ledger.NewShortfalls()
	if err != nil || l.looked && !changed {
		return nil, err
	}
	all, err := l.ledger.Shortfalls()
	if err != nil {
		return nil, err
	}
	l.looked = true
	for account, total := range all {
		before := l.told[account]
		notice := probe.Notice{CgroupID: account.CgroupID, Kind: uint32(account.Kind), CPU: int32(account.CPU)} //nolint:gosec // processors are few
		if total.Lost > before.Lost {
			notice.Reason, notice.Before, notice.Total = eventv1.LossReason_LOSS_REASON_RING_FULL, before.Lost, total.Lost
			news = append(news, notice)
		}
		if total.Dropped > before.Dropped {
			notice.Reason, notice.Before, notice.Total = eventv1.LossReason_LOSS_REASON_RATE, before.Dropped, total.Dropped
			news = append(news, notice)
		}
	}
	return news, nil
}

// leftOut is what was not told yet of programs that the kernel left out. Of each it is known which records it makes, but not
// whether it would have made one.
func (l *Losses) leftOut() (news []probe.Notice, err error) {
	all, err := l.ledger.LeftOut()
	if err != nil {
		return nil, err
	}
	for _, out := range all {
		if before := l.toldOut[out.ID]; out.Count > before {
			news = append(news, probe.Notice{
				Reason: eventv1.LossReason_LOSS_REASON_LEFT_OUT, Source: out.ID, Kind: uint32(out.Kind()), CPU: -1,
				Before: before, Total: out.Count,
			})
		}
	}
	return news, nil
}

// Boottime is the clock records carry: nanoseconds since boot, suspend included.
func Boottime() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // cannot happen: the clock exists since Linux 2.6.39
	}
	return uint64(ts.Nano()) //nolint:gosec // never negative
}

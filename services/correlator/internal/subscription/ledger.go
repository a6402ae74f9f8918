package subscription

import (
	"container/list"
	"sync"
	"sync/atomic"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
)

// Batch is a batch of events and what is still to be done before it may be acknowledged.
type Batch struct {
	*collectorv1.StreamEventsResponse
	// Opens says that the batch is the first since the stream was opened.
	Opens bool

	ledger  *ledger
	entry   *entry
	pending atomic.Int64
}

// Keep adds one thing that must be done first: a finding on its way, an event that waits. The caller must hold one
// itself.
func (b *Batch) Keep() { b.pending.Add(1) }

// Release says that one such thing is done. The one that was there from the start is the receiver's.
func (b *Batch) Release() {
	if b.pending.Add(-1) == 0 && b.entry != nil {
		b.ledger.done(b.entry)
	}
}

// NewBatch is a batch outside of any stream, which nobody acknowledges: for replays and tests.
func NewBatch(r *collectorv1.StreamEventsResponse) *Batch {
	b := &Batch{StreamEventsResponse: r}
	b.pending.Store(1)
	return b
}

// entry is a batch's number, without its events: those are let go as soon as they were looked at.
type entry struct {
	number uint64 // zero if it is an instance's that is gone
	ready  bool
	place  *list.Element
}

// ledger works out which acknowledgement is due. Acknowledgements are cumulative, so it is the highest batch below
// which everything is done.
type ledger struct {
	// wake has a value when there is something new to acknowledge.
	wake chan struct{}

	mu       sync.Mutex
	instance string     // guarded by mu, like all below
	open     *list.List // of *entry, in order
	highest  uint64     // last batch admitted
	settled  uint64     // last batch that may be acknowledged
}

func newLedger() *ledger {
	return &ledger{wake: make(chan struct{}, 1), open: list.New()}
}

// admit takes a batch in, or returns nil for one that came before: after a reconnect the collector sends again what
// was not acknowledged, and that is in our hands already.
func (l *ledger) admit(r *collectorv1.StreamEventsResponse) *Batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.GetInstance() != l.instance {
		// The old instance's batches cannot be acknowledged any more. But the new one may bring their events again, to be
		// passed over because they are in our hands, so what it brings is not done before they are.
		l.instance, l.highest, l.settled = r.GetInstance(), 0, 0
		for e := l.open.Front(); e != nil; e = e.Next() {
			e.Value.(*entry).number = 0 //nolint:errcheck // the list holds entries
		}
	}
	b := NewBatch(r)
	if r.GetBatch() == 0 {
		return b // of a snapshot
	}
	if r.GetBatch() <= l.highest {
		l.notify()
		return nil
	}
	l.highest = r.GetBatch()
	b.ledger = l
	b.entry = &entry{number: r.GetBatch()}
	b.entry.place = l.open.PushBack(b.entry)
	return b
}

// done marks a batch. Of neighbours that are done only the last is kept, so that the list does not grow while one
// batch waits for the uplink.
func (l *ledger) done(e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.ready = true
	if next := e.place.Next(); next != nil && next.Value.(*entry).ready { //nolint:errcheck // the list holds entries
		l.open.Remove(e.place)
	} else if before := e.place.Prev(); before != nil && before.Value.(*entry).ready { //nolint:errcheck // as above
		l.open.Remove(before)
	}
	for first := l.open.Front(); first != nil; first = l.open.Front() {
		head := first.Value.(*entry) //nolint:errcheck // as above
		if !head.ready {
			return
		}
		l.open.Remove(first)
		if head.number != 0 {
			l.settled = head.number
			l.notify()
		}
	}
}

func (l *ledger) notify() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// due is the highest batch that may be acknowledged, zero if there is none.
func (l *ledger) due() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.settled
}

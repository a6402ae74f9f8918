// Package tap shows somebody what the pipeline takes in, as recorded entries. Data in: snapshots, batches and news, from the
// pipeline's goroutine, which never waits here; data out: entries, to one reader. What waits for the reader is bounded: what does
// not fit is counted and left out, and once the reader has caught up it is told so and given a new snapshot.
package tap

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/account"
	"github.com/palisade-sec/palisade/services/correlator/internal/subscription"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// maxWaiting is how many bytes of entries may wait for the reader, as they go over the wire; in memory they are some six times that.
const maxWaiting = 8 << 20

// ErrBusy says that there is a reader already.
var ErrBusy = errors.New("somebody else records")

// Tap is where a reader is let in. Safe for concurrent use.
type Tap struct {
	// joins has a value when the reader waits for a snapshot.
	joins chan struct{}
	limit int

	mu     sync.Mutex
	reader *Reader // nil if there is none; guarded by mu, as is what is in it
}

// Reader is who is shown what the pipeline takes in. Close it when done.
type Reader struct {
	tap *Tap
	// more has a value when something was put into queue.
	more    chan struct{}
	queue   []item
	waiting int  // bytes in queue
	behind  bool // nothing is put into the queue before the next snapshot
	began   bool // there was a snapshot
	missed  *correlatorv1.Missed
}

type item struct {
	entry *correlatorv1.RecordedEntry
	size  int
}

// New returns a tap without reader.
func New() *Tap { return &Tap{joins: make(chan struct{}, 1), limit: maxWaiting} }

// Open lets a reader in, whose first entry is a snapshot. It is ErrBusy if there is one.
func (t *Tap) Open() (*Reader, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reader != nil {
		return nil, ErrBusy
	}
	t.reader = &Reader{tap: t, more: make(chan struct{}, 1), behind: true}
	t.join()
	return t.reader, nil
}

// Close ends the showing.
func (r *Reader) Close() {
	r.tap.mu.Lock()
	defer r.tap.mu.Unlock()
	r.tap.reader = nil
}

// Next is the next entry, which must not be changed. It waits for one until ctx ends, whose error it then returns.
func (r *Reader) Next(ctx context.Context) (*correlatorv1.RecordedEntry, error) {
	for {
		if entry := r.take(); entry != nil {
			return entry, nil
		}
		select {
		case <-r.more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *Reader) take() *correlatorv1.RecordedEntry {
	r.tap.mu.Lock()
	defer r.tap.mu.Unlock()
	if len(r.queue) == 0 {
		return nil
	}
	first := r.queue[0]
	r.queue[0] = item{}
	r.queue = r.queue[1:]
	r.waiting -= first.size
	if r.behind && len(r.queue) == 0 {
		r.tap.join()
	}
	return first.entry
}

// Joins has a value when somebody wants a snapshot.
func (t *Tap) Joins() <-chan struct{} { return t.joins }

func (t *Tap) join() {
	select {
	case t.joins <- struct{}{}:
	default:
	}
}

// Begin takes a snapshot in for a reader that waits for one.
func (t *Tap) Begin(at time.Time, parts []*correlatorv1.RecordedEntry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.reader
	if r == nil || !r.behind {
		return
	}
	if r.missed != nil {
		r.put(at, &correlatorv1.RecordedEntry{Kind: &correlatorv1.RecordedEntry_Missed{Missed: r.missed}})
	}
	for _, part := range parts {
		r.put(at, part)
	}
	r.behind, r.began, r.missed = false, true, nil
}

// Batch takes a batch in, whose events must not be changed any more.
func (t *Tap) Batch(at time.Time, b *subscription.Batch) {
	t.offer(at, func(missed *correlatorv1.Missed) {
		missed.Batches++
		missed.Events += uint64(len(b.GetEvents()))
	}, func() *correlatorv1.RecordedEntry {
		batch := &correlatorv1.RecordedBatch{Batch: b.StreamEventsResponse, Opens: b.Opens}
		return &correlatorv1.RecordedEntry{Kind: &correlatorv1.RecordedEntry_Batch{Batch: batch}}
	})
}

// News takes in what a runtime said.
func (t *Tap) News(at time.Time, u workload.Update) {
	t.offer(at, func(missed *correlatorv1.Missed) { missed.News++ }, func() *correlatorv1.RecordedEntry {
		return &correlatorv1.RecordedEntry{Kind: &correlatorv1.RecordedEntry_News{News: u.Message()}}
	})
}

// Accounts takes in what the host's users and groups are called.
func (t *Tap) Accounts(at time.Time, table *account.Table) {
	t.offer(at, func(missed *correlatorv1.Missed) { missed.News++ }, func() *correlatorv1.RecordedEntry {
		return &correlatorv1.RecordedEntry{Kind: &correlatorv1.RecordedEntry_Accounts{Accounts: table.Message()}}
	})
}

// offer puts an entry into the reader's queue, or counts it as missed. The entry is made only if there is somebody to see it.
func (t *Tap) offer(at time.Time, miss func(*correlatorv1.Missed), make func() *correlatorv1.RecordedEntry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.reader
	if r == nil || !r.began {
		return
	}
	if !r.behind {
		entry := make()
		if r.waiting == 0 || r.waiting+proto.Size(entry) <= t.limit {
			r.put(at, entry)
			return
		}
		r.behind, r.missed = true, &correlatorv1.Missed{}
	}
	miss(r.missed)
}

// put queues an entry up, whatever its size.
func (r *Reader) put(at time.Time, entry *correlatorv1.RecordedEntry) {
	entry.Time = timestamppb.New(at)
	size := proto.Size(entry)
	r.queue = append(r.queue, item{entry, size})
	r.waiting += size
	select {
	case r.more <- struct{}{}:
	default:
	}
}

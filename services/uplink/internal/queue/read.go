package queue

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"google.golang.org/protobuf/proto"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

// Bounds limits a batch. One finding is returned even if it alone is larger.
type Bounds struct {
	Findings int
	Bytes    int
}

// Take waits until something is pending and returns the oldest of it, in order of arrival. Until MarkDelivered the
// next Take returns the same. Only one may run at a time. It returns ctx's error.
func (q *Queue) Take(ctx context.Context, bounds Bounds) ([]Stored, error) {
	for {
		q.mu.Lock()
		want := q.index.first(bounds.Findings)
		q.mu.Unlock()
		if len(want) > 0 {
			found, missing := q.load(want, bounds.Bytes)
			if len(missing) > 0 {
				if err := q.Discard(ctx, reasonCorrupt, missing); err != nil {
					return nil, err
				}
			}
			if len(found) > 0 {
				return found, nil
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-q.more:
		}
	}
}

// load reads findings by sequence, ascending. missing are those that cannot be read.
func (q *Queue) load(want []uint64, limit int) (found, missing []Stored) {
	txn := q.db.NewTransaction(false)
	defer txn.Discard()
	items := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{findingPrefix}})
	defer items.Close()
	total := 0
	for _, sequence := range want {
		prefix := sequenceKey(findingPrefix, sequence)
		if !items.Valid() || bytes.Compare(items.Item().Key(), prefix) < 0 {
			items.Seek(prefix)
		}
		finding, size := new(findingv1.Finding), 0
		err := badger.ErrKeyNotFound
		if items.ValidForPrefix(prefix) {
			err = items.Item().Value(func(raw []byte) error {
				size = len(raw)
				return proto.Unmarshal(raw, finding)
			})
			items.Next()
		}
		if err != nil {
			q.log.Error("Could not read a stored finding", "err", err)
			missing = append(missing, Stored{Sequence: sequence})
			continue
		}
		if total += size; total > limit && len(found) > 0 {
			return found, missing
		}
		found = append(found, Stored{Sequence: sequence, Finding: finding})
	}
	return found, missing
}

// List returns the newest findings, oldest first, that happened at or after since (zero: any time). It returns
// ctx's error.
func (q *Queue) List(ctx context.Context, bounds Bounds, since time.Time) ([]Stored, error) {
	txn := q.db.NewTransaction(false)
	defer txn.Discard()
	items := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{findingPrefix}, Reverse: true})
	defer items.Close()
	var out []Stored
	total := 0
	for items.Seek(sequenceKey(findingPrefix, ^uint64(0))); items.Valid() && len(out) < bounds.Findings; items.Next() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		sequence, _, _, ok := splitFindingKey(items.Item().Key())
		finding := new(findingv1.Finding)
		err := items.Item().Value(func(raw []byte) error {
			total += len(raw)
			return proto.Unmarshal(raw, finding)
		})
		if err != nil || !ok {
			continue // Take reports it
		}
		if finding.GetTime().AsTime().Before(since) {
			total -= proto.Size(finding)
			continue
		}
		if total > bounds.Bytes && len(out) > 0 {
			break
		}
		out = append(out, Stored{Sequence: sequence, Finding: finding})
	}
	slices.Reverse(out)
	q.markPending(out)
	return out, nil
}

func (q *Queue) markPending(findings []Stored) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range findings {
		findings[i].Delivered = !q.index.isPending(findings[i].Sequence)
	}
}

// hub hands stored findings to whoever watches. A watcher that does not keep up is cut; it never holds up another.
type hub struct {
	mu       sync.Mutex
	watchers map[*Watcher]struct{} // guarded by mu
}

// ErrSlow says that a watcher was cut: it has missed findings.
var ErrSlow = errors.New("watcher was too slow")

// Watcher receives findings as they are stored.
type Watcher struct {
	c     chan Stored // closed when the watcher is cut
	limit int64
	held  atomic.Int64 // bytes of the findings in c
	hub   *hub
}

// Watch begins to receive. Findings wait within bounds; the one after that cuts the watcher. Call Stop at the end.
func (q *Queue) Watch(bounds Bounds) *Watcher {
	w := &Watcher{c: make(chan Stored, bounds.Findings), limit: int64(bounds.Bytes), hub: &q.watch}
	q.watch.mu.Lock()
	defer q.watch.mu.Unlock()
	if q.watch.watchers == nil {
		q.watch.watchers = map[*Watcher]struct{}{}
	}
	q.watch.watchers[w] = struct{}{}
	return w
}

// Next waits for the next finding. It returns ErrSlow once those that waited before the cut are read, or ctx's error.
func (w *Watcher) Next(ctx context.Context) (Stored, error) {
	select {
	case <-ctx.Done():
		return Stored{}, ctx.Err()
	case stored, ok := <-w.c:
		if !ok {
			return Stored{}, ErrSlow
		}
		w.held.Add(-int64(stored.size))
		return stored, nil
	}
}

// Stop ends the watch. Who is in Next stays there.
func (w *Watcher) Stop() {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	delete(w.hub.watchers, w)
}

func (h *hub) publish(findings []Stored) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		if !w.offer(findings) {
			delete(h.watchers, w)
			close(w.c)
		}
	}
}

func (w *Watcher) offer(findings []Stored) bool {
	for _, finding := range findings {
		// Counted before it is sent, since it may be received at once. One alone may be larger, as with Bounds.
		size := int64(finding.size)
		if held := w.held.Add(size); held > w.limit && held > size {
			return false
		}
		select {
		case w.c <- finding:
		default:
			return false
		}
	}
	return true
}

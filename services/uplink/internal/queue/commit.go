package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// groupFindings and groupBytes bound what shares one sync, and so the memory that one commit takes.
const (
	groupFindings = 4096
	groupBytes    = 4 << 20
)

// Run stores what is put until ctx ends. It is the only writer.
func (q *Queue) Run(ctx context.Context) error {
	defer close(q.closed)
	report := time.NewTicker(q.report)
	defer report.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case first := <-q.ops:
			q.commit(q.gather(first))
		case <-report.C:
			q.reportDropped(ctx)
		}
	}
}

// gather adds to first what else is waiting, without waiting itself.
func (q *Queue) gather(first op) []op {
	ops := []op{first}
	findings, bytes := size(first)
	for findings < groupFindings && bytes < groupBytes {
		select {
		case next := <-q.ops:
			n, b := size(next)
			findings, bytes = findings+n, bytes+b
			ops = append(ops, next)
		default:
			return ops
		}
	}
	return ops
}

func size(op op) (findings, bytes int) {
	for _, entry := range op.put {
		bytes += len(entry.raw)
	}
	return len(op.put) + len(op.deliver) + len(op.discard), bytes
}

// commit writes a group, brings the index up to date and answers the callers. If the disk fails, nobody is
// acknowledged and the index is read again from what really is on it.
func (q *Queue) commit(ops []op) {
	began := time.Now()
	results, added, err := q.write(ops)
	if err == nil {
		err = q.enforceBounds()
	}
	if err != nil {
		q.log.Error("Could not write to the queue", "err", err)
		err = errors.Join(fmt.Errorf("write queue: %w", err), q.reload())
	}
	for i, op := range ops {
		op.done <- outcome{stored: results[i], err: err}
	}
	q.metrics.commit.Observe(time.Since(began).Seconds())
	q.gauge()
	if len(added) > 0 {
		q.watch.publish(added)
		q.signal()
	}
}

// written is what a group changed.
type written struct {
	entries  []entry
	stored   []Stored // beside entries
	replaced []uint64 // what was amended by one of them, and is erased
	results  []int    // per op, what was new
}

// write stores the group and applies it to the index. results counts, per op, what was new.
func (q *Queue) write(ops []op) (results []int, added []Stored, err error) {
	w := newWriter(q.db)
	defer w.discard()
	done := written{results: make([]int, len(ops))}
	next := q.last()
	for i, op := range ops {
		for _, entry := range op.put {
			stored, err := q.writeOne(w, next+1, entry, &done)
			if err != nil {
				return done.results, nil, err
			}
			if stored {
				next++
				done.results[i]++
			}
		}
		for _, sequence := range op.deliver {
			if err := w.set(sequenceKey(deliveredPrefix, sequence), nil); err != nil {
				return done.results, nil, err
			}
		}
	}
	if err := w.commit(); err != nil {
		return done.results, nil, err
	}
	discarded := q.apply(ops, done)
	return done.results, done.stored, q.erase(discarded, nil)
}

// writeOne stores a finding at that place, unless its id is known. One whose container is known takes the place of one whose
// container was not: it is behind all others then, as what is delivered is not looked at again.
func (q *Queue) writeOne(w *writer, sequence uint64, entry entry, done *written) (stored bool, err error) {
	former, known, err := w.find(entry.id)
	if err != nil {
		return false, err
	}
	amends := known && former.pending && !isPending(entry.finding)
	if known && !amends {
		q.metrics.dropped.WithLabelValues(reasonDuplicate).Inc()
		return false, nil
	}
	if err := w.room(4, int64(min(len(entry.raw), valueThreshold))); err != nil {
		return false, err
	}
	if amends {
		if err := w.remove(former, entry.id); err != nil {
			return false, err
		}
		done.replaced = append(done.replaced, former.sequence)
	}
	if err := w.add(sequence, entry); err != nil {
		return false, err
	}
	done.entries = append(done.entries, entry)
	done.stored = append(done.stored, Stored{Sequence: sequence, Finding: entry.finding, size: sizeOf(len(entry.raw))})
	return true, nil
}

// apply brings the index up to date with what was written, and returns what is to be erased.
func (q *Queue) apply(ops []op, done written) (discarded []uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, entry := range done.entries {
		q.index.pending[entry.rank].push(done.stored[i].Sequence, done.stored[i].size)
		q.index.last = done.stored[i].Sequence
		q.metrics.in.Inc()
	}
	for _, sequence := range done.replaced {
		if _, waited := q.index.remove(sequence); !waited {
			q.index.delivered.remove(sequence)
		}
	}
	for _, op := range ops {
		for _, sequence := range op.deliver {
			q.metrics.out.Inc()
			q.sent++
			if size, ok := q.index.remove(sequence); ok {
				q.index.delivered.push(sequence, size)
			} else {
				discarded = append(discarded, sequence) // dropped while it was under way
			}
		}
		for _, sequence := range op.discard {
			if _, ok := q.index.remove(sequence); ok {
				q.metrics.dropped.WithLabelValues(op.reason).Inc()
			}
			discarded = append(discarded, sequence)
		}
	}
	return discarded
}

// enforceBounds drops what is over the limits.
func (q *Queue) enforceBounds() error {
	q.mu.Lock()
	expired := q.index.expire(q.cfg.Delivered, q.cfg.DeliveredBytes)
	evicted := q.index.evict(q.cfg.Pending, q.cfg.PendingBytes)
	if n := uint64(len(evicted)); n > 0 {
		q.dropped.count += n
		q.dropped.unreported += n
		q.dropped.last = q.now()
		q.metrics.dropped.WithLabelValues(reasonFull).Add(float64(n))
	}
	unreported := q.dropped.unreported
	q.mu.Unlock()
	if err := q.erase(expired, nil); err != nil {
		return err
	}
	if len(evicted) == 0 {
		return nil
	}
	// The count goes with the first deletion: a crash in between reports too much, never too little.
	return q.erase(evicted, &unreported)
}

// erase deletes findings and what belongs to them. unreported, if set, is stored first.
func (q *Queue) erase(sequences []uint64, unreported *uint64) error {
	if len(sequences) == 0 {
		return nil
	}
	w := newWriter(q.db)
	defer w.discard()
	if unreported != nil {
		if err := w.set([]byte(unreportedKey), binary.BigEndian.AppendUint64(nil, *unreported)); err != nil {
			return err
		}
	}
	read := q.db.NewTransaction(false)
	defer read.Discard()
	keys := read.NewIterator(badger.IteratorOptions{Prefix: []byte{findingPrefix}})
	defer keys.Close()
	for _, sequence := range sequences {
		if err := w.delete(sequenceKey(deliveredPrefix, sequence)); err != nil {
			return err
		}
		prefix := sequenceKey(findingPrefix, sequence)
		keys.Seek(prefix)
		if !keys.ValidForPrefix(prefix) {
			continue // corrupt, and gone already
		}
		key := keys.Item().KeyCopy(nil)
		_, _, id, ok := splitFindingKey(key)
		if ok {
			if err := w.delete(idKey(id)); err != nil {
				return err
			}
		}
		if err := w.delete(key); err != nil {
			return err
		}
	}
	return w.commit()
}

func (q *Queue) last() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.index.last
}

// writer spreads writes over as many transactions as they need, never splitting what belongs to one finding: a
// transaction is synced whole when it commits.
type writer struct {
	db    *badger.DB
	txn   *badger.Txn
	count int64
	bytes int64
}

func newWriter(db *badger.DB) *writer { return &writer{db: db, txn: db.NewTransaction(true)} }

// keyOverhead is what Badger counts for a key besides its bytes and value, rounded up.
const keyOverhead = 64

// room commits what there is if n more keys with so many bytes might not fit.
func (w *writer) room(n, bytes int64) error {
	bytes += n * (keyOverhead + findingKeyBytes)
	if w.count > 0 && (w.count+n >= w.db.MaxBatchCount()/2 || w.bytes+bytes >= w.db.MaxBatchSize()*3/4) {
		if err := w.txn.Commit(); err != nil {
			return err
		}
		w.txn = w.db.NewTransaction(true)
		w.count, w.bytes = 0, 0
	}
	w.count += n
	w.bytes += bytes
	return nil
}

// find is where the finding of an id lies, if it is known.
func (w *writer) find(id id) (at place, known bool, err error) {
	item, err := w.txn.Get(idKey(id))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return place{}, false, nil
	}
	if err == nil {
		err = item.Value(func(raw []byte) error {
			at = placeOf(raw)
			return nil
		})
	}
	return at, err == nil, err
}

// add stores a finding and its id together, for which the caller has made room.
func (w *writer) add(sequence uint64, entry entry) error {
	if err := w.txn.Set(findingKey(sequence, entry.rank, entry.id), entry.raw); err != nil {
		return err
	}
	return w.txn.Set(idKey(entry.id), place{sequence, entry.rank, isPending(entry.finding)}.bytes())
}

// remove takes a finding out, but for its id; the caller has made room.
func (w *writer) remove(at place, id id) error {
	if err := w.txn.Delete(findingKey(at.sequence, at.rank, id)); err != nil {
		return err
	}
	return w.txn.Delete(sequenceKey(deliveredPrefix, at.sequence))
}

func (w *writer) set(key, value []byte) error {
	if err := w.room(1, int64(len(value))); err != nil {
		return err
	}
	return w.txn.Set(key, value)
}

func (w *writer) delete(key []byte) error {
	if err := w.room(1, 0); err != nil {
		return err
	}
	return w.txn.Delete(key)
}

func (w *writer) commit() error { return w.txn.Commit() }

func (w *writer) discard() { w.txn.Discard() }

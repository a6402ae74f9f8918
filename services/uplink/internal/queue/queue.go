// Package queue is the node's durable queue of findings. Findings come in through Put, which returns when they are on
// disk; they go out through Take and MarkDelivered, in order of arrival, at least once; the newest stay for local
// reading. It is the only package that knows Badger.
package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

// ErrClosed says that the queue is shutting down; what was put may or may not be stored.
var ErrClosed = errors.New("queue is closed")

// Config bounds the queue.
type Config struct {
	// Pending is how many findings wait at most for the console, and PendingBytes of what size together. When either
	// is full, the oldest of the lowest severity goes first.
	Pending      int   `yaml:"pending"`
	PendingBytes int64 `yaml:"pending_bytes"`
	// Delivered is how many delivered findings are kept for local reading, and DeliveredBytes of what size together,
	// newest first. The bytes are of findings; on disk it is more for a while, until what was dropped is cleared.
	Delivered      int   `yaml:"delivered"`
	DeliveredBytes int64 `yaml:"delivered_bytes"`
	// MinFreeBytes is what must be free on the file system: with less the queue is not opened, and an open one takes
	// no finding until there is room, so that the audit log beside it can still be written.
	MinFreeBytes int64 `yaml:"min_free_bytes"`
}

// DefaultConfig holds an outage of days.
func DefaultConfig() Config {
	return Config{
		Pending: 1_000_000, PendingBytes: 1 << 30, Delivered: 10_000, DeliveredBytes: 256 << 20, MinFreeBytes: 64 << 20,
	}
}

const (
	// minPendingBytes is room for some findings of the largest size.
	minPendingBytes = 8 << 20
	// minFreeBytes is what Badger may write before it looks at the disk: its memory tables and the next ones.
	minFreeBytes = 32 << 20
	maxBytes     = 1 << 40
)

// Validate reports every fault, each starting with its key.
func (c Config) Validate() error {
	var errs []error
	if c.Pending < 1 || c.Pending > 100_000_000 {
		errs = append(errs, fmt.Errorf("pending: %d is not from 1 to 100000000", c.Pending))
	}
	if c.Delivered < 0 || c.Delivered > 10_000_000 {
		errs = append(errs, fmt.Errorf("delivered: %d is not from 0 to 10000000", c.Delivered))
	}
	for _, bound := range []struct {
		key         string
		bytes, from int64
	}{
		{"pending_bytes", c.PendingBytes, minPendingBytes},
		{"delivered_bytes", c.DeliveredBytes, 0},
		{"min_free_bytes", c.MinFreeBytes, minFreeBytes},
	} {
		if bound.bytes < bound.from || bound.bytes > maxBytes {
			errs = append(errs, fmt.Errorf("%s: %d is not from %d to %d", bound.key, bound.bytes, bound.from, int64(maxBytes)))
		}
	}
	return errors.Join(errs...)
}

// Stored is a finding in the queue.
type Stored struct {
	// Sequence is its place in the order of arrival.
	Sequence  uint64
	Finding   *findingv1.Finding
	Delivered bool
	size      uint32 // of the stored value; known when it is new
}

// Queue is safe for concurrent use. Nothing is stored unless Run runs.
type Queue struct {
	cfg     Config
	path    string // of the database; beside it is what was set aside
	log     *slog.Logger
	db      *badger.DB
	metrics metrics
	watch   hub
	ops     chan op
	more    chan struct{} // signalled when there may be something to take
	closed  chan struct{} // closed when Run has ended
	now     func() time.Time
	report  time.Duration
	free    func(directory string) (int64, error)
	full    atomic.Bool // the last Put was refused for want of space

	mu      sync.Mutex
	index   index      // guarded by mu
	dropped dropRecord // guarded by mu
	sent    uint64     // guarded by mu; delivered since the start
}

// dropRecord is what status says about dropped findings.
type dropRecord struct {
	count      uint64
	last       time.Time
	unreported uint64
}

// op is one thing to commit; exactly one of the lists is set.
type op struct {
	put     []entry
	deliver []uint64
	discard []uint64
	reason  string
	done    chan outcome
}

type outcome struct {
	stored int
	err    error
}

type entry struct {
	id      id
	rank    uint8
	raw     []byte
	finding *findingv1.Finding
}

// Open opens the queue below directory, which the caller has locked. A database that cannot be read is renamed and a
// fresh one begun; Stats warns until the old one is removed. It returns ErrNoSpace, and leaves everything as it is, if
// the disk is nearly full. Close it after Run has returned.
func Open(directory string, cfg Config, log *slog.Logger, registry *prometheus.Registry) (*Queue, error) {
	q := &Queue{
		cfg: cfg, path: filepath.Join(directory, "queue"), log: log, metrics: newMetrics(registry),
		ops: make(chan op, 64), more: make(chan struct{}, 1), closed: make(chan struct{}),
		now: time.Now, report: reportEvery, free: freeBytes,
	}
	if err := q.open(); err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	q.gauge()
	q.signal()
	return q, nil
}

// Close closes the database.
func (q *Queue) Close() error {
	if err := q.db.Close(); err != nil {
		return fmt.Errorf("close queue: %w", err)
	}
	return nil
}

// Put stores the findings that are new, by id, and returns how many those were. They are on disk when it returns.
// Concurrent calls share one sync. It returns ErrID, ErrNoSpace, ErrClosed, or ctx's error.
func (q *Queue) Put(ctx context.Context, findings []*findingv1.Finding) (stored int, err error) {
	entries := make([]entry, 0, len(findings))
	for _, finding := range findings {
		id, err := parseID(finding.GetId())
		if err != nil {
			return 0, err
		}
		raw, err := proto.Marshal(finding)
		if err != nil {
			return 0, fmt.Errorf("encode finding: %w", err)
		}
		entries = append(entries, entry{id: id, rank: rankOf(finding.GetPriority()), raw: raw, finding: finding})
	}
	if len(entries) == 0 {
		return 0, nil
	}
	if err := q.admit(len(entries)); err != nil {
		return 0, err
	}
	return q.submit(ctx, op{put: entries})
}

// MarkDelivered says that the console has the findings. They will not be taken again.
func (q *Queue) MarkDelivered(ctx context.Context, findings []Stored) error {
	_, err := q.submit(ctx, op{deliver: sequencesOf(findings)})
	return err
}

// Discard takes out findings that can never be delivered, and counts them under reason.
func (q *Queue) Discard(ctx context.Context, reason string, findings []Stored) error {
	_, err := q.submit(ctx, op{discard: sequencesOf(findings), reason: reason})
	return err
}

func sequencesOf(findings []Stored) []uint64 {
	out := make([]uint64, len(findings))
	for i, finding := range findings {
		out[i] = finding.Sequence
	}
	return out
}

func (q *Queue) submit(ctx context.Context, op op) (stored int, err error) {
	op.done = make(chan outcome, 1)
	select {
	case q.ops <- op:
	case <-q.closed:
		return 0, ErrClosed
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	select {
	case result := <-op.done:
		return result.stored, result.err
	case <-q.closed:
		return 0, ErrClosed
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// signal wakes one Take.
func (q *Queue) signal() {
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// Stats is how the queue stands.
type Stats struct {
	Pending      int
	PendingBytes int64
	// Delivered are those kept; DeliveredTotal counts since the start.
	Delivered      int
	DeliveredBytes int64
	DeliveredTotal uint64
	// Dropped counts since the start, LastDropped is zero if there was none.
	Dropped     uint64
	LastDropped time.Time
	// Refusing is ErrNoSpace, or why the free space is not known, while Put would return it.
	Refusing error
	// Warnings are for people, one line each.
	Warnings []string
}

// Stats returns how the queue stands now.
func (q *Queue) Stats() Stats {
	stats := q.counts()
	stats.Refusing = q.room()
	stats.Warnings = q.warnings(stats.Refusing)
	return stats
}

// counts is what Stats knows without looking at the disk.
func (q *Queue) counts() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return Stats{
		Pending: q.index.waiting(), PendingBytes: q.index.waitingBytes(),
		Delivered: q.index.delivered.len(), DeliveredBytes: q.index.delivered.bytes, DeliveredTotal: q.sent,
		Dropped: q.dropped.count, LastDropped: q.dropped.last,
	}
}

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
	// Pending is how many findings wait at most for the console. When it is full, the oldest of the lowest severity
	// goes first.
	Pending int `yaml:"pending"`
	// Delivered is how many delivered findings are kept for local reading, newest first.
	Delivered int `yaml:"delivered"`
}

// DefaultConfig holds an outage of days.
func DefaultConfig() Config { return Config{Pending: 1_000_000, Delivered: 10_000} }

// Validate reports every fault, each starting with its key.
func (c Config) Validate() error {
	var errs []error
	if c.Pending < 1 || c.Pending > 100_000_000 {
		errs = append(errs, fmt.Errorf("pending: %d is not from 1 to 100000000", c.Pending))
	}
	if c.Delivered < 0 || c.Delivered > 10_000_000 {
		errs = append(errs, fmt.Errorf("delivered: %d is not from 0 to 10000000", c.Delivered))
	}
	return errors.Join(errs...)
}

// Stored is a finding in the queue.
type Stored struct {
	// Sequence is its place in the order of arrival.
	Sequence  uint64
	Finding   *findingv1.Finding
	Delivered bool
}

// Queue is safe for concurrent use. Nothing is stored unless Run runs.
type Queue struct {
	cfg     Config
	log     *slog.Logger
	db      *badger.DB
	metrics metrics
	watch   hub
	ops     chan op
	more    chan struct{} // signalled when there may be something to take
	closed  chan struct{} // closed when Run has ended
	now     func() time.Time
	report  time.Duration

	mu       sync.Mutex
	index    index      // guarded by mu
	warnings []string   // guarded by mu; in order, for status
	dropped  dropRecord // guarded by mu
	sent     uint64     // guarded by mu; delivered since the start
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
// fresh one begun; Warnings then says so. Close it after Run has returned.
func Open(directory string, cfg Config, log *slog.Logger, registry *prometheus.Registry) (*Queue, error) {
	q := &Queue{
		cfg: cfg, log: log, metrics: newMetrics(registry),
		ops: make(chan op, 64), more: make(chan struct{}, 1), closed: make(chan struct{}),
		now: time.Now, report: reportEvery,
	}
	if err := q.open(filepath.Join(directory, "queue")); err != nil {
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
// Concurrent calls share one sync. It returns ErrID, ErrClosed, or ctx's error.
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
	Pending int
	// Delivered are those kept; DeliveredTotal counts since the start.
	Delivered      int
	DeliveredTotal uint64
	// Dropped counts since the start, LastDropped is zero if there was none.
	Dropped     uint64
	LastDropped time.Time
	// Warnings are for people, one line each.
	Warnings []string
}

// Stats returns how the queue stands now.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return Stats{
		Pending: q.index.waiting(), Delivered: q.index.delivered.len(), DeliveredTotal: q.sent,
		Dropped: q.dropped.count, LastDropped: q.dropped.last,
		Warnings: append([]string(nil), q.warnings...),
	}
}

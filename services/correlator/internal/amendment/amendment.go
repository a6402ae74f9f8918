// Package amendment makes good what findings could not say when they were told. Data in: findings on their way to delivery; data out:
// the same, and later, with the same id, those of containers that nobody had claimed then and somebody has now. What may still be
// amended is kept in memory, for a while and up to a bound: a correlator that is restarted amends nothing of the one before it.
package amendment

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/delivery"
)

// Config bounds what may still be amended. What is beyond stays as it was told: the oldest of the cgroup that has the most waiting, so that
// a container which nobody has claimed, and which makes many, pushes out its own.
type Config struct {
	// For is how long a finding waits for its container.
	For time.Duration `yaml:"for"`
	// Findings is how many wait at most, and Bytes of what size together.
	Findings int `yaml:"findings"`
	Bytes    int `yaml:"bytes"`
}

// DefaultConfig outlasts a restart of a runtime, or of the gate.
func DefaultConfig() Config { return Config{For: 10 * time.Minute, Findings: 4096, Bytes: 16 << 20} }

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	if c.For < 0 || c.For > 24*time.Hour {
		errs = append(errs, fmt.Errorf("amendments.for: %v is not from 0 to 24h", c.For))
	}
	if c.Findings < 1 {
		errs = append(errs, fmt.Errorf("amendments.findings: %d is not positive", c.Findings))
	}
	if c.Bytes < 1 {
		errs = append(errs, fmt.Errorf("amendments.bytes: %d is not positive", c.Bytes))
	}
	return errors.Join(errs...)
}

// Sink takes findings. *delivery.Delivery is one.
type Sink interface {
	Put(ctx context.Context, item delivery.Item) error
}

// Book stands before a sink. Put is safe for concurrent use; Settle belongs to the pipeline's goroutine.
type Book struct {
	cfg     Config
	next    Sink
	now     func() time.Time
	metrics metrics

	mu     sync.Mutex
	kept   []entry // the oldest first; guarded by mu, as are all and shares
	all    share
	shares map[uint64]share // by cgroup
}

// share is how many findings wait, of what size together.
type share struct{ findings, bytes int }

func (s share) plus(e entry) share  { return share{s.findings + 1, s.bytes + e.size} }
func (s share) minus(e entry) share { return share{s.findings - 1, s.bytes - e.size} }

// entry is what must stay of a finding when it is made anew.
type entry struct {
	id      string
	cgroup  uint64
	action  *findingv1.Action
	repeats *findingv1.Repeats
	words   string
	late    func() *findingv1.Finding
	size    int
	since   time.Time
}

// New returns a book that has nothing to amend.
func New(cfg Config, next Sink, registry *prometheus.Registry) (*Book, error) {
	m, err := newMetrics(registry)
	if err != nil {
		return nil, err
	}
	return &Book{cfg: cfg, next: next, now: time.Now, metrics: m, shares: map[uint64]share{}}, nil
}

// Put hands a finding on, which may block, and keeps what it takes to amend it if that may be needed.
func (b *Book) Put(ctx context.Context, item delivery.Item) error {
	if item.Late != nil && b.cfg.For > 0 {
		f := item.Finding
		b.keep(entry{
			id: f.GetId(), cgroup: f.GetEvent().GetCgroupId(), action: f.GetAction(), repeats: f.GetRepeats(), words: item.Words,
			late: item.Late, size: proto.Size(f), since: b.now(),
		})
	}
	return b.next.Put(ctx, item)
}

func (b *Book) keep(e entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept = append(b.kept, e)
	b.add(e)
	for b.all.findings > b.cfg.Findings {
		b.letGo(func(s share) int { return s.findings })
	}
	for b.all.bytes > b.cfg.Bytes {
		b.letGo(func(s share) int { return s.bytes })
	}
	b.metrics.waiting.Set(float64(len(b.kept)))
}

func (b *Book) add(e entry) {
	b.all, b.shares[e.cgroup] = b.all.plus(e), b.shares[e.cgroup].plus(e)
}

// letGo forgets the oldest finding of the cgroup with the most.
func (b *Book) letGo(size func(share) int) {
	var greatest uint64
	for cgroup, s := range b.shares {
		if size(s) > size(b.shares[greatest]) {
			greatest = cgroup
		}
	}
	victim := slices.IndexFunc(b.kept, func(e entry) bool { return e.cgroup == greatest })
	e := b.kept[victim]
	b.kept = slices.Delete(b.kept, victim, victim+1)
	b.all, b.shares[e.cgroup] = b.all.minus(e), b.shares[e.cgroup].minus(e)
	if b.shares[e.cgroup].findings == 0 {
		delete(b.shares, e.cgroup)
	}
	b.metrics.ended.WithLabelValues(outcomeFull).Inc()
}

// Settle hands on, amended, what can be by now, and gives up what has waited for too long.
func (b *Book) Settle(ctx context.Context) error {
	b.mu.Lock()
	kept := b.kept
	b.kept, b.all = nil, share{}
	clear(b.shares)
	b.mu.Unlock()
	now := b.now()
	var wait []entry
	var amended []*findingv1.Finding
	for _, e := range kept {
		switch f := e.late(); {
		case f != nil:
			amended = append(amended, e.amend(f))
			b.metrics.ended.WithLabelValues(outcomeAmended).Inc()
		case now.Sub(e.since) < b.cfg.For:
			wait = append(wait, e)
		default:
			b.metrics.ended.WithLabelValues(outcomeExpired).Inc()
		}
	}
	b.putBack(wait)
	for _, f := range amended {
		if err := b.next.Put(ctx, delivery.Item{Finding: f, Done: func() {}}); err != nil {
			return err
		}
	}
	return nil
}

// amend makes the finding that was made anew take the other's place. What was done about that one has been done, or not.
func (e entry) amend(f *findingv1.Finding) *findingv1.Finding {
	f.Id, f.Action, f.Repeats, f.Amended = e.id, e.action, e.repeats, true
	f.Output += e.words
	return f
}

// putBack keeps what still waits, before what has come since.
func (b *Book) putBack(wait []entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range wait {
		b.add(e)
	}
	b.kept = append(wait, b.kept...)
	b.metrics.waiting.Set(float64(len(b.kept)))
}

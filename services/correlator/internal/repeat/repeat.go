// Package repeat folds findings that say the same. Data in: findings on their way; data out: the first of each, and every so often
// one that says how many more there were. What differs goes on by itself, up to a bound, so that nobody hides the odd one among
// many. Nothing is let go of before what stands for it is delivered.
package repeat

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/palisade-sec/palisade/internal/periodic"
	"github.com/palisade-sec/palisade/services/correlator/internal/delivery"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// Config says what is folded.
type Config struct {
	// Window is for how long findings are compared with the first of them; 0 folds none.
	Window time.Duration `yaml:"window"`
	// Every is how long a finding that was folded waits to be told. Room on the kernel's rings waits with it.
	Every time.Duration `yaml:"every"`
	// Distinct is how many outputs of one rule, workload and program go on by themselves within a window.
	Distinct int `yaml:"distinct"`
	// Groups is how many rules, workloads and programs are kept to compare with; what is beyond is not folded.
	Groups int `yaml:"groups"`
}

// DefaultConfig tells a flood of one finding once a second, and anew after a minute.
func DefaultConfig() Config {
	return Config{Window: time.Minute, Every: time.Second, Distinct: 16, Groups: 4096}
}

// longestEvery keeps the rings from filling up with what waits here.
const longestEvery = 10 * time.Second

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	if c.Window < 0 {
		errs = append(errs, fmt.Errorf("repeats.window: %v is negative", c.Window))
	}
	if c.Every <= 0 || c.Every > longestEvery {
		errs = append(errs, fmt.Errorf("repeats.every: %v is not above 0 and at most %v", c.Every, longestEvery))
	}
	if c.Distinct < 1 {
		errs = append(errs, fmt.Errorf("repeats.distinct: %d is not positive", c.Distinct))
	}
	if c.Groups < 1 {
		errs = append(errs, fmt.Errorf("repeats.groups: %d is not positive", c.Groups))
	}
	return errors.Join(errs...)
}

// Sink takes findings. *delivery.Delivery is one.
type Sink interface {
	Put(ctx context.Context, item delivery.Item) error
}

// maxWaiting is how many findings may be folded and not told yet. What is beyond goes on by itself: a sink that is full must be felt.
const maxWaiting = 100_000

// Folder stands before a sink. Safe for concurrent use.
type Folder struct {
	cfg    Config
	next   Sink
	now    func() time.Time
	folded prometheus.Counter

	mu      sync.Mutex
	groups  map[key]*group
	waiting int // folded and not told
}

// key is what findings must have in common to be folded.
type key struct{ rule, workload, exe string }

// group is what was found of one key since its window began.
type group struct {
	since time.Time
	// said is what went on by itself, by its output.
	said map[string]*tally
	// rest is what was beyond Distinct, nil if nothing was.
	rest *tally
}

// tally is a finding that went on, and what was folded into it since that was told last.
type tally struct {
	of     string // its id
	differ bool   // what is folded has the rule, workload and program in common, and not the output
	total  uint64 // all that was ever folded

	count       uint64
	first, last delivery.Item // the zero Item if count is 0
	done        []func()
}

// New returns a folder that hands on to a sink. Run it.
func New(cfg Config, next Sink, registry *prometheus.Registry) (*Folder, error) {
	f := &Folder{
		cfg: cfg, next: next, now: time.Now, groups: map[key]*group{},
		folded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "palisade_correlator_findings_folded_total", Help: "Findings that are told of as repeats of another one.",
		}),
	}
	if err := registry.Register(f.folded); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return f, nil
}

// Put takes a finding. One that is folded waits for Run; any other is handed on, which may block.
func (f *Folder) Put(ctx context.Context, item delivery.Item) error {
	if item.Alike && f.cfg.Window > 0 && f.fold(item) {
		f.folded.Inc()
		return nil
	}
	return f.next.Put(ctx, item)
}

// fold returns false if the finding is to go on by itself.
func (f *Folder) fold(item delivery.Item) bool {
	finding := item.Finding
	k := key{rule: finding.GetRule(), workload: workload.KeyOf(finding.GetWorkload(), finding.GetEvent().GetCgroupId()), exe: finding.GetProcess().GetExe()}
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.groups[k]
	if g == nil {
		if len(f.groups) < f.cfg.Groups {
			f.groups[k] = &group{since: f.now(), said: map[string]*tally{finding.GetOutput(): {of: finding.GetId()}}}
		}
		return false
	}
	t := g.said[finding.GetOutput()]
	switch {
	case t != nil:
	case len(g.said) < f.cfg.Distinct:
		g.said[finding.GetOutput()] = &tally{of: finding.GetId()}
		return false
	case g.rest == nil:
		g.rest = &tally{of: finding.GetId(), differ: true}
		return false
	default:
		t = g.rest
	}
	if f.waiting >= maxWaiting {
		return false
	}
	f.waiting++
	t.add(item)
	return true
}

func (t *tally) add(item delivery.Item) {
	if t.count == 0 {
		t.first = item
	}
	t.count++
	t.total++
	t.last = item
	t.done = append(t.done, item.Done)
}

// Run tells what was folded, until ctx ends. What has not been told then is not done: its batch comes again.
func (f *Folder) Run(ctx context.Context) error {
	return periodic.Run(ctx, f.cfg.Every, f.Tell)
}

// Tell hands on a finding for each tally that something was folded into. Run does so now and then.
func (f *Folder) Tell(ctx context.Context) error {
	for _, item := range f.due() {
		if err := f.next.Put(ctx, item); err != nil {
			return err
		}
	}
	return nil
}

// due takes what was folded since it was told last, and forgets groups whose window is over.
func (f *Folder) due() []delivery.Item {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	var items []delivery.Item
	for k, g := range f.groups {
		for _, t := range g.said {
			items = t.take(items)
		}
		if g.rest != nil {
			items = g.rest.take(items)
		}
		if now.Sub(g.since) >= f.cfg.Window {
			delete(f.groups, k)
		}
	}
	f.waiting = 0
	return items
}

func (t *tally) take(items []delivery.Item) []delivery.Item {
	if t.count == 0 {
		return items
	}
	done := t.done
	item := delivery.Item{
		Finding: t.summary(), Span: t.last.Span, Late: t.last.Late, Words: t.words(),
		Done: func() {
			for _, d := range done {
				d()
			}
		},
	}
	*t = tally{of: t.of, differ: t.differ, total: t.total}
	return append(items, item)
}

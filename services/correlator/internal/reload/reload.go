// Package reload watches rule files and compiles them anew when they have changed. Data in: files; data out: a compiled set, whole or
// not at all. Files with a mistake leave the rules in force as they are, and are told of in the log, the metrics and the status.
package reload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/palisade-sec/palisade/internal/periodic"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/rulefile"
)

// Config says how often to look.
type Config struct {
	// Every is how often the files are looked at. A change is taken in when it is the same for two looks, so that a file
	// that is being written is not read half.
	Every time.Duration `yaml:"every"`
}

// DefaultConfig takes a change in after two to four seconds.
func DefaultConfig() Config { return Config{Every: 2 * time.Second} }

// Validate reports every fault.
func (c Config) Validate() error {
	if c.Every < 10*time.Millisecond || c.Every > time.Hour {
		return fmt.Errorf("reload.every: %v is not from 10ms to 1h", c.Every)
	}
	return nil
}

// Watcher looks at rule files.
type Watcher struct {
	cfg   Config
	paths []string
	load  func(context.Context) (*rule.Set, error)
	sets  chan *rule.Set
	log   *slog.Logger
	done  *prometheus.CounterVec

	// mark is of the files that were loaded last, seen of the last look. Only Run's goroutine uses them.
	mark, seen string

	mu    sync.Mutex
	state State // guarded by mu
}

// State is how it went.
type State struct {
	// Loaded is when the rules in force were loaded.
	Loaded time.Time
	// Err is why newer files are not in force, nil if they are; Since when.
	Err   error
	Since time.Time
}

// New returns a watcher of the paths, whose files were loaded just now. load compiles them, and what is read before them.
func New(cfg Config, paths []string, load func(context.Context) (*rule.Set, error), log *slog.Logger, registry *prometheus.Registry) (*Watcher, error) {
	w := &Watcher{
		cfg: cfg, paths: paths, load: load, sets: make(chan *rule.Set), log: log, mark: rulefile.Mark(paths),
		done: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "palisade_correlator_rule_reloads_total", Help: "Times that rule files had changed, by what came of it.",
		}, []string{"outcome"}),
		state: State{Loaded: time.Now()},
	}
	w.seen = w.mark
	for _, outcome := range []string{outcomeLoaded, outcomeRefused} {
		w.done.WithLabelValues(outcome)
	}
	if err := registry.Register(w.done); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return w, nil
}

// What came of a change.
const (
	outcomeLoaded  = "loaded"
	outcomeRefused = "refused"
)

// Sets is where newly compiled rules arrive. It is never closed.
func (w *Watcher) Sets() <-chan *rule.Set { return w.sets }

// State is how the last change went. Safe for concurrent use.
func (w *Watcher) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// Run looks until ctx ends.
func (w *Watcher) Run(ctx context.Context) error { return periodic.Run(ctx, w.cfg.Every, w.look) }

// look takes a change in if it is the same as at the look before.
func (w *Watcher) look(ctx context.Context) error {
	mark := rulefile.Mark(w.paths)
	settled := mark == w.seen
	w.seen = mark
	if !settled || mark == w.mark {
		return nil
	}
	w.mark = mark
	set, err := w.load(ctx)
	if err != nil {
		w.refused(ctx, err)
		return nil // the old rules stay, which is no reason to end
	}
	select {
	case w.sets <- set:
	case <-ctx.Done():
		return ctx.Err()
	}
	w.done.WithLabelValues(outcomeLoaded).Inc()
	w.log.InfoContext(ctx, "Reloaded rules", "count", len(set.Rules()))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = State{Loaded: time.Now()}
	return nil
}

func (w *Watcher) refused(ctx context.Context, err error) {
	w.done.WithLabelValues(outcomeRefused).Inc()
	count := 1
	if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // errors.Join's own type, from rule.Load
		count = len(joined.Unwrap())
	}
	w.log.ErrorContext(ctx, "Rules are not reloaded, the old ones stay in force", "err", err, "count", count)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state.Err, w.state.Since = firstOf(err), time.Now()
}

// firstOf is the first fault in one line, without the text and the caret.
func firstOf(err error) error {
	if fault, ok := errors.AsType[*rule.Error](err); ok {
		return fmt.Errorf("%s: %s", fault.Position, fault.Msg)
	}
	return err
}

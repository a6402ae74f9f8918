// Package delivery carries findings out: first to the enforcer, if something is to be done about them, then to the
// uplink, again and again until it has them on disk. Data in: findings; data out: calls to enforcer and uplink, and a
// word to the batch each finding came from. What waits is bounded; a full queue blocks who puts in.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	uplinkv1 "github.com/palisade-sec/palisade/api/palisade/uplink/v1"
)

// EnforcerConfig says how the enforcer is called.
type EnforcerConfig struct {
	// Timeout bounds one call.
	Timeout time.Duration `yaml:"timeout"`
	// Workers is how many calls may run at once, so that one that hangs does not hold up the others.
	Workers int `yaml:"workers"`
}

// UplinkConfig says how the uplink is called.
type UplinkConfig struct {
	// Timeout bounds one call.
	Timeout time.Duration `yaml:"timeout"`
	// Batch is the most findings in a call, at most 1000; large ones are fewer.
	Batch int `yaml:"batch"`
	// Linger is how long a finding waits for company.
	Linger time.Duration `yaml:"linger"`
	// Queue is how many findings may wait.
	Queue int `yaml:"queue"`
}

// DefaultEnforcerConfig is fit for a local enforcer.
func DefaultEnforcerConfig() EnforcerConfig {
	return EnforcerConfig{Timeout: time.Second, Workers: 4}
}

// DefaultUplinkConfig is fit for a local uplink.
func DefaultUplinkConfig() UplinkConfig {
	return UplinkConfig{Timeout: 5 * time.Second, Batch: 200, Linger: 5 * time.Millisecond, Queue: 1000}
}

// Validate reports every fault.
func (c EnforcerConfig) Validate() error {
	var errs []error
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("enforcer.timeout: %v is not positive", c.Timeout))
	}
	if c.Workers < 1 || c.Workers > 64 {
		errs = append(errs, fmt.Errorf("enforcer.workers: %d is not from 1 to 64", c.Workers))
	}
	return errors.Join(errs...)
}

// Validate reports every fault.
func (c UplinkConfig) Validate() error {
	var errs []error
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("uplink.timeout: %v is not positive", c.Timeout))
	}
	if c.Batch < 1 || c.Batch > 1000 {
		errs = append(errs, fmt.Errorf("uplink.batch: %d is not from 1 to 1000", c.Batch))
	}
	if c.Linger < 0 {
		errs = append(errs, fmt.Errorf("uplink.linger: %v is negative", c.Linger))
	}
	if c.Queue < 1 {
		errs = append(errs, fmt.Errorf("uplink.queue: %d is not positive", c.Queue))
	}
	return errors.Join(errs...)
}

// Item is a finding on its way.
type Item struct {
	Finding *findingv1.Finding
	// Kill is what the enforcer is to do first, nil if nothing.
	Kill *enforcerv1.KillRequest
	// Doing begins the action's detail: "prevent: degraded to kill (tier tracepoint)".
	Doing string
	// Alike says that findings like it may be told as one, Words what one that is told for several says at its end.
	Alike bool
	Words string
	// Late makes the finding of a container that nobody has claimed anew: nil as long as nobody has. Only the pipeline's goroutine
	// may call it. It is nil for any other finding.
	Late func() *findingv1.Finding
	// Span is the batch's, whose children the calls become.
	Span trace.SpanContext
	// Done is called once the uplink has the finding.
	Done func()
}

// Delivery is the way out. Run its two tasks.
type Delivery struct {
	enforcerConfig EnforcerConfig
	uplinkConfig   UplinkConfig
	enforcer       enforcerv1.ActionServiceClient
	uplink         uplinkv1.QueueServiceClient
	log            *slog.Logger
	metrics        *metrics
	kills, pushes  chan Item

	mu                     sync.Mutex
	enforcerErr, uplinkErr error // of the last call; guarded by mu
}

// Peers are the connections that delivery calls over and does not close.
type Peers struct{ Enforcer, Uplink grpc.ClientConnInterface }

// New returns a delivery that does nothing yet.
func New(e EnforcerConfig, u UplinkConfig, peers Peers, log *slog.Logger, registry *prometheus.Registry) (*Delivery, error) {
	m, err := newMetrics(registry)
	if err != nil {
		return nil, err
	}
	return &Delivery{
		enforcerConfig: e, uplinkConfig: u, log: log, metrics: m,
		enforcer: enforcerv1.NewActionServiceClient(peers.Enforcer),
		uplink:   uplinkv1.NewQueueServiceClient(peers.Uplink),
		kills:    make(chan Item, 64), pushes: make(chan Item, u.Queue),
	}, nil
}

// Put takes a finding over. It blocks while the queue is full, and returns ctx's error if that ends first.
func (d *Delivery) Put(ctx context.Context, item Item) error {
	queue := d.pushes
	if item.Kill != nil {
		queue = d.kills
	}
	select {
	case queue <- item:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Queued is how many findings wait.
func (d *Delivery) Queued() int { return len(d.kills) + len(d.pushes) }

// Errs are the errors of the last call to each peer, nil if it went well. Safe for concurrent use.
func (d *Delivery) Errs() (enforcer, uplink error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.enforcerErr, d.uplinkErr
}

// note keeps the outcome of a call, and logs a change.
func (d *Delivery) note(ctx context.Context, last *error, err error, peer string) {
	d.mu.Lock()
	before := *last
	*last = err
	d.mu.Unlock()
	switch {
	case err != nil && before == nil:
		d.log.WarnContext(ctx, "Lost a peer", "peer", peer, "err", err)
	case err == nil && before != nil:
		d.log.InfoContext(ctx, "Reached a peer again", "peer", peer)
	}
}

// within is ctx as a child of a batch's span, with a deadline.
func within(ctx context.Context, span trace.SpanContext, timeout time.Duration) (context.Context, context.CancelFunc) {
	if span.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, span)
	}
	return context.WithTimeout(ctx, timeout)
}

// Package outbox carries word from the enforcer to the other processes, again and again until they have it.
//
// In: findings, containers that passed the shim, and where the shim stands. Out: calls to the uplink and the correlator. What waits is bounded,
// and what was dropped is counted and told.
package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	uplinkv1 "github.com/palisade-sec/palisade/api/palisade/uplink/v1"
)

const (
	// maxFindings wait at most, some 8 MiB of them; then the oldest goes.
	maxFindings = 2000
	// batch is how many go in one call; the uplink takes 1000.
	batch = 100
	// maxRegistrations are remembered, for a correlator that begins anew: as many as its own book has.
	maxRegistrations = 8192
	// callTime bounds one call, and nowTime one that a container waits for.
	callTime = 5 * time.Second
	nowTime  = 30 * time.Millisecond
	// lastTime bounds the call at the end of the process.
	lastTime = time.Second
	// pause is between tries.
	pause = 500 * time.Millisecond
	// reportEvery is how often the correlator hears where the shim stands.
	reportEvery = 5 * time.Second
)

// Peers are the connections that are called over. They are not closed.
type Peers struct{ Correlator, Uplink grpc.ClientConnInterface }

// Outbox is safe for concurrent use. Run its task.
type Outbox struct {
	uplink     uplinkv1.QueueServiceClient
	correlator correlatorv1.RegistrationServiceClient
	log        *slog.Logger
	dropped    *prometheus.CounterVec
	// boottime is the kernel's clock, in ns (CLOCK_BOOTTIME).
	boottime func() uint64
	now      func() time.Time
	wake     chan struct{}

	mu       sync.Mutex
	findings []*findingv1.Finding // oldest first; guarded by mu
	folds    map[string]*fold     // by what they say; guarded by mu
	book     book                 // guarded by mu
	shim     shim                 // guarded by mu
	errs     map[string]error     // of the last call to each peer; guarded by mu
	instance string               // of the correlator that was told; guarded by mu
	lost     uint64               // findings that were dropped; guarded by mu
}

// shim is where the shim stands.
type shim struct {
	// since is CLOCK_BOOTTIME in ns, 0 while it is not in force.
	since  uint64
	places []*correlatorv1.ShimPlace
}

// New returns an outbox that calls nobody yet.
func New(peers Peers, log *slog.Logger, registry prometheus.Registerer) (*Outbox, error) {
	o := &Outbox{
		uplink: uplinkv1.NewQueueServiceClient(peers.Uplink), correlator: correlatorv1.NewRegistrationServiceClient(peers.Correlator),
		log: log, boottime: boottime, now: time.Now, folds: map[string]*fold{}, wake: make(chan struct{}, 1), errs: map[string]error{},
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "palisade_enforcer_outbox_dropped_total", Help: "What was dropped because too much waited.",
		}, []string{"what"}),
	}
	if err := registry.Register(o.dropped); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return o, nil
}

// Tell takes a finding over. Those that say the same within a minute are told as one more, which has their number.
func (o *Outbox) Tell(finding *findingv1.Finding) {
	o.mu.Lock()
	if !o.folded(finding, o.now()) {
		o.put(finding)
	}
	o.mu.Unlock()
	o.nudge()
}

// put makes a finding wait. o.mu is held.
func (o *Outbox) put(finding *findingv1.Finding) {
	if len(o.findings) >= maxFindings {
		o.findings = o.findings[1:]
		o.lost++
		o.dropped.WithLabelValues("finding").Inc()
	}
	o.findings = append(o.findings, finding)
}

// Register takes over that a container passed the shim.
func (o *Outbox) Register(registration *correlatorv1.RegisterContainerRequest) {
	o.mu.Lock()
	o.enter(registration)
	o.mu.Unlock()
	o.nudge()
}

// RegisterNow is Register, and does not return before the correlator has what was registered so far, if it takes it in time.
func (o *Outbox) RegisterNow(ctx context.Context, registration *correlatorv1.RegisterContainerRequest) {
	ctx, cancel := context.WithTimeout(ctx, nowTime)
	defer cancel()
	o.mu.Lock()
	o.enter(registration)
	down := o.errs[correlator] != nil
	o.mu.Unlock()
	if down { // who is known not to answer is not waited for
		o.nudge()
		return
	}
	_, err := o.correlator.RegisterContainer(ctx, registration)
	if err != nil {
		o.nudge()
	}
}

// enter puts a registration into the book. o.mu is held.
func (o *Outbox) enter(registration *correlatorv1.RegisterContainerRequest) {
	if o.book.add(entry{registration: registration, boottime: o.boottime()}) {
		o.dropped.WithLabelValues("registration").Inc()
	}
}

// ReportShim takes over where the shim stands. inForce says that it is wherever it should be.
func (o *Outbox) ReportShim(inForce bool, places []*correlatorv1.ShimPlace) {
	o.mu.Lock()
	o.shim.places = places
	switch {
	case !inForce:
		o.shim.since = 0
	case o.shim.since == 0:
		o.shim.since = o.boottime()
	}
	o.mu.Unlock()
	o.nudge()
}

// Lost is how many findings were dropped since the start.
func (o *Outbox) Lost() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lost
}

func (o *Outbox) nudge() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Run calls until ctx ends.
func (o *Outbox) Run(ctx context.Context) error {
	report := time.NewTicker(reportEvery)
	defer report.Stop()
	var again <-chan time.Time
	owed := true
	for {
		select {
		case <-ctx.Done():
			o.last(ctx)
			return ctx.Err()
		case <-o.wake:
		case <-again:
		case <-report.C:
			owed = true
			o.mu.Lock()
			o.unfold(o.now(), false)
			o.mu.Unlock()
		}
		again = nil
		if o.send(ctx, owed) != nil {
			again = time.After(pause)
			continue
		}
		owed = false
	}
}

// last tells what is counted and not told, if the uplink still takes it.
func (o *Outbox) last(ctx context.Context) {
	o.mu.Lock()
	o.unfold(o.now(), true)
	o.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTime)
	defer cancel()
	_ = o.pushFindings(ctx) // the process ends, whether or not
}

// send sends what waits, and then, if a report is owed, where the shim stands.
func (o *Outbox) send(ctx context.Context, owed bool) error {
	findings := o.pushFindings(ctx)
	registrations := o.pushRegistrations(ctx)
	if registrations == nil && owed {
		registrations = o.reportShim(ctx)
	}
	return errors.Join(findings, registrations)
}

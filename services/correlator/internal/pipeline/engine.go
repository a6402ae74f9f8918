// Package pipeline turns events into findings. Data in: batches from the collector and news from the container runtime;
// data out: findings with their context, to delivery. One goroutine owns the process tree and the workload index, so
// neither has a lock, and an event costs a few look-ups.
//
// An event whose cgroup nobody has claimed yet waits, in order within its cgroup, for at most a second, while the
// runtime is asked. Then it goes on with its metadata marked as pending, and what was found is told anew when somebody
// claims the cgroup after all. A batch is released when the last of its events has gone on and the uplink has every
// finding that came of it.
package pipeline

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/account"
	"github.com/palisade-sec/palisade/services/correlator/internal/bookmark"
	"github.com/palisade-sec/palisade/services/correlator/internal/delivery"
	"github.com/palisade-sec/palisade/services/correlator/internal/dnsname"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/model"
	"github.com/palisade-sec/palisade/services/correlator/internal/process"
	"github.com/palisade-sec/palisade/services/correlator/internal/profile"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/subscription"
	"github.com/palisade-sec/palisade/services/correlator/internal/window"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// Sink takes findings. *delivery.Delivery is one.
type Sink interface {
	Put(ctx context.Context, item delivery.Item) error
}

// Amendments are told now and then that findings may be told anew. *amendment.Book is one.
type Amendments interface {
	Settle(ctx context.Context) error
}

// Runtime tells which containers run. *container.Watcher is one.
type Runtime interface {
	Updates() <-chan workload.Update
	// Ask wants news soon and does not block.
	Ask()
}

// Registrar tells the collector which cgroups are containers'. *registration.Registrar is one.
type Registrar interface {
	// Bind says that a cgroup is a container's, or is no more, Rings which rings events come from. Neither blocks.
	Bind(cgroupID uint64, bound bool)
	Rings(epoch string)
}

// Bookmark keeps how far the stream has been seen. *bookmark.Book is one.
type Bookmark interface {
	Save(mark bookmark.Mark) error
}

// Recorder is shown what the engine takes in, in its order. *tap.Tap is one. Nothing of it blocks.
type Recorder interface {
	// Joins has a value when somebody wants a snapshot, which Begin takes.
	Joins() <-chan struct{}
	Begin(at time.Time, parts []*correlatorv1.RecordedEntry)
	Batch(at time.Time, b *subscription.Batch)
	News(at time.Time, u workload.Update)
	Accounts(at time.Time, table *account.Table)
}

// Models learn what the containers of an image do, and say what is unusual. *model.Learner is one. Nothing of it blocks for long.
type Models interface {
	Observe(s model.Sighting) []model.Anomaly
	Suspect(w *findingv1.Workload, priority findingv1.Priority)
	Lost(w *findingv1.Workload, count uint64)
	Tick(now time.Time, running []*findingv1.Workload)
}

// Deps are the parts an engine works with.
type Deps struct {
	Rules *rule.Set
	// Reloads brings other rules to go on with; nil if there will be none.
	Reloads <-chan *rule.Set
	// Adopted is told of rules that came so and are in force now, and must not block; nil if nobody wants to know.
	Adopted func(*rule.Set)
	Batches <-chan *subscription.Batch
	Runtime Runtime
	// Accounts brings the host's users and groups, again when they have changed; nil if nobody tells them.
	Accounts <-chan *account.Table
	Sink     Sink
	// Amendments may be nil.
	Amendments Amendments
	// Registrar may be nil.
	Registrar Registrar
	// Seen is how far an earlier run of the correlator had seen, zero if there was none; Bookmark keeps how far this
	// one has. It may be nil.
	Seen     bookmark.Mark
	Bookmark Bookmark
	// Reopen asks for a new snapshot, and does not block; nil if there is nobody to ask.
	Reopen func()
	// Models learn what images do; nil if nothing is learned.
	Models Models
	// Passage is the book of containers that passed the runC shim; nil if nobody keeps one.
	Passage Passage
	// Flight, Recorder and Profile may be nil.
	Flight   Flight
	Recorder Recorder
	Profile  *profile.Profile
	// Now is the clock, time.Now if it is nil.
	Now     func() time.Time
	Log     *slog.Logger
	Metrics *prometheus.Registry
}

// Engine is the pipeline. Its Run is one goroutine; only Facts and Matches may be called beside it. A replay calls Batch, News and
// Tick, of which Run is made, instead of Run.
type Engine struct {
	cfg     Config
	deps    Deps
	tree    *process.Tree
	index   *workload.Index
	held    *holds
	matches *Matches
	metrics *metrics
	tracer  trace.Tracer

	// windows count for rules that ask for several matches, names are what workloads' addresses are called.
	windows  *window.Counter
	names    *dnsname.Cache
	accounts *account.Table

	stream stream
	// losers are the workloads of cgroups that records are missing of, until the next sweep; nil for one nobody knows.
	losers   map[uint64]*findingv1.Workload
	now      func() time.Time
	swept    time.Time
	turns    int
	arrivals arrivals
	// early are sets of system calls whose container is not known yet.
	early []subject
	// judged and yield are here, and not made for each event, so that one that matches nothing allocates nothing.
	judged judged
	yield  func(*rule.Rule)
}

// New returns an engine that has seen nothing.
func New(cfg Config, deps Deps) (*Engine, error) {
	m, err := newMetrics(deps.Metrics)
	if err != nil {
		return nil, err
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	e := &Engine{
		cfg: cfg, deps: deps, tree: process.New(cfg.Processes.KeepExited), held: newHolds(cfg.Hold.Events),
		matches: newMatches(deps.Rules), metrics: m, losers: map[uint64]*findingv1.Workload{}, now: deps.Now,
		windows: window.New(), names: dnsname.New(), arrivals: newArrivals(),
		tracer: otel.Tracer("github.com/palisade-sec/palisade/services/correlator"),
	}
	e.index = workload.NewIndex(workload.Config{
		Grace: cfg.Workloads.Grace, Now: func() time.Time { return e.now() },
		Refused: func(ref workload.Ref, reason workload.Reason) {
			m.refusals.WithLabelValues(string(reason)).Inc()
			deps.Log.Debug("Refused to bind a container", "container_id", ref.ID, "reason", string(reason))
		},
		Bound: func(cgroupID uint64, bound bool) {
			if deps.Registrar != nil {
				deps.Registrar.Bind(cgroupID, bound)
			}
		},
	}, e.tree)
	e.judged.context.Names = e.names
	e.stream.resume(deps.Seen)
	e.yield = func(r *rule.Rule) { e.judged.found = append(e.judged.found, r) }
	return e, nil
}

// Run works until ctx ends. Everything it waits for ends with ctx.
func (e *Engine) Run(ctx context.Context) error {
	timer := time.NewTimer(idle)
	defer timer.Stop()
	// A clock of its own: on a busy node the timer never fires, because every turn sets it again.
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	defer e.remember(ctx)
	var joins <-chan struct{}
	if e.deps.Recorder != nil {
		joins = e.deps.Recorder.Joins()
	}
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case batch := <-e.deps.Batches:
			err = e.Batch(ctx, batch)
		case update := <-e.deps.Runtime.Updates():
			err = e.News(ctx, update)
		case set := <-e.deps.Reloads:
			e.adopt(set)
		case table := <-e.deps.Accounts:
			e.Accounts(table)
		case <-joins:
			e.deps.Recorder.Begin(e.now(), e.snapshot())
		case <-timer.C: // something has waited long enough
		case <-sweep.C:
		}
		if err == nil {
			err = e.Tick(ctx)
		}
		if err != nil {
			return err
		}
		timer.Reset(e.held.next(e.now(), idle))
		e.metrics.observe(e)
	}
}

// Batch takes in one batch of events.
func (e *Engine) Batch(ctx context.Context, b *subscription.Batch) error {
	if e.deps.Recorder != nil {
		e.deps.Recorder.Batch(e.now(), b)
	}
	return e.batch(ctx, b)
}

// News takes in what the container runtime says.
func (e *Engine) News(ctx context.Context, u workload.Update) error {
	if e.deps.Recorder != nil {
		e.deps.Recorder.News(e.now(), u)
	}
	if e.index.Apply(u) {
		return e.retry(ctx)
	}
	return nil
}

// Tick does what is due by the clock: it lets go of what has waited long enough, and forgets what has expired.
func (e *Engine) Tick(ctx context.Context) error {
	if now := e.now(); now.Sub(e.swept) >= sweepEvery {
		e.swept = now
		e.index.Sweep()
		clear(e.losers)
		if err := errors.Join(e.learn(ctx, now), e.aboutFlight(ctx), e.aboutPassage(ctx)); err != nil {
			return err
		}
		if e.deps.Amendments != nil {
			if err := e.deps.Amendments.Settle(ctx); err != nil {
				return err
			}
		}
		if e.turns++; e.turns%rememberEvery == 0 {
			e.remember(ctx)
		}
	}
	return e.expire(ctx)
}

const (
	// sweepEvery is how often workloads that have expired are forgotten.
	sweepEvery = time.Second
	// rememberEvery is how many sweeps pass between bookmarks: after a crash a gap is said to have begun so much
	// earlier than it did, never later.
	rememberEvery = 5
	// idle is the longest wait for the next deadline of what is held.
	idle = time.Second
)

// batch learns from and judges each event that has not been taken in before.
func (e *Engine) batch(ctx context.Context, b *subscription.Batch) error {
	parent := propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": b.GetTraceparent()})
	ctx, span := e.tracer.Start(parent, "correlate batch", trace.WithAttributes(
		attribute.Int("events", len(b.GetEvents())), attribute.Int64("batch", int64(b.GetBatch())))) //nolint:gosec // a counter
	defer span.End()
	e.metrics.batches.Inc()
	if b.Opens {
		e.tree.BeginSnapshot()
	}
	if b.GetBatch() != 0 {
		e.tree.EndSnapshot()
	}
	e.stream.begin(b)
	if e.deps.Registrar != nil {
		e.deps.Registrar.Rings(b.GetEpoch())
	}
	for _, event := range b.GetEvents() {
		if e.stream.repeats(event) {
			e.metrics.repeated.Inc()
			continue
		}
		e.metrics.event(event)
		if err := e.event(ctx, subject{event: event, batch: b, span: span.SpanContext()}); err != nil {
			return err // the batch is not released: it must come again
		}
	}
	b.Release()
	return nil
}

// event learns from one event and judges it, now or later.
func (e *Engine) event(ctx context.Context, s subject) error {
	if err := e.aboutCollector(ctx, s); err != nil {
		return err
	}
	if s.event.GetDns() != nil {
		e.names.Learn(s.event)
	}
	entry := e.tree.Apply(s.event)
	switch {
	case entry != nil:
		s.entry, s.image = entry, entry.Shown(s.event)
		s.place = placeOf(s.event, entry.MntNS, entry.PIDNS)
		e.enter(&s)
		if e.index.Observe(entry) {
			if err := e.retry(ctx); err != nil {
				return err
			}
		}
	case field.KindOf(s.event) == 0:
		return e.syscalls(ctx, s) // Loss, Started, SyscallsUsed: no process's
	default: // the kernel's own doing, such as a datagram that had waited
		ns := s.event.GetNamespaces()
		s.image = &field.Process{Name: s.event.GetComm(), LoginUID: field.NoLogin}
		s.place = placeOf(s.event, ns.GetMnt(), ns.GetPid())
	}
	if !e.held.waits(s.place.CgroupID) {
		if done, err := e.judge(ctx, s); done || err != nil {
			return err
		}
	}
	return e.hold(ctx, s)
}

func placeOf(event *eventv1.Event, mntNS, pidNS uint32) workload.Place {
	return workload.Place{CgroupID: event.GetCgroupId(), Registered: event.GetWorkloadCgroupId(), MntNS: mntNS, PIDNS: pidNS}
}

// retry judges what waits, after a cgroup was bound. The binding may be of an ancestor, so every queue is tried.
func (e *Engine) retry(ctx context.Context) error {
	for _, q := range e.held.all() {
		for len(q.subjects) > 0 {
			done, err := e.judge(ctx, q.subjects[0])
			if err != nil {
				return err
			}
			if !done {
				break
			}
			e.metrics.released.WithLabelValues(releaseBound).Inc()
			e.held.take(q).batch.Release()
		}
	}
	return nil
}

// expire lets go of what has waited long enough.
func (e *Engine) expire(ctx context.Context) error {
	for q := e.held.oldest(); q != nil && !q.deadline.After(e.now()); q = e.held.oldest() {
		if err := e.release(ctx, q, releaseExpired); err != nil {
			return err
		}
	}
	return nil
}

// release gives up on a queue's cgroup: its events go on as they are.
func (e *Engine) release(ctx context.Context, q *waiting, why string) error {
	e.index.GiveUp(q.cgroupID)
	for len(q.subjects) > 0 {
		s := e.held.take(q)
		e.metrics.released.WithLabelValues(why).Inc()
		if _, err := e.judge(ctx, s); err != nil {
			return err
		}
		s.batch.Release()
	}
	return nil
}

package pipeline

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/timestamppb"

	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/delivery"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/model"
	"github.com/palisade-sec/palisade/services/correlator/internal/process"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/subscription"
	"github.com/palisade-sec/palisade/services/correlator/internal/window"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// subject is an event with what must be known to judge it later: the program its process ran then, and where.
type subject struct {
	event *eventv1.Event
	image *field.Process
	entry *process.Entry
	place workload.Place
	// entered and started are for models; see enter.
	entered, started bool
	// since is when a set of system calls began to wait.
	since time.Time
	batch *subscription.Batch
	span  trace.SpanContext
}

// judged is the subject that the rules are run over.
type judged struct {
	subject
	context field.Context
	found   []*rule.Rule
}

// judge runs the rules over an event, if it is known whose it is. It returns false if that is worth waiting for.
func (e *Engine) judge(ctx context.Context, s subject) (bool, error) {
	w, settled := e.index.Resolve(s.entry, s.place)
	if !settled {
		return false, nil
	}
	e.keep(w, s.place.CgroupID, s)
	e.arrive(s, w)
	j := &e.judged
	e.consider(s, w)
	j.found = j.found[:0]
	e.deps.Profile.Match(e.deps.Rules, &j.context, e.yield)
	for _, r := range j.found {
		if err := e.found(ctx, r); err != nil {
			return true, err
		}
	}
	return true, e.unusual(ctx)
}

// consider puts a subject under judgement, as the workload's.
func (e *Engine) consider(s subject, w *findingv1.Workload) {
	j := &e.judged
	j.context.Event, j.context.Process, j.context.Workload = s.event, s.image, w
	j.subject = s
}

// unusual lets the models see the subject under judgement, after the rules: what a rule finds grave is not learned.
func (e *Engine) unusual(ctx context.Context) error {
	j := &e.judged
	if e.deps.Models == nil || j.entry != nil && !j.entered {
		return nil
	}
	return e.anomalies(ctx, e.deps.Models.Observe(model.Sighting{
		Workload: j.context.Workload, Event: j.event, Process: j.image, Started: j.started,
	}))
}

// anomalies makes findings of what is unusual about the subject under judgement.
func (e *Engine) anomalies(ctx context.Context, found []model.Anomaly) error {
	for i := range found {
		a := &found[i]
		item := delivery.Item{Finding: e.describe(a.Rule, a.Output)}
		item.Finding.Priority, item.Finding.Effect, item.Finding.Tags = a.Priority, a.Effect, a.Tags
		if word := effectWord(a.Effect); word != "" {
			e.act(&item, word)
		}
		e.deps.Models.Suspect(e.judged.context.Workload, a.Priority)
		if err := e.put(ctx, e.judged.subject, item); err != nil {
			return err
		}
	}
	return nil
}

// enter notes that a process runs a container's program and not its runtime's any more, which still is in the container's cgroup,
// and whether the runtime started it. A runtime executes itself in the host's pid namespace. So do all programs of a
// container that shares that namespace, of which nothing is learned therefore.
func (e *Engine) enter(s *subject) {
	if e.deps.Models == nil {
		return
	}
	kind := field.KindOf(s.event)
	parent := e.tree.Parent(s.entry)
	inside := parent != nil && parent.Entered
	switch {
	case kind == field.KindExec && !e.index.InHostPIDs(s.place):
		s.started = !inside // of a program that replaces another, too
		s.entry.Entered = true
	case kind == field.KindExisting && !e.index.InHostPIDs(s.place), inside:
		s.entry.Entered = true
	}
	if kind == field.KindExisting {
		s.started = !inside
	}
	s.entered = s.entry.Entered
}

const (
	// maxEarly bounds the sets of system calls that wait, and earlyFor how long.
	maxEarly = 1024
	earlyFor = 30 * time.Second
)

// syscalls lets the models see which system calls a workload makes. They are told once: so they wait for their container.
func (e *Engine) syscalls(ctx context.Context, s subject) error {
	if e.deps.Models == nil || s.event.GetSyscallsUsed() == nil {
		return nil
	}
	w := e.resident(s.event.GetCgroupId())
	if w == nil || isPending(w) {
		if len(e.early) < maxEarly {
			s.since = e.now()
			s.batch.Keep()
			e.early = append(e.early, s)
		}
		return nil
	}
	return e.makes(ctx, s, w)
}

// makes judges a set of system calls of a workload.
func (e *Engine) makes(ctx context.Context, s subject, w *findingv1.Workload) error {
	s.image = &field.Process{LoginUID: field.NoLogin}
	e.consider(s, w)
	return e.unusual(ctx)
}

// learn tells the models the time and which containers run, and of the sets of system calls whose container is known by now.
func (e *Engine) learn(ctx context.Context, now time.Time) error {
	if e.deps.Models == nil {
		return nil
	}
	tasks, _ := e.index.Tasks()
	running := make([]*findingv1.Workload, len(tasks))
	for i := range tasks {
		running[i] = tasks[i].Workload
	}
	e.deps.Models.Tick(now, running)
	early := e.early
	e.early = nil
	for _, s := range early {
		w := e.resident(s.event.GetCgroupId())
		known := w != nil && !isPending(w)
		switch {
		case known:
			if err := e.makes(ctx, s, w); err != nil {
				return err
			}
		case now.Sub(s.since) < earlyFor:
			e.early = append(e.early, s)
			continue
		}
		s.batch.Release()
	}
	return nil
}

// found makes a finding of a rule that the subject under judgement matches, and sends it on its way. A rule that asks for several
// matches has one only of the match that completes them.
func (e *Engine) found(ctx context.Context, r *rule.Rule) error {
	e.matches.add(r)
	if w := r.Window; w.Times > 0 {
		j := &e.judged
		key := window.Key{Rule: r.Name, Workload: workload.KeyOf(j.context.Workload, j.place.CgroupID)}
		if !e.windows.Add(key, j.event.GetBoottimeNs(), w.Times, uint64(w.Within)) { //nolint:gosec // not negative
			return nil
		}
	}
	item := delivery.Item{Finding: e.finding(r), Late: e.late(r)}
	if e.deps.Models != nil {
		e.deps.Models.Suspect(e.judged.context.Workload, r.Priority)
	}
	if word := effectWord(r.Effect); word != "" {
		e.act(&item, word)
	} else {
		item.Alike = true
	}
	return e.put(ctx, e.judged.subject, item)
}

// put hands a finding over. Its batch waits for it.
func (e *Engine) put(ctx context.Context, s subject, item delivery.Item) error {
	e.metrics.findings.WithLabelValues(priorityLabel(item.Finding.GetPriority())).Inc()
	item.Span = s.span
	item.Done = s.batch.Release
	if e.deps.Flight != nil {
		e.deps.Flight.Pin(item.Finding.GetWorkload(), s.event.GetCgroupId(), item.Finding)
	}
	s.batch.Keep()
	return e.deps.Sink.Put(ctx, item)
}

// effectWord is what an effect that acts on a process is called, empty for one that does not.
func effectWord(effect findingv1.Effect) string {
	switch effect {
	case findingv1.Effect_EFFECT_PREVENT:
		return "prevent"
	case findingv1.Effect_EFFECT_BLOCK:
		return "block"
	case findingv1.Effect_EFFECT_UNSPECIFIED, findingv1.Effect_EFFECT_DISABLE, findingv1.Effect_EFFECT_ALERT:
	}
	return ""
}

// act asks for what the effect wants, as far as this kernel lets us: there is no guard in the kernel yet, so the
// process is killed. Only a process that is known to be a container's is: the host's own, and those of a cgroup that
// nobody has claimed (which may be a service with namespaces of its own), are let live, and the finding says so.
func (e *Engine) act(item *delivery.Item, word string) {
	f := item.Finding
	refused := &findingv1.Action{
		Kind: findingv1.ActionKind_ACTION_KIND_KILL, Outcome: findingv1.ActionOutcome_ACTION_OUTCOME_REFUSED,
		Time: timestamppb.New(e.now()),
	}
	if f.GetEvent().GetProcess().GetPid() == 0 {
		refused.Detail = word + ": not killed, the kernel did it on behalf of a process that it does not name"
		f.Action = refused
		return
	}
	switch f.GetWorkload().GetMetadata() {
	case findingv1.MetadataState_METADATA_STATE_KNOWN:
		item.Doing = fmt.Sprintf("%s: degraded to kill (tier %s)", word, e.stream.tierName())
		item.Kill = &enforcerv1.KillRequest{
			BootId: e.judged.batch.GetBootId(), Process: f.GetEvent().GetProcess(), Rule: f.GetRule(), FindingId: f.GetId(),
			ContainerId: f.GetWorkload().GetContainerId(), Effect: word,
		}
	case findingv1.MetadataState_METADATA_STATE_HOST:
		refused.Detail = word + ": host processes are never killed"
		f.Action = refused
	default:
		refused.Detail = word + ": not killed, no runtime has claimed its cgroup"
		f.Action = refused
	}
}

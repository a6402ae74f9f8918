package pipeline

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/delivery"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/process"
	"github.com/palisade-sec/palisade/services/correlator/internal/subscription"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// RuleWentAround is raised for a container that runs and did not pass the runC shim, while that is in force (threat B21).
const RuleWentAround = "Container went around the runC shim"

// Passage is the book of containers that passed the shim. *passage.Book is one. Nothing of it blocks.
type Passage interface {
	// Since is from when on containers have to be in it, in ns of CLOCK_BOOTTIME; 0 if they do not.
	Since() uint64
	Wait() time.Duration
	Passed(w *findingv1.Workload, cgroup uint64) bool
}

const (
	// maxArrivals bounds the containers that are remembered, and maxSuspects those that are waited for.
	maxArrivals = 16_384
	maxSuspects = 1024
)

// arrivals are the containers that were seen to run.
type arrivals struct {
	// began is when the first process that was seen of one began, in ns of CLOCK_BOOTTIME.
	began map[workload.Identity]uint64
	// floor is until when containers were forgotten that began.
	floor    uint64
	suspects []suspect
	// asked are those that were suspected once, and told those that a finding is of, by their cgroups and ids.
	asked map[workload.Identity]bool
	told  map[workload.Identity]bool
}

func newArrivals() arrivals {
	return arrivals{began: map[workload.Identity]uint64{}, asked: map[workload.Identity]bool{}, told: map[workload.Identity]bool{}}
}

// suspect is a container that may be registered yet.
type suspect struct {
	subject
	cgroup uint64
	began  uint64
	at     time.Time
}

// arrive notes that a container runs, by the start of a program in it, and suspects it if it has to be in the book.
func (e *Engine) arrive(s subject, w *findingv1.Workload) {
	kind := field.KindOf(s.event)
	if e.deps.Passage == nil || s.entry == nil || kind != field.KindExec && kind != field.KindExisting {
		return
	}
	first := e.firstOf(s.entry)
	place := workload.Place{CgroupID: first.CgroupID, MntNS: first.MntNS, PIDNS: first.PIDNS}
	if w.GetContainerId() == "" && (e.index.InHostPIDs(place) || e.index.InHostMounts(place)) {
		return // the host, or a service of it with a namespace of its own
	}
	a := &e.arrivals
	id := workload.IdentityOf(w, first.CgroupID)
	began, known := a.began[id]
	if !known {
		if len(a.began) >= maxArrivals {
			clear(a.began)
			clear(a.asked)
			clear(a.told)
			a.floor = s.event.GetBoottimeNs()
		}
		began = first.Key.StartBoottimeNs
		a.began[id] = began
	}
	since := e.deps.Passage.Since()
	if since == 0 || began < max(since, a.floor) || a.asked[id] || len(a.suspects) >= maxSuspects {
		return
	}
	a.asked[id] = true
	s.event = proto.CloneOf(s.event)
	s.batch = subscription.NewBatch(&collectorv1.StreamEventsResponse{
		BootId: s.batch.GetBootId(), Instance: s.batch.GetInstance(), Epoch: s.batch.GetEpoch(), Traceparent: s.batch.GetTraceparent(),
	})
	a.suspects = append(a.suspects, suspect{subject: s, cgroup: first.CgroupID, began: began, at: e.now()})
}

// firstOf is the oldest ancestor of a process outside the host's pid namespace, at least the process itself.
func (e *Engine) firstOf(entry *process.Entry) *process.Entry {
	for range maxAncestors {
		above := e.tree.Parent(entry)
		if above == nil || !above.Placed || e.index.InHostPIDs(workload.Place{PIDNS: above.PIDNS}) {
			break
		}
		entry = above
	}
	return entry
}

// aboutPassage raises the findings about containers that are still not in the book.
func (e *Engine) aboutPassage(ctx context.Context) error {
	if e.deps.Passage == nil {
		return nil
	}
	a := &e.arrivals
	waiting := a.suspects
	a.suspects = nil
	since := e.deps.Passage.Since()
	for _, s := range waiting {
		if e.now().Sub(s.at) < e.deps.Passage.Wait() {
			a.suspects = append(a.suspects, s)
			continue
		}
		w, settled := e.index.Resolve(s.entry, s.place)
		if !settled {
			w = e.index.Stray()
		}
		if since == 0 || s.began < since || e.deps.Passage.Passed(w, s.cgroup) || !e.accuse(s, w) {
			continue
		}
		e.consider(s.subject, w)
		if err := e.put(ctx, s.subject, delivery.Item{Finding: e.wentAround(w)}); err != nil {
			return err
		}
	}
	return nil
}

// accuse says whether a container is told for the first time: it may have been nobody's when it was seen first.
func (e *Engine) accuse(s suspect, w *findingv1.Workload) bool {
	a := &e.arrivals
	container, cgroup := workload.IdentityOf(w, s.cgroup), workload.Identity{Cgroup: s.cgroup}
	told := a.told[container] || a.told[cgroup]
	a.told[container], a.told[cgroup] = true, true
	return !told
}

func (e *Engine) wentAround(w *findingv1.Workload) *findingv1.Finding {
	what := "a process in namespaces of its own, of which no runtime tells,"
	if w.GetContainerId() != "" {
		what = fmt.Sprintf("container %s of %s", shorten(w.GetContainerId(), maxName), shorten(w.GetRuntime(), maxName))
	}
	f := e.describe(RuleWentAround, fmt.Sprintf("%s runs and did not pass the runC shim: no admission policy was asked | image=%s program=%s",
		what, shorten(w.GetImage(), maxName), shorten(e.judged.image.Exe, maxName)))
	f.Priority, f.Effect, f.Tags = findingv1.Priority_PRIORITY_WARNING, findingv1.Effect_EFFECT_ALERT, []string{"palisade", "admission"}
	return f
}

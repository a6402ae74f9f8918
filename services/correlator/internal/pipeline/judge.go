package pipeline

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/delivery"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/window"
)

// judge runs the rules over an event, if it is known whose it is. It returns false if that is worth waiting for.
func (e *Engine) judge(ctx context.Context, s subject) (bool, error) {
	w, settled := e.index.Resolve(s.entry, s.place)
	if !settled {
		return false, nil
	}
	j := &e.judged
	j.context.Event, j.context.Process, j.context.Workload = s.event, s.image, w
	j.subject, j.found = s, j.found[:0]
	e.deps.Profile.Match(e.deps.Rules, &j.context, e.yield)
	for _, r := range j.found {
		if err := e.found(ctx, r); err != nil {
			return true, err
		}
	}
	return true, nil
}

// found makes a finding of a rule that the subject under judgement matches, and sends it on its way. A rule that asks for several
// matches has one only of the match that completes them.
func (e *Engine) found(ctx context.Context, r *rule.Rule) error {
	e.matches.add(r)
	if w := r.Window; w.Times > 0 {
		j := &e.judged
		key := window.Key{Rule: r.Name, Workload: workloadKey(j.context.Workload, j.place.CgroupID)}
		if !e.windows.Add(key, j.event.GetBoottimeNs(), w.Times, uint64(w.Within)) { //nolint:gosec // not negative
			return nil
		}
	}
	item := delivery.Item{Finding: e.finding(r)}
	if word := effectWord(r.Effect); word != "" {
		e.act(&item, word)
	} else {
		item.Alike = true
	}
	return e.put(ctx, e.judged.subject, item)
}

// workloadKey tells workloads apart: a container by its id, the host by none, and those that nobody has claimed by their cgroup.
func workloadKey(w *findingv1.Workload, cgroupID uint64) string {
	switch {
	case w.GetContainerId() != "":
		return w.GetContainerId()
	case w.GetMetadata() == findingv1.MetadataState_METADATA_STATE_HOST:
		return ""
	}
	return "cgroup " + decimal(cgroupID)
}

// put hands a finding over. Its batch waits for it.
func (e *Engine) put(ctx context.Context, s subject, item delivery.Item) error {
	e.metrics.findings.WithLabelValues(priorityLabel(item.Finding.GetPriority())).Inc()
	item.Span = s.span
	item.Done = s.batch.Release
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

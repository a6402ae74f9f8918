package pipeline

import (
	"context"
	"fmt"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// lossReason is how a reason is called: as a label, and in the two places of a sentence.
type lossReason struct{ label, verb, words string }

// lossReasons are those that the collector knows.
var lossReasons = map[eventv1.LossReason]lossReason{
	eventv1.LossReason_LOSS_REASON_UNSPECIFIED: {"unknown", "lost", "unknown"},
	eventv1.LossReason_LOSS_REASON_RING_FULL:   {"ring_full", "lost", "ring full"},
	eventv1.LossReason_LOSS_REASON_RATE:        {"rate", "dropped", "over its rate"},
	eventv1.LossReason_LOSS_REASON_KILLED:      {"killed", "lost", "collector killed"},
	eventv1.LossReason_LOSS_REASON_LEFT_OUT:    {"left_out", "lost", "program left out by the kernel"},
}

func reasonOf(loss *eventv1.Loss) lossReason {
	if reason, ok := lossReasons[loss.GetReason()]; ok {
		return reason
	}
	return lossReasons[eventv1.LossReason_LOSS_REASON_UNSPECIFIED]
}

// classOther is the label of what has no class that we know, so that labels stay few.
const classOther = "other"

func lossClass(loss *eventv1.Loss) string {
	if class := loss.GetClass(); field.IsClass(class) {
		return class
	}
	return classOther
}

// lost counts records that are missing, and says so.
func (e *Engine) lost(ctx context.Context, s subject, loss *eventv1.Loss) error {
	class, reason := lossClass(loss), reasonOf(loss)
	e.metrics.lost.WithLabelValues(class, reason.label).Add(float64(loss.GetCount()))
	// The process tree has gone wrong. Only a new snapshot can tell who lives, and as what.
	if e.deps.Reopen != nil && (class == "exec" || class == "fork" || class == "exit") {
		e.deps.Reopen()
	}
	whose, name := e.loser(s.event.GetCgroupId())
	e.keep(whose, s.event.GetCgroupId(), s)
	if e.deps.Models != nil {
		if name == "unknown" {
			e.deps.Models.Lost(nil, loss.GetCount()) // it may have been anybody's
		} else {
			e.deps.Models.Lost(whose, loss.GetCount())
		}
	}
	return e.own(ctx, s, whose, RuleLost,
		fmt.Sprintf("Events %s | class=%s count=%d reason=%s container=%s", reason.verb, class, loss.GetCount(), reason.words, name))
}

// loser is the workload whose events are missing, and its name. It is the host that something is missing of if nobody
// knows whose it was.
func (e *Engine) loser(cgroupID uint64) (*findingv1.Workload, string) {
	if cgroupID == 0 {
		return e.index.Host(), "unknown"
	}
	w, ok := e.losers[cgroupID]
	if !ok {
		w = e.resident(cgroupID)
		e.losers[cgroupID] = w
	}
	switch {
	case w == nil:
		return e.index.Host(), "unknown"
	case w.GetContainerName() != "":
		return w, shorten(w.GetContainerName(), maxName)
	case w.GetContainerId() != "":
		return w, w.GetContainerId()
	case w.GetMetadata() == findingv1.MetadataState_METADATA_STATE_HOST:
		return w, field.Host
	}
	return w, field.Pending
}

// resident is the workload of a cgroup: of the container that it is, or of a process that lives in it. It is nil if
// nothing is known. A search through all processes, so its answers are kept until the next sweep.
func (e *Engine) resident(cgroupID uint64) *findingv1.Workload {
	if entry := e.tree.Within(cgroupID); entry != nil {
		w, _ := e.index.Resolve(entry, workload.Place{CgroupID: cgroupID, MntNS: entry.MntNS, PIDNS: entry.PIDNS})
		return w
	}
	w, _ := e.index.Resolve(nil, workload.Place{CgroupID: cgroupID})
	return w
}

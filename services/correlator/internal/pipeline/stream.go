package pipeline

import (
	"context"
	"fmt"
	"strings"
	"time"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/bookmark"
	"github.com/palisade-sec/palisade/services/correlator/internal/delivery"
)

// Rules that are not in any file: what the stream of events says about itself.
const (
	// RuleRestarted is raised when another run of the collector takes over.
	RuleRestarted = "Collector restarted"
	// RuleLost is raised when the kernel could not write records.
	RuleLost = "Events lost"
)

// stream is what is known of the collector's runs.
type stream struct {
	instance string
	tier     string
	// last is the last event's time, before is that of the instance before this one, zero once it was reported.
	last, before time.Time
	// saved is the bookmark on disk.
	saved bookmark.Mark
}

// remember writes down how far the stream has been seen, if that is farther than before.
func (e *Engine) remember(ctx context.Context) {
	mark := bookmark.Mark{Instance: e.stream.instance, Last: e.stream.last}
	if e.deps.Bookmark == nil || mark == e.stream.saved || !e.stream.before.IsZero() {
		return // a gap that is not reported yet must not be forgotten
	}
	if err := e.deps.Bookmark.Save(mark); err != nil {
		e.deps.Log.WarnContext(ctx, "Could not write down how far events were seen", "err", err)
		return
	}
	e.stream.saved = mark
}

// tierName is the collector's tier, as far as it has told us.
func (s stream) tierName() string {
	if s.tier == "" {
		return "unknown"
	}
	return s.tier
}

// aboutCollector raises the findings that are about the stream itself.
func (e *Engine) aboutCollector(ctx context.Context, s subject) error {
	st := &e.stream
	if instance := s.batch.GetInstance(); instance != st.instance {
		if st.instance != "" {
			st.before = st.last
		}
		st.instance = instance
	}
	if started := s.event.GetStarted(); started != nil {
		st.tier = started.GetTier()
	}
	at := s.event.GetTime().AsTime()
	if !st.before.IsZero() && s.batch.GetBatch() != 0 {
		before := st.before
		st.before = time.Time{}
		if err := e.own(ctx, s, RuleRestarted, fmt.Sprintf(
			"Collector restarted; nothing was seen from %s to %s (%s)",
			before.UTC().Format(time.RFC3339Nano), at.UTC().Format(time.RFC3339Nano), at.Sub(before).Round(time.Millisecond))); err != nil {
			return err
		}
	}
	if s.batch.GetBatch() != 0 && s.event.GetTime() != nil {
		st.last = at
	}
	if loss := s.event.GetLoss(); loss != nil {
		class := lossClass(loss)
		e.metrics.lost.WithLabelValues(class).Add(float64(loss.GetCount()))
		// The process tree has gone wrong. Only a new snapshot can tell who lives, and as what.
		if e.deps.Reopen != nil && (class == "exec" || class == "fork" || class == "exit") {
			e.deps.Reopen()
		}
		return e.own(ctx, s, RuleLost, fmt.Sprintf("Events lost | class=%s count=%d", class, loss.GetCount()))
	}
	return nil
}

// own raises a finding about the stream.
func (e *Engine) own(ctx context.Context, s subject, rule, output string) error {
	return e.put(ctx, s, delivery.Item{Finding: &findingv1.Finding{
		Id:          findingID(s.batch, s.event, rule),
		Time:        s.event.GetTime(),
		Rule:        rule,
		Priority:    findingv1.Priority_PRIORITY_WARNING,
		Effect:      findingv1.Effect_EFFECT_ALERT,
		Output:      output,
		Tags:        []string{"palisade"},
		Workload:    e.index.Host(),
		Event:       lightEvent(s.event),
		Traceparent: s.batch.GetTraceparent(),
	}})
}

// lossClasses are what a Loss may be of; anything else is "other", so that labels stay few.
const lossClasses = " exec fork exit file_open connect accept "

func lossClass(loss *eventv1.Loss) string {
	if class := loss.GetClass(); class != "" && strings.Contains(lossClasses, " "+class+" ") {
		return class
	}
	return "other"
}

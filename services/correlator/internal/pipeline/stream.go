package pipeline

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/bookmark"
	"github.com/palisade-sec/palisade/services/correlator/internal/delivery"
	"github.com/palisade-sec/palisade/services/correlator/internal/flight"
	"github.com/palisade-sec/palisade/services/correlator/internal/subscription"
)

// Rules that are not in any file: what the stream of events says about itself.
const (
	// RuleRestarted is raised when another run of the collector takes over.
	RuleRestarted = "Collector restarted"
	// RuleLost is raised when records are missing: the kernel could not write them, or a workload was over its rate.
	RuleLost = "Events lost"
	// RuleRecorder is raised when the flight recorder cannot write, and when it can again.
	RuleRecorder = "Flight recorder degraded"
)

// Flight keeps each workload's last events. *flight.Recorder is one. Nothing of it blocks.
type Flight interface {
	Note(w *findingv1.Workload, cgroupID uint64, run flight.Run, e *eventv1.Event)
	Pin(w *findingv1.Workload, cgroupID uint64, f *findingv1.Finding)
	Changes() []flight.Change
}

// stream is what is known of the collector's runs.
type stream struct {
	instance string
	bootID   string
	tier     string
	// last is the last event's time, before is that of the instance before this one, zero once it is settled whether
	// anything was missed.
	last, before time.Time
	// epoch is that of the rings, former that at before. Both are empty if the collector has not said.
	epoch, former string
	// next is, by ring, a position behind every record that was taken in, within the epoch; floor is that before this batch.
	next, floor [maxRings]uint64
	// saved is the bookmark on disk.
	saved bookmark.Mark
}

// maxRings is one more than the greatest number of a ring, or of what is numbered as on one: losses.
const maxRings = 4

// resume goes on from what an earlier run of the correlator had seen. It knows no positions: what that run had not
// acknowledged must be seen again.
func (s *stream) resume(mark bookmark.Mark) {
	s.instance, s.last, s.epoch, s.saved = mark.Instance, mark.Last, mark.Epoch, mark
}

// begin takes in whose batch it is.
func (s *stream) begin(b *subscription.Batch) {
	s.bootID = b.GetBootId()
	if instance := b.GetInstance(); instance != s.instance {
		if s.instance != "" && s.before.IsZero() {
			s.before, s.former = s.last, s.epoch
		}
		s.instance = instance
	}
	if epoch := b.GetEpoch(); epoch != s.epoch {
		s.epoch, s.next = epoch, [maxRings]uint64{}
	}
	s.floor = s.next
}

// repeats says whether an event was taken in before. A collector that takes over the rings of one that was killed reads
// again what that one had not got acknowledged, in batches that nobody can know by their numbers. A batch holds what is next
// on each ring, but in the order of time, which on several CPUs is not that of positions: so an event is compared with
// what came in earlier batches, not in this one.
func (s *stream) repeats(event *eventv1.Event) bool {
	ring, position := event.GetRing(), event.GetPosition()
	if ring == 0 || ring >= maxRings || s.epoch == "" {
		return false
	}
	if position < s.floor[ring] {
		return true
	}
	s.next[ring] = max(s.next[ring], position+1)
	return false
}

// missed says whether events went by unseen since before, given the first event since. Rings that were taken over held
// them, if the programs that write them ran on. The collector's word on that, which opens its stream, is acknowledged
// already if it is not there.
func (s *stream) missed(first *eventv1.Event) bool {
	same := s.former == s.epoch
	started := first.GetStarted()
	if started == nil {
		return !same || s.epoch == ""
	}
	return !started.GetResumed() || !same && s.former != "" && s.epoch != ""
}

// remember writes down how far the stream has been seen, if that is farther than before.
func (e *Engine) remember(ctx context.Context) {
	mark := bookmark.Mark{Instance: e.stream.instance, Last: e.stream.last, Epoch: e.stream.epoch}
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
	if started := s.event.GetStarted(); started != nil {
		e.stream.tier = started.GetTier()
	}
	if s.batch.GetBatch() != 0 { // not of a snapshot
		if err := e.gap(ctx, s); err != nil {
			return err
		}
	}
	if loss := s.event.GetLoss(); loss != nil {
		return e.lost(ctx, s, loss)
	}
	return nil
}

// gap settles whether anything was missed between two runs of the collector.
func (e *Engine) gap(ctx context.Context, s subject) error {
	st, at, before := &e.stream, s.event.GetTime().AsTime(), e.stream.before
	if s.event.GetTime() != nil {
		st.last = at
	}
	st.before = time.Time{}
	if before.IsZero() || !st.missed(s.event) {
		return nil
	}
	return e.own(ctx, s, e.index.Host(), RuleRestarted, fmt.Sprintf(
		"Collector restarted; nothing was seen from %s to %s (%s)",
		before.UTC().Format(time.RFC3339Nano), at.UTC().Format(time.RFC3339Nano), at.Sub(before).Round(time.Millisecond)))
}

// own raises a finding about the stream, as far as it is about a workload's events.
func (e *Engine) own(ctx context.Context, s subject, whose *findingv1.Workload, rule, output string) error {
	return e.put(ctx, s, delivery.Item{Finding: &findingv1.Finding{
		Id:          findingID(s.batch, s.event, rule),
		Time:        s.event.GetTime(),
		Rule:        rule,
		Priority:    findingv1.Priority_PRIORITY_WARNING,
		Effect:      findingv1.Effect_EFFECT_ALERT,
		Output:      output,
		Tags:        []string{"palisade"},
		Workload:    lightWorkload(whose),
		Event:       lightEvent(s.event),
		Traceparent: s.batch.GetTraceparent(),
	}})
}

// keep shows an event of a workload to the flight recorder. A snapshot's events are none: nothing happened then.
func (e *Engine) keep(w *findingv1.Workload, cgroupID uint64, s subject) {
	if e.deps.Flight == nil || s.batch.GetBatch() == 0 {
		return
	}
	run := flight.Run{BootID: s.batch.GetBootId(), Instance: s.batch.GetInstance(), Epoch: s.batch.GetEpoch()}
	e.deps.Flight.Note(w, cgroupID, run, s.event)
}

// aboutFlight raises the findings about the flight recorder.
func (e *Engine) aboutFlight(ctx context.Context) error {
	if e.deps.Flight == nil {
		return nil
	}
	for _, change := range e.deps.Flight.Changes() {
		priority := findingv1.Priority_PRIORITY_NOTICE
		if change.Bad {
			priority = findingv1.Priority_PRIORITY_WARNING
		}
		e.metrics.findings.WithLabelValues(priorityLabel(priority)).Inc()
		err := e.deps.Sink.Put(ctx, delivery.Item{Done: func() {}, Finding: &findingv1.Finding{
			Id: shortSum(e.stream.bootID, RuleRecorder, change.At.String()), Time: timestamppb.New(change.At), Rule: RuleRecorder, Priority: priority,
			Effect: findingv1.Effect_EFFECT_ALERT, Output: shorten(change.Text, maxOutput), Tags: []string{"palisade"}, Workload: e.index.Host(),
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

package flight

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// Errors of reading.
var (
	// ErrUnknown: nothing is recorded of such a workload.
	ErrUnknown = errors.New("nothing is recorded of it")
	// ErrSeveral: the name fits several workloads, which the error names.
	ErrSeveral = errors.New("that is the name of several")
	// ErrBusy: too many read.
	ErrBusy = errors.New("too many read already")
)

const (
	// maxReaders is how many may read at once.
	maxReaders = 4
	// slack is how far the time of an event may be from that of its file: the clock may have been set meanwhile.
	slack = time.Minute
)

// Query says which events are wanted.
type Query struct {
	// Workload is as in correlator.v1.ReadEventsRequest; it may be empty if there is an Incident.
	Workload, Incident string
	// Since is the first time, Until the one behind the last; zero is no bound.
	Since, Until time.Time
	// Kinds are those wanted, 0 for all. What tells of losses always is.
	Kinds field.Kinds
	// Limit is how many events at most.
	Limit int
}

// Read sends what is on disk, and what waited for it when the call came: whose it is first, then events and gaps, then how it ended. It
// ends with the first error of send's.
func (r *Recorder) Read(ctx context.Context, q Query, send func(*correlatorv1.ReadEventsResponse) error) error {
	if !r.enter() {
		return ErrBusy
	}
	defer r.leave()
	if err := r.sync(ctx); err != nil {
		return err
	}
	whose, segments, err := r.plan(q)
	if err != nil {
		return err
	}
	v := &reading{ctx: ctx, query: q, send: send, seen: map[place]bool{}}
	if err := send(&correlatorv1.ReadEventsResponse{Answer: &correlatorv1.ReadEventsResponse_Workload{Workload: whose}}); err != nil {
		return err
	}
	for _, s := range segments {
		err := s.read(v.take)
		switch {
		case v.err != nil:
			return v.err
		case errors.Is(err, fs.ErrNotExist):
			v.gap(correlatorv1.MissedReason_MISSED_REASON_DELETED, 0, s.last)
		case err != nil:
			r.mu.Lock()
			r.damaged(s.path, err)
			r.mu.Unlock()
			v.gap(correlatorv1.MissedReason_MISSED_REASON_DAMAGED, 0, s.last)
		case s.cut && !v.end.GetMore():
			v.gap(correlatorv1.MissedReason_MISSED_REASON_CUT, 0, s.last)
		}
		if v.err != nil {
			return v.err
		}
		if v.end.GetMore() {
			break
		}
	}
	return send(&correlatorv1.ReadEventsResponse{Answer: &correlatorv1.ReadEventsResponse_End{End: &v.end}})
}

func (r *Recorder) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.readers >= maxReaders {
		return false
	}
	r.readers++
	return true
}

func (r *Recorder) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.readers--
}

// plan is whose the events are, and copies of the segments that they are in: first what was set aside, then the ring.
func (r *Recorder) plan(q Query) (*correlatorv1.RecordedWorkload, []segment, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.recorded()
	var segments []segment
	var id workload.Identity
	p := r.pins[q.Incident]
	if p != nil {
		id = p.id
		for _, s := range p.segments {
			segments = append(segments, *s)
		}
	}
	switch {
	case q.Workload != "":
		found, err := choose(all, q.Workload)
		if err != nil {
			return nil, nil, err
		}
		id = found
	case p == nil:
		return nil, nil, fmt.Errorf("incident %q: %w", q.Incident, ErrUnknown)
	}
	if all[id] == nil {
		return nil, nil, fmt.Errorf("incident %q: %w", q.Incident, ErrUnknown)
	}
	return all[id], append(segments, between(r.rings[id], q.Since, q.Until)...), nil
}

// between are copies of a ring's segments that may have events of a span.
func between(g *ring, from, until time.Time) (segments []segment) {
	if g == nil {
		return nil
	}
	for _, s := range g.segments {
		if !s.last.Before(from.Add(-slack)) && (until.IsZero() || !s.first.After(until.Add(slack))) {
			segments = append(segments, *s)
		}
	}
	return segments
}

// choose finds the one workload that a name stands for: a whole id before a name, and a name before the beginning of an id.
func choose(all map[workload.Identity]*correlatorv1.RecordedWorkload, name string) (workload.Identity, error) {
	var fit [3][]*correlatorv1.RecordedWorkload
	for id, m := range all {
		w := m.GetWorkload()
		switch {
		case name == id.String() && id != workload.Identity{} || id == workload.Identity{} && name == field.Host:
			fit[0] = append(fit[0], m)
		case name == w.GetContainerName() || name == w.GetPodName() || name == w.GetPodNamespace()+"/"+w.GetPodName():
			fit[1] = append(fit[1], m)
		case id.Container != "" && strings.HasPrefix(id.Container, name):
			fit[2] = append(fit[2], m)
		}
	}
	for _, found := range fit {
		if len(found) == 1 {
			return identityOf(found[0]), nil
		}
		if len(found) > 1 {
			return workload.Identity{}, fmt.Errorf("workload %q: %w: %s", name, ErrSeveral, names(found))
		}
	}
	return workload.Identity{}, fmt.Errorf("workload %q: %w", name, ErrUnknown)
}

// names are some workloads' ids.
func names(found []*correlatorv1.RecordedWorkload) string {
	const some = 8
	var ids []string
	for _, m := range found {
		ids = append(ids, identityOf(m).String())
	}
	slices.Sort(ids)
	if len(ids) > some {
		ids = append(ids[:some], fmt.Sprintf("and %d more", len(ids)-some))
	}
	return strings.Join(ids, ", ")
}

// List is what is on disk, the workload that was written to last first.
func (r *Recorder) List() []*correlatorv1.RecordedWorkload {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*correlatorv1.RecordedWorkload, 0, len(r.rings))
	for _, m := range r.recorded() {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *correlatorv1.RecordedWorkload) int {
		if d := b.GetLast().AsTime().Compare(a.GetLast().AsTime()); d != 0 {
			return d
		}
		return strings.Compare(identityOf(a).String(), identityOf(b).String())
	})
	return all
}

// recorded are the workloads of which there is something on disk. Called with mu held.
func (r *Recorder) recorded() map[workload.Identity]*correlatorv1.RecordedWorkload {
	all := make(map[workload.Identity]*correlatorv1.RecordedWorkload, len(r.rings))
	of := func(id workload.Identity, whose *findingv1.Workload) *correlatorv1.RecordedWorkload {
		if all[id] == nil {
			all[id] = &correlatorv1.RecordedWorkload{Workload: whose, CgroupId: id.Cgroup}
		}
		return all[id]
	}
	for id, g := range r.rings {
		if len(g.segments) == 0 {
			continue
		}
		m := of(id, g.whose)
		m.Bytes, m.Events, m.Missed = uint64(g.bytes), g.written, g.lost //nolint:gosec // not negative
		widen(m, g.segments)
	}
	for _, p := range r.pins {
		if len(p.segments) == 0 {
			continue
		}
		m := of(p.id, p.whose)
		m.PinnedBytes += uint64(p.bytes) //nolint:gosec // not negative
		widen(m, p.segments)
	}
	return all
}

// widen makes the span of what is recorded cover segments, of which there is at least one.
func widen(m *correlatorv1.RecordedWorkload, segments []*segment) {
	if first := segments[0].first; m.GetFirst() == nil || first.Before(m.GetFirst().AsTime()) {
		m.First = timestamppb.New(first)
	}
	if last := segments[len(segments)-1].last; m.GetLast() == nil || last.After(m.GetLast().AsTime()) {
		m.Last = timestamppb.New(last)
	}
}

// place is where an event's record lay: after a restart of the correlator the collector may send one again, and what was set aside
// is in the ring too.
type place struct {
	epoch    string
	ring     uint32
	position uint64
}

// reading is one query under way.
type reading struct {
	ctx   context.Context //nolint:containedctx // of one call
	query Query
	send  func(*correlatorv1.ReadEventsResponse) error
	seen  map[place]bool
	sent  int
	end   correlatorv1.ReadEnd
	err   error
}

// take is shown an entry, and says whether to go on.
func (v *reading) take(entry *correlatorv1.RecordedEntry) bool {
	if v.err = v.ctx.Err(); v.err != nil {
		return false
	}
	if missed := entry.GetMissed(); missed != nil {
		v.gap(missed.GetReason(), missed.GetEvents(), entry.GetTime().AsTime())
		return v.err == nil
	}
	batch := entry.GetBatch().GetBatch()
	for _, e := range batch.GetEvents() {
		if !v.wants(e) || v.repeats(batch.GetEpoch(), e) {
			continue
		}
		if v.sent >= v.query.Limit {
			v.end.More = true
			return false
		}
		v.sent++
		v.end.Last = e.GetTime()
		if v.err = v.send(&correlatorv1.ReadEventsResponse{Answer: &correlatorv1.ReadEventsResponse_Event{Event: e}}); v.err != nil {
			return false
		}
	}
	return true
}

func (v *reading) wants(e *eventv1.Event) bool {
	kind := field.KindOf(e)
	return in(e, v.query.Since, v.query.Until) && (kind == 0 || v.query.Kinds == 0 || v.query.Kinds.Has(kind))
}

// repeats says whether an event was sent already.
func (v *reading) repeats(epoch string, e *eventv1.Event) bool {
	if e.GetRing() == 0 || epoch == "" {
		return false
	}
	at := place{epoch, e.GetRing(), e.GetPosition()}
	if v.seen[at] {
		return true
	}
	v.seen[at] = true
	return false
}

// gap sends that something is missing, if that is of the span.
func (v *reading) gap(reason correlatorv1.MissedReason, events uint64, at time.Time) {
	if at.Before(v.query.Since) || !v.query.Until.IsZero() && at.After(v.query.Until.Add(settled)) {
		return
	}
	gap := &correlatorv1.Gap{Reason: reason, Events: events, Time: timestamppb.New(at)}
	v.err = v.send(&correlatorv1.ReadEventsResponse{Answer: &correlatorv1.ReadEventsResponse_Gap{Gap: gap}})
}

package flight

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/recording"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

const (
	// settled is how long after it happened an event is in the ring, unless the recorder is behind: it may have waited for
	// its container for a second, and then for the disk.
	settled = 2 * time.Second
	// longest is how long is waited for an incident's end before what there is so far is set aside.
	longest = 30 * time.Second
	// again is how long is waited after an error.
	again = 10 * time.Second
	// maxPins is how many incidents have something set aside, or wait for it, maxPinsOfOne those of one workload.
	maxPins      = 2048
	maxPinsOfOne = 256
)

// pin is what is set aside for one incident: copies, so that the ring may go on. Recorder.mu guards it.
type pin struct {
	incident string
	id       workload.Identity
	whose    *findingv1.Workload
	segments []*segment // all finished
	bytes    int64
	first    time.Time
	// Events before done are set aside, those before want are to be.
	done, want time.Time
	full       bool
	// after is when to try again.
	after time.Time
}

func (p *pin) add(s *segment) {
	p.segments = append(p.segments, s)
	p.bytes += s.allocated()
}

// due says whether it is time to set aside, and up to when.
func (p *pin) due(now time.Time) (time.Time, bool) {
	until := now.Add(-settled)
	if until.After(p.want) {
		until = p.want
	}
	if p.full || now.Before(p.after) || !p.done.Before(until) {
		return until, false
	}
	return until, len(p.segments) == 0 || until.Equal(p.want) || now.Sub(p.done) > longest
}

// Pin has what was around a grave finding set aside. Others it passes over.
func (r *Recorder) Pin(w *findingv1.Workload, cgroupID uint64, f *findingv1.Finding) {
	incident := f.GetIncident().GetId()
	if incident == "" || f.GetTime() == nil || f.GetPriority() == 0 || f.GetPriority() > r.cfg.Incidents.grave() {
		return
	}
	at := f.GetTime().AsTime()
	from, want := at.Add(-r.cfg.Incidents.Before), at.Add(r.cfg.Incidents.After)
	id := workload.IdentityOf(w, cgroupID)
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pins[incident]
	if p == nil {
		if !r.mayPin(id) {
			if r.notes.refused++; r.notes.refused == 1 {
				r.log.Warn("No more is set aside for a workload's incidents", "container_id", id.Container)
			}
			r.metrics.refused.Inc()
			return
		}
		p = &pin{incident: incident, id: id, whose: brief(w), first: r.now(), done: from}
		r.pins[incident] = p
	}
	if want.After(p.want) {
		p.want = want
	}
	if p.done.Before(from) {
		p.done = from
	}
}

// mayPin says whether something may be set aside for one more incident of a workload. A workload that makes many cannot push out
// those of others, nor its own first ones. Called with mu held.
func (r *Recorder) mayPin(id workload.Identity) bool {
	count := 0
	for _, p := range r.pins {
		if p.id == id {
			count++
		}
	}
	each, _ := r.pinned()
	return len(r.pins) < maxPins && count < maxPinsOfOne && each[id]+r.cfg.Incidents.Bytes <= r.cfg.Incidents.TotalBytes/4
}

// setAside copies what is due, of one incident a round: it is no reason to write later.
func (r *Recorder) setAside(ctx context.Context) {
	now := r.now()
	r.mu.Lock()
	var p *pin
	var from, until time.Time
	for _, each := range r.pins {
		if to, due := each.due(now); due && (p == nil || each.done.Before(p.done)) {
			p, from, until = each, each.done, to
		}
	}
	var segments []segment
	var slice *correlatorv1.Slice
	left := int64(0)
	if p != nil {
		segments = between(r.rings[p.id], from, until)
		slice = sliceOf(p.id, p.whose, p.incident)
		left = r.cfg.Incidents.Bytes - p.bytes
	}
	r.mu.Unlock()
	if p == nil {
		return
	}
	c := copier{from: from, until: until, left: left, create: func() (*segment, error) { return r.create(incidentSuffix, slice) }, now: now}
	err := c.copy(segments)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		p.after = now.Add(again)
		r.log.WarnContext(ctx, "Could not set aside what was around a finding", "err", err)
		return
	}
	p.done, p.full = until, c.full
	if c.to != nil {
		p.add(c.to)
	}
	if len(p.segments) == 0 && !p.done.Before(p.want) {
		delete(r.pins, p.incident)
	}
}

// copier copies a span of a ring's events to a file of its own.
type copier struct {
	from, until time.Time
	left        int64 // bytes that may be written
	create      func() (*segment, error)
	now         time.Time

	to      *segment // nil if there was nothing
	full    bool
	pending []*correlatorv1.RecordedEntry
	weight  int
	err     error
}

// copy leaves no file behind if it fails.
func (c *copier) copy(segments []segment) error {
	for _, s := range segments {
		err := s.read(c.take)
		switch {
		case c.err != nil:
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, recording.ErrCorrupt), errors.Is(err, recording.ErrTruncated):
			c.gap(correlatorv1.MissedReason_MISSED_REASON_DAMAGED, s.last)
		case err != nil:
			c.err = err
		}
		if c.err != nil || c.full {
			break
		}
	}
	if c.err == nil {
		c.write()
	}
	if c.err == nil && c.to != nil {
		c.err = c.to.writer.Close()
		c.to.size = c.to.writer.Size()
	}
	if c.to != nil {
		c.to.open, c.to.writer = false, nil
	}
	if c.err != nil && c.to != nil {
		c.err = errors.Join(c.err, os.Remove(c.to.path))
		c.to = nil
	}
	return c.err
}

// take is shown an entry of the ring.
func (c *copier) take(entry *correlatorv1.RecordedEntry) bool {
	if missed := entry.GetMissed(); missed != nil {
		if at := entry.GetTime().AsTime(); !at.Before(c.from) && at.Before(c.until.Add(settled)) {
			c.pending = append(c.pending, entry)
		}
		return true
	}
	batch := entry.GetBatch().GetBatch()
	kept := &collectorv1.StreamEventsResponse{BootId: batch.GetBootId(), Instance: batch.GetInstance(), Epoch: batch.GetEpoch()}
	for _, e := range batch.GetEvents() {
		if in(e, c.from, c.until) {
			kept.Events = append(kept.Events, e)
			c.weight += weigh(e)
		}
	}
	if len(kept.GetEvents()) > 0 {
		c.pending = append(c.pending, batchEntry(kept))
	}
	const enough = 1 << 20
	if c.weight >= enough {
		c.write()
	}
	return c.err == nil && !c.full
}

func (c *copier) gap(reason correlatorv1.MissedReason, at time.Time) {
	c.pending = append(c.pending, &correlatorv1.RecordedEntry{
		Time: timestamppb.New(at), Kind: &correlatorv1.RecordedEntry_Missed{Missed: &correlatorv1.Missed{Reason: reason}},
	})
}

// write writes what is pending, and that there is no more room if so.
func (c *copier) write() {
	if len(c.pending) == 0 || c.err != nil {
		return
	}
	if c.to == nil {
		if c.to, c.err = c.create(); c.err != nil {
			return
		}
	}
	c.err = c.to.append(c.now, c.pending...)
	c.pending, c.weight = nil, 0
	if c.err == nil && c.to.writer.Size() >= c.left {
		c.full = true
		c.gap(correlatorv1.MissedReason_MISSED_REASON_LIMIT, c.now)
		c.err = c.to.append(c.now, c.pending...)
		c.pending = nil
	}
}

// in says whether an event is of a span.
func in(e *eventv1.Event, from, until time.Time) bool {
	at := e.GetTime().AsTime()
	return !at.Before(from) && (until.IsZero() || at.Before(until))
}

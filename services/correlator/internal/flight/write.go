package flight

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
)

// disk is how writing went of late.
type disk struct {
	failed bool // in this round
	since  time.Time
	missed uint64 // events since then
}

// Run writes until ctx ends, and then what is left.
func (r *Recorder) Run(ctx context.Context) error {
	ticker := time.NewTicker(r.cfg.WriteEvery)
	defer ticker.Stop()
	for {
		var waits chan struct{}
		select {
		case <-ctx.Done():
			r.finish(ctx)
			return ctx.Err()
		case <-ticker.C:
		case <-r.soon:
		case waits = <-r.syncs:
		}
		r.round(ctx)
		if waits != nil {
			close(waits)
		}
	}
}

// round writes what waits in memory, and sees to the limits.
func (r *Recorder) round(ctx context.Context) {
	begun := time.Now()
	r.flush(ctx)
	r.limit(ctx)
	r.setAside(ctx)
	r.observe()
	r.metrics.took.Observe(time.Since(begun).Seconds())
}

// finish writes what is left and ends every file.
func (r *Recorder) finish(ctx context.Context) {
	r.round(ctx)
	for _, g := range r.all() {
		r.close(ctx, g)
	}
}

// all is a copy of the list of rings.
func (r *Recorder) all() []*ring {
	r.mu.Lock()
	defer r.mu.Unlock()
	rings := make([]*ring, 0, len(r.rings))
	for _, g := range r.rings {
		rings = append(rings, g)
	}
	return rings
}

// flush writes what waits.
func (r *Recorder) flush(ctx context.Context) {
	r.bad.failed = false
	wrote := false
	for _, g := range r.all() {
		r.mu.Lock()
		t, some := g.take()
		slice := sliceOf(g.id, g.whose, "")
		r.mu.Unlock()
		if !some {
			continue
		}
		err := r.write(ctx, g, slice, t)
		r.mu.Lock()
		r.waiting -= t.weight
		r.settle(g, t)
		if err == nil {
			wrote = true
			g.written += t.events
			r.notes.written += t.events
			r.metrics.written.Add(float64(t.events))
		} else {
			r.failed(ctx, g, t, err)
		}
		r.mu.Unlock()
	}
	if wrote && !r.bad.failed {
		r.recovered(ctx)
	}
}

// settle counts what was not taken, if it is not counted already. Called with mu held.
func (r *Recorder) settle(g *ring, t taken) {
	for reason, n := range t.missed {
		if n -= t.told[reason]; n > 0 {
			g.lost += n
			r.count(correlatorv1.MissedReason(reason), n) //nolint:gosec // below numReasons
		}
	}
}

// write adds what was taken of a ring to its open segment, or to a new one.
func (r *Recorder) write(ctx context.Context, g *ring, slice *correlatorv1.Slice, t taken) error {
	s := r.openOf(g)
	now := r.now()
	if s != nil && (s.size >= r.cfg.WorkloadBytes/perSegment || now.Sub(s.first) >= r.cfg.Age/perSegment) {
		r.close(ctx, g)
		s = nil
	}
	if s == nil {
		var err error
		if s, err = r.create(ringSuffix, slice); err != nil {
			return err
		}
		r.mu.Lock()
		g.segments = append(g.segments, s)
		g.bytes += s.allocated()
		r.mu.Unlock()
	}
	err := s.append(now, entriesOf(t)...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		s.open, s.cut = false, true
		return errors.Join(err, s.abandon())
	}
	g.bytes -= s.allocated()
	s.size, s.last, g.seen = s.writer.Size(), now, now
	g.bytes += s.allocated()
	return nil
}

// openOf is a ring's open segment, nil if there is none.
func (r *Recorder) openOf(g *ring) *segment {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(g.segments); n > 0 && g.segments[n-1].open {
		return g.segments[n-1]
	}
	return nil
}

// close ends a ring's open segment, if there is one.
func (r *Recorder) close(ctx context.Context, g *ring) {
	s := r.openOf(g)
	if s == nil {
		return
	}
	err := s.writer.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	s.open = false
	g.bytes -= s.allocated()
	if err != nil { // of the end alone: nothing is missing, which nobody can know later
		s.cut = true
		r.log.WarnContext(ctx, "Could not end a file of the flight recorder", "err", errors.Join(err, s.abandon()))
	} else {
		s.size = s.writer.Size()
	}
	s.writer = nil
	g.bytes += s.allocated()
}

// failed counts what could not be written. Called with mu held.
func (r *Recorder) failed(ctx context.Context, g *ring, t taken, err error) {
	for reason, n := range t.missed { // to be written down with what comes
		g.missed[reason] += n
		g.told[reason] += n
	}
	const why = correlatorv1.MissedReason_MISSED_REASON_DISK
	g.missed[why] += t.events
	g.told[why] += t.events
	g.lost += t.events
	r.count(why, t.events)
	r.bad.failed = true
	r.bad.missed += t.events
	if r.notes.disk == "" {
		r.bad.since = r.now()
		r.log.ErrorContext(ctx, "Cannot record events on disk", "err", err)
		r.change(Change{At: r.bad.since, Bad: true, Text: fmt.Sprintf("Events are not recorded on disk: %v; they are judged as ever, and counted", err)})
	}
	r.notes.disk = err.Error()
}

// recovered takes in that a round was written.
func (r *Recorder) recovered(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.notes.disk == "" {
		return
	}
	r.notes.disk = ""
	r.log.InfoContext(ctx, "Records events on disk again", "missed", r.bad.missed)
	r.change(Change{At: r.now(), Text: fmt.Sprintf("Events are recorded on disk again; %d were not since %s", r.bad.missed, r.bad.since.UTC().Format(time.RFC3339))})
	r.bad = disk{}
}

// maxChanges is how many changes wait for who tells of them.
const maxChanges = 16

func (r *Recorder) change(c Change) {
	if len(r.changes) < maxChanges {
		r.changes = append(r.changes, c)
	}
}

// remove deletes files that nothing knows any more.
func (r *Recorder) remove(ctx context.Context, segments []*segment) {
	for _, s := range segments {
		if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.log.WarnContext(ctx, "Could not delete a file of the flight recorder", "err", err)
		}
	}
}

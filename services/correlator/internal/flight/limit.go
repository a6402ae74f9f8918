package flight

import (
	"context"
	"time"

	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// maxAside is how many files that cannot be read are kept. One of ours is no larger than a segment.
const maxAside = 8

// limit ends what has been open for long, and deletes what is too old or too much, the oldest first.
func (r *Recorder) limit(ctx context.Context) {
	now := r.now()
	for _, g := range r.all() {
		if s := r.openOf(g); s != nil && now.Sub(s.first) >= r.cfg.Age/perSegment {
			r.close(ctx, g)
		}
	}
	var gone []*segment
	r.mu.Lock()
	for id, g := range r.rings {
		for len(g.segments) > 0 && !g.segments[0].open && now.Sub(g.segments[0].last) > r.cfg.Age {
			gone = append(gone, r.drop(g, deletedAge))
		}
		for g.bytes > r.cfg.WorkloadBytes && len(g.segments) > 1 {
			gone = append(gone, r.drop(g, deletedWorkload))
		}
		if g.idle() && now.Sub(g.seen) > time.Minute {
			r.forget(id)
		}
	}
	for len(r.aside) > 0 && (now.Sub(r.aside[0].last) > r.cfg.Age || len(r.aside) > maxAside) {
		gone, r.aside = append(gone, r.aside[0]), r.aside[1:]
	}
	gone = append(gone, r.dropPins(now)...)
	r.mu.Unlock()
	r.remove(ctx, append(gone, r.shrink(ctx)...))
}

// forget lets go of a ring that there is nothing of. Called with mu held.
func (r *Recorder) forget(id workload.Identity) {
	delete(r.rings, id)
	r.recent = nil
}

// drop takes the oldest segment off a ring. Called with mu held.
func (r *Recorder) drop(g *ring, why string) *segment {
	s := g.segments[0]
	g.segments[0] = nil
	g.segments = g.segments[1:]
	g.bytes -= s.allocated()
	r.metrics.deleted.WithLabelValues(why).Inc()
	return s
}

// shrink takes segments off the ring that has most of all until all fit, and off the one that was written longest ago until there are
// no more rings than may be.
func (r *Recorder) shrink(ctx context.Context) (gone []*segment) {
	for {
		r.mu.Lock()
		g, why := r.tooMuch()
		open := g != nil && g.segments[0].open
		if g != nil && !open {
			gone = append(gone, r.drop(g, why))
			if g.idle() {
				r.forget(g.id)
			}
		}
		r.mu.Unlock()
		switch {
		case g == nil:
			return gone
		case open:
			r.close(ctx, g) // its only one
		}
	}
}

// tooMuch is the ring that must give way next, nil if none must. Called with mu held.
func (r *Recorder) tooMuch() (*ring, string) {
	var total int64
	var most, oldest *ring
	count := 0
	for _, g := range r.rings {
		if len(g.segments) == 0 {
			continue
		}
		total += g.bytes
		count++
		if most == nil || g.bytes > most.bytes {
			most = g
		}
		if oldest == nil || g.seen.Before(oldest.seen) {
			oldest = g
		}
	}
	switch {
	case total > r.cfg.TotalBytes:
		return most, deletedTotal
	case count > maxRings:
		return oldest, deletedCount
	}
	return nil, ""
}

// pinned is the bytes that are set aside for incidents, of each workload and of all. Called with mu held.
func (r *Recorder) pinned() (each map[workload.Identity]int64, all int64) {
	each = map[workload.Identity]int64{}
	for _, p := range r.pins {
		each[p.id] += p.bytes
		all += p.bytes
	}
	return each, all
}

// dropPins forgets what was set aside too long ago, and what is too much: of the workload that has most, the oldest. Called with mu held.
func (r *Recorder) dropPins(now time.Time) (gone []*segment) {
	for incident, p := range r.pins {
		if now.Sub(p.first) > r.cfg.Incidents.Age {
			gone = append(gone, p.segments...)
			delete(r.pins, incident)
		}
	}
	each, all := r.pinned()
	for all > r.cfg.Incidents.TotalBytes {
		var victim *pin
		for _, p := range r.pins {
			if victim == nil || each[p.id] > each[victim.id] || each[p.id] == each[victim.id] && p.first.Before(victim.first) {
				victim = p
			}
		}
		gone = append(gone, victim.segments...)
		delete(r.pins, victim.incident)
		each[victim.id] -= victim.bytes
		all -= victim.bytes
	}
	return gone
}

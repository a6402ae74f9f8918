// Package flight is the flight recorder: it keeps the last minutes of each workload's events on disk, and sets aside what was around
// grave findings. Data in: events with their workload and findings, from the pipeline's goroutine, which never waits here; data out:
// files, and events for who asks.
//
// Each workload has a ring of segments: files in the format of package recording, each begun with whose it is. What is taken of a
// workload is bounded by a rate, in memory and on disk; what is not taken is counted, and the segments say so where it is missing. A
// flood from one workload takes nothing from another: each has a rate of its own, and where all of them need more room than there
// is, the one that has most gives way. Names of files are numbers.
//
// A killed recorder loses what it had not written, at most what came within Config.WriteEvery, and the next one knows it by the
// segments that have no end. What cannot be read is set aside or left out, and told of; nothing on disk keeps a recorder from starting.
package flight

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/recording"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

const (
	// maxRings is how many workloads are kept. Beyond it the one that was written longest ago gives way; twice as many are the
	// most there can be until it does.
	maxRings = 4096
	// maxWaiting bounds what waits in memory for the disk, maxRingWaiting that of one workload, in bytes; half of it may not
	// wait for Config.WriteEvery.
	maxWaiting     = 16 << 20
	maxRingWaiting = 4 << 20
)

// Run names the collector's run that an event came from.
type Run struct{ BootID, Instance, Epoch string }

// Recorder is the flight recorder. Run it. Note, Pin, Changes and what is asked are safe for concurrent use.
type Recorder struct {
	cfg       Config
	directory string
	log       *slog.Logger
	metrics   *metrics
	now       func() time.Time
	// soon has a value when there is more in memory than should wait, syncs who waits until all is written.
	soon  chan struct{}
	syncs chan chan struct{}

	// Of the writing goroutine alone.
	zip  *recording.Compressor
	next uint64 // number of the next file
	bad  disk

	mu      sync.Mutex // guards all below, and what is in it
	rings   map[workload.Identity]*ring
	recent  *ring           // that of the last event, nil if it may be gone
	pins    map[string]*pin // by incident
	aside   []*segment      // that cannot be read
	total   bucket
	waiting int // bytes in memory
	changes []Change
	notes   notes
	readers int
}

// notes is what there is to say to people.
type notes struct {
	disk    string // why nothing is written, empty if it is
	damaged int    // files that could not be read, or not to their end, since the start
	refused uint64 // grave findings that nothing was set aside for

	written, missed uint64 // events since the start
}

// Change says that recording to disk began to fail, or works again.
type Change struct {
	At  time.Time
	Bad bool
	// Text is a sentence.
	Text string
}

// open returns a recorder over a directory that it does not look into.
func open(cfg Config, directory string, log *slog.Logger, registry *prometheus.Registry) (*Recorder, error) {
	zip, err := recording.NewCompressor()
	if err != nil {
		return nil, fmt.Errorf("flight recorder: %w", err)
	}
	r := &Recorder{
		cfg: cfg, directory: directory, log: log, now: time.Now, soon: make(chan struct{}, 1), syncs: make(chan chan struct{}),
		zip: zip, rings: map[workload.Identity]*ring{}, pins: map[string]*pin{}, total: bucket{rate: float64(cfg.TotalRate)},
	}
	r.metrics, err = newMetrics(registry)
	return r, err
}

// Note takes an event of a workload, one of whose processes was in that cgroup. The event must not be changed any more.
func (r *Recorder) Note(w *findingv1.Workload, cgroupID uint64, run Run, e *eventv1.Event) {
	r.mu.Lock()
	g := r.recent
	if g == nil || g.described != w || g.id.Cgroup != 0 && g.id.Cgroup != cgroupID {
		if g = r.ringOf(w, cgroupID); g == nil {
			r.mu.Unlock()
			return
		}
		r.recent = g
	}
	if why := r.admit(g, e); why != 0 {
		g.missed[why]++
	} else {
		r.waiting += g.add(run, e)
		if r.waiting > maxWaiting/4 || g.waiting > maxRingWaiting/4 {
			r.hurry()
		}
	}
	r.mu.Unlock()
}

// ringOf is a workload's ring, nil if there are too many. Called with mu held.
func (r *Recorder) ringOf(w *findingv1.Workload, cgroupID uint64) *ring {
	id := workload.IdentityOf(w, cgroupID)
	g := r.rings[id]
	if g == nil {
		if len(r.rings) >= 2*maxRings {
			r.count(correlatorv1.MissedReason_MISSED_REASON_BEHIND, 1)
			return nil
		}
		g = newRing(id, w, r.cfg)
		r.rings[id] = g
	}
	if g.described != w { // new, or described anew
		g.described, g.whose = w, brief(w)
	}
	return g
}

// count counts events that are not written. Called with mu held.
func (r *Recorder) count(why correlatorv1.MissedReason, n uint64) {
	r.notes.missed += n
	r.metrics.missed(why, n)
}

// hurry wakes the writing goroutine.
func (r *Recorder) hurry() {
	select {
	case r.soon <- struct{}{}:
	default:
	}
}

// admit says why an event is not taken, 0 if it is.
func (r *Recorder) admit(g *ring, e *eventv1.Event) correlatorv1.MissedReason {
	if g.waiting >= maxRingWaiting || r.waiting >= maxWaiting {
		return correlatorv1.MissedReason_MISSED_REASON_BEHIND
	}
	now := e.GetBoottimeNs()
	if g.sure.take(now, 0) {
		return 0
	}
	// The last quarter is for what the collector calls urgent: opens push out no exec.
	left := 0.25
	if e.GetRing() == urgent {
		left = 0
	}
	if !r.total.has(now, left) || !g.rate.take(now, left) {
		return correlatorv1.MissedReason_MISSED_REASON_RATE
	}
	r.total.take(now, 0)
	return 0
}

// urgent is the number of the collector's ring for what is rare and grave.
const urgent = 1

// Changes are what has changed since the last call.
func (r *Recorder) Changes() []Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	changes := r.changes
	r.changes = nil
	return changes
}

// sync waits until what was noted before is written, as far as that is possible.
func (r *Recorder) sync(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case r.syncs <- done:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// brief is a workload without what is large and chosen by others.
func brief(w *findingv1.Workload) *findingv1.Workload {
	return &findingv1.Workload{
		ContainerId: w.GetContainerId(), ContainerName: w.GetContainerName(), Image: w.GetImage(), ImageDigest: w.GetImageDigest(), Runtime: w.GetRuntime(),
		PodName: w.GetPodName(), PodNamespace: w.GetPodNamespace(), PodUid: w.GetPodUid(), Metadata: w.GetMetadata(), Privileged: w.GetPrivileged(),
	}
}

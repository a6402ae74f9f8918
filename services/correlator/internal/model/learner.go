package model

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

// Sighting is an event with what must be known to learn from it.
type Sighting struct {
	Workload *findingv1.Workload
	Event    *eventv1.Event
	// Process is the program that acted, nil for an event that is no process's.
	Process *field.Process
	// Started says that the parent is not the container's, so that its runtime started the process.
	Started bool
}

// Learner is the models of a node. It is safe for concurrent use.
type Learner struct {
	cfg       Config
	reactions [numFamilies]reaction
	log       *slog.Logger

	mu         sync.Mutex
	models     map[string]*model // by digest
	containers map[container]*tenant
	ticked     time.Time
	evicted    uint64 // models that gave way
	turnedAway uint64 // images that found no place
	unnamed    uint64 // events of containers without a digest
	storeErr   error  // why models are not written down; see store
	aside      []string
	removed    []string // digests whose files go
	// buffer and sightings are here so that an event that is known allocates nothing.
	buffer []byte
	found  []Anomaly
}

// container names one on a node. Two runtimes may have one of the same id.
type container struct{ runtime, id string }

// tenant is a container whose events are seen.
type tenant struct {
	model *model // nil if there was no place for one
	known bool   // it was seen to start, or to run
	// suspected says that it has a finding of priority error or above, which is open for as long as it runs.
	suspected bool
	reported  map[Fact]struct{}
	last      time.Time
	running   bool
	// refused is the tick at which there was no place for a model: there is none before the next.
	refused time.Time
}

const (
	// maxContainers bounds those that are remembered.
	maxContainers = 8192
	// forgetAfter is how long a container is remembered that does not run. Events may come late.
	forgetAfter = 2 * time.Minute
	// longestTick is how much time is believed to have passed between two ticks. A node that slept has seen nothing.
	longestTick = 5 * time.Second
	// maxReported bounds the findings of one container. What comes beyond is counted only.
	maxReported = 256
)

// New returns a learner that knows nothing. See Open for one that keeps what it learns.
func New(cfg Config, log *slog.Logger) *Learner {
	return &Learner{
		cfg: cfg, reactions: cfg.reactions(), log: log, models: map[string]*model{}, containers: map[container]*tenant{},
		buffer: make([]byte, 0, 4096),
	}
}

// tenantOf is the container of a workload, nil if it is none that is modelled: the host, one whose description is pending, one
// whose image has no digest.
func (l *Learner) tenantOf(w *findingv1.Workload) *tenant {
	if w.GetMetadata() != findingv1.MetadataState_METADATA_STATE_KNOWN {
		return nil
	}
	if w.GetImageDigest() == "" {
		l.unnamed++
		return nil
	}
	key := container{runtime: w.GetRuntime(), id: w.GetContainerId()}
	t := l.containers[key]
	if t == nil {
		if len(l.containers) >= maxContainers {
			return nil
		}
		t = &tenant{last: l.ticked}
		l.containers[key] = t
	}
	switch {
	case t.model != nil && t.model.digest == w.GetImageDigest():
	case t.model == nil && !t.refused.IsZero() && t.refused.Equal(l.ticked):
		l.turnedAway++
	default:
		if t.model = l.modelOf(w); t.model == nil {
			t.refused = l.ticked
		}
	}
	return t
}

// modelOf is the model of a workload's image, a new one if there is none.
func (l *Learner) modelOf(w *findingv1.Workload) *model {
	digest := w.GetImageDigest()
	if m := l.models[digest]; m != nil {
		return m
	}
	if !validDigest(digest) || !l.makeRoom() {
		l.turnedAway++
		return nil
	}
	m := newModel(digest, w.GetImage())
	m.lastRun = l.ticked
	l.models[digest] = m
	return m
}

// makeRoom lets the model go whose image ran longest ago, if there are too many. It returns false if each is in use or frozen.
func (l *Learner) makeRoom() bool {
	if len(l.models) < l.cfg.Images {
		return true
	}
	used := map[*model]bool{}
	for _, t := range l.containers {
		used[t.model] = true
	}
	var oldest *model
	for _, m := range l.models {
		if !used[m] && !m.frozen && (oldest == nil || m.lastRun.Before(oldest.lastRun)) {
			oldest = m
		}
	}
	if oldest == nil {
		return false
	}
	delete(l.models, oldest.digest)
	l.removed = append(l.removed, oldest.digest)
	l.evicted++
	return true
}

// Suspect says that there is a finding of a workload, after whose event nothing of the container is learned if the priority is
// error or above: an attacker must not teach.
func (l *Learner) Suspect(w *findingv1.Workload, priority findingv1.Priority) {
	if priority < findingv1.Priority_PRIORITY_EMERGENCY || priority > findingv1.Priority_PRIORITY_ERROR {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.tenantOf(w); t != nil {
		t.suspected = true
	}
}

// Lost says that events of a workload are missing, or of nobody knows whom, for nil. What is learned from the rest is not whole, so
// the time around does not count.
func (l *Learner) Lost(w *findingv1.Workload, count uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	until := l.ticked.Add(max(l.cfg.Learn/10, time.Second))
	for _, m := range l.models {
		if m.state == Learning && (w == nil || m.digest == w.GetImageDigest()) {
			m.lost += count
			m.extendedTo = until
			m.dirty = true
		}
	}
}

// Tick counts the time since the last one for the images of containers that run and whose events have been seen.
func (l *Learner) Tick(now time.Time, running []*findingv1.Workload) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := max(0, min(now.Sub(l.ticked), longestTick))
	if l.ticked.IsZero() {
		d = 0
	}
	l.ticked = now
	for _, t := range l.containers {
		t.running = false
	}
	advanced := map[*model]bool{}
	for _, w := range running {
		t := l.containers[container{runtime: w.GetRuntime(), id: w.GetContainerId()}]
		if t == nil {
			continue
		}
		t.running, t.last = true, now
		if t.model == nil || t.suspected && t.model.state == Learning || advanced[t.model] {
			continue
		}
		advanced[t.model] = true
		before := t.model.state
		t.model.advance(now, d, l.cfg.Learn, l.cfg.DryRun)
		if after := t.model.state; after != before {
			l.log.Info("A model changed its state", "image_digest", t.model.digest, "from", before.String(), "to", after.String())
		}
	}
	for key, t := range l.containers {
		if !t.running && now.Sub(t.last) > forgetAfter {
			delete(l.containers, key)
		}
	}
}

// find is the model that a digest, or the beginning of one, names.
func (l *Learner) find(digest string) (*model, error) {
	if m := l.models[digest]; m != nil {
		return m, nil
	}
	var found *model
	for full, m := range l.models {
		if !begins(full, digest) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%w: %q is the beginning of several digests", ErrUnknown, digest)
		}
		found = m
	}
	if found == nil {
		return nil, fmt.Errorf("%w: %q", ErrUnknown, digest)
	}
	return found, nil
}

// Relearn lets a model learn again, and keeps what it knows if asked to.
func (l *Learner) Relearn(digest string, keep bool) (Summary, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, err := l.find(digest)
	if err != nil {
		return Summary{}, err
	}
	if m.frozen {
		return Summary{}, fmt.Errorf("%w: thaw it first", ErrFrozen)
	}
	m.restart(keep)
	for _, t := range l.containers {
		if t.model == m {
			t.reported = nil
		}
	}
	return l.summary(m), nil
}

// Freeze makes a model active for good, or lets it be relearned again.
func (l *Learner) Freeze(digest string, thaw bool) (Summary, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, err := l.find(digest)
	if err != nil {
		return Summary{}, err
	}
	m.frozen = !thaw
	if m.frozen && m.state != Active {
		m.enter(Active)
	}
	m.dirty = true
	return l.summary(m), nil
}

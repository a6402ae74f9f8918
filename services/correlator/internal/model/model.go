// Package model learns what the containers of an image do, and says what one does that none did before. Data in: events with their
// workload, the containers that run, every second; data out: anomalies, and models as YAML, kept in the state directory.
//
// A model belongs to an image's digest, never to a name. It is in one of three states: learning, dry run (what was not learned is
// counted and shown), active (it is a finding). What a container does that has an open finding of priority error or above is not
// learned. What is learned is bounded by family; a family that is full says so, and is not judged from then on.
package model

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"
)

// State is where a model is in its life.
type State uint8

// The states.
const (
	Learning State = iota
	DryRun
	Active
)

// states are their names.
var states = [...]string{"learning", "dry-run", "active"}

func (s State) String() string { return states[s] }

// Errors that a caller can do something about.
var (
	ErrUnknown = errors.New("no model of this image")
	ErrFrozen  = errors.New("the model is frozen")
	ErrFull    = errors.New("as many models as models.images allows, and all of them are in use or frozen")
)

// Seen is how often and when a fact was learned. Times are the events', in seconds since 1970.
type Seen struct {
	Count       uint64
	First, Last int64
}

const (
	// maxNameBytes bounds all names of a model together. A container could teach paths of 4 KiB.
	maxNameBytes = 128 << 10
	// maxNoted bounds the anomalies that a dry run keeps for people.
	maxNoted = 64
)

// model is what one image was learned to do, and how that was learned.
type model struct {
	digest, image string
	state         State
	frozen        bool
	// observed is how long a container was watched in this state; counted says until when.
	observed time.Duration
	starts   uint64
	// lost are events that are missing; until extendedTo, time does not count, and extended is what did not.
	lost       uint64
	extendedTo time.Time
	extended   time.Duration
	// skipped are events that were not learned because their container is under suspicion.
	skipped uint64

	facts     map[Fact]*Seen
	counts    [numFamilies]int
	overflow  [numFamilies]bool
	nameBytes int
	// capabilities are those in facts.
	capabilities uint64

	// anomalies were met in the dry run and later, noted are the first of them.
	anomalies [numFamilies]uint64
	noted     map[Fact]*Seen

	lastRun time.Time
	dirty   bool
}

func newModel(digest, image string) *model {
	return &model{digest: digest, image: image, facts: map[Fact]*Seen{}, noted: map[Fact]*Seen{}, dirty: true}
}

// learn takes in a fact that is not known. It returns false if its family is full.
func (m *model) learn(f Fact, at int64) bool {
	size := len(f.Name) + len(f.Parent)
	if m.overflow[f.Family] || m.counts[f.Family] >= families[f.Family].limit || m.nameBytes+size > maxNameBytes {
		m.dirty = m.dirty || !m.overflow[f.Family]
		m.overflow[f.Family] = true
		return false
	}
	f.Name, f.Parent = strings.Clone(f.Name), strings.Clone(f.Parent) // not the event's memory
	m.put(f, &Seen{Count: 1, First: at, Last: at})
	m.dirty = true
	return true
}

func (m *model) put(f Fact, seen *Seen) {
	m.facts[f] = seen
	m.counts[f.Family]++
	m.nameBytes += len(f.Name) + len(f.Parent)
	if f.Family == Capabilities && f.Number < 64 {
		m.capabilities |= 1 << f.Number
	}
}

// again counts a fact that is known, as long as the model learns.
func (m *model) again(seen *Seen, at int64) {
	if m.state == Learning {
		seen.Count++
		seen.Last = max(seen.Last, at)
		m.dirty = true
	}
}

// note counts an anomaly.
func (m *model) note(f Fact, at int64) {
	m.anomalies[f.Family]++
	if seen := m.noted[f]; seen != nil {
		seen.Count++
		seen.Last = max(seen.Last, at)
		return
	}
	if len(m.noted) < maxNoted {
		f.Name, f.Parent = strings.Clone(f.Name), strings.Clone(f.Parent)
		m.noted[f] = &Seen{Count: 1, First: at, Last: at}
	}
}

// restart goes back to learning.
func (m *model) restart(keep bool) {
	m.state, m.observed, m.starts, m.extended, m.extendedTo, m.lost, m.skipped = Learning, 0, 0, 0, time.Time{}, 0, 0
	m.anomalies, m.noted, m.dirty = [numFamilies]uint64{}, map[Fact]*Seen{}, true
	if !keep {
		m.facts, m.counts, m.nameBytes, m.capabilities = map[Fact]*Seen{}, [numFamilies]int{}, 0, 0
		m.overflow = [numFamilies]bool{}
	}
}

// advance counts time in which a container of the image was watched.
func (m *model) advance(now time.Time, d, learn, dryRun time.Duration) {
	m.lastRun = now
	switch m.state {
	case Learning:
		if !now.After(m.extendedTo) {
			m.extended += d
			m.dirty = true
			return
		}
		m.observed += d
		if m.observed >= learn && m.starts > 0 {
			m.enter(DryRun)
		}
		m.dirty = true
	case DryRun:
		m.observed += d
		m.dirty = true
	case Active:
	}
	if m.state == DryRun && m.observed >= dryRun {
		m.enter(Active)
	}
}

func (m *model) enter(s State) { m.state, m.observed, m.dirty = s, 0, true }

// sorted are facts in the order of files.
func sorted(facts map[Fact]*Seen) []Fact {
	list := make([]Fact, 0, len(facts))
	for f := range facts {
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b Fact) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), strings.Compare(a.Name, b.Name), cmp.Compare(a.Origin, b.Origin),
			strings.Compare(a.Parent, b.Parent), cmp.Compare(a.Number, b.Number))
	})
	return list
}

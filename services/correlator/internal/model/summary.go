package model

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
)

// Summary is a model in short.
type Summary struct {
	Digest, Image, State  string
	Frozen                bool
	Observed, Needed      time.Duration // Needed is 0 for a model that is active
	Starts                uint64
	Containers, Suspected uint32
	Skipped, Lost         uint64
	Extended              time.Duration
	Families              []FamilySummary
}

// FamilySummary is one family of a model in short.
type FamilySummary struct {
	Name       string
	Facts      uint32
	Overflowed bool
	Anomalies  uint64
}

// Noted is an anomaly that was met, for people.
type Noted struct {
	Family, Fact string
	Seen
}

// List is a summary of every model, sorted by digest.
func (l *Learner) List() []Summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]Summary, 0, len(l.models))
	for _, m := range l.models {
		list = append(list, l.summary(m))
	}
	slices.SortFunc(list, func(a, b Summary) int { return strings.Compare(a.Digest, b.Digest) })
	return list
}

func (l *Learner) summary(m *model) Summary {
	s := Summary{
		Digest: m.digest, Image: m.image, State: m.state.String(), Frozen: m.frozen, Observed: m.observed, Starts: m.starts,
		Skipped: m.skipped, Lost: m.lost, Extended: m.extended,
	}
	switch m.state {
	case Learning:
		s.Needed = l.cfg.Learn
	case DryRun:
		s.Needed = l.cfg.DryRun
	case Active:
	}
	for _, t := range l.containers {
		if t.model == m && t.running {
			s.Containers++
			if t.suspected {
				s.Suspected++
			}
		}
	}
	for f := range families {
		s.Families = append(s.Families, FamilySummary{
			Name: families[f].name, Facts: uint32(m.counts[f]), //nolint:gosec // below the family's limit
			Overflowed: m.overflow[f], Anomalies: m.anomalies[f],
		})
	}
	return s
}

// Export is a model as YAML, and what was met that it does not have.
func (l *Learner) Export(digest string) (Summary, []byte, []Noted, error) {
	l.mu.Lock()
	m, err := l.find(digest)
	if err != nil {
		l.mu.Unlock()
		return Summary{}, nil, nil, err
	}
	s, d := l.summary(m), m.document()
	var noted []Noted
	for _, f := range sorted(m.noted) {
		noted = append(noted, Noted{Family: f.Family.String(), Fact: f.String(), Seen: *m.noted[f]})
	}
	l.mu.Unlock()
	raw, err := d.marshal()
	return s, raw, noted, err
}

// ErrMalformed marks a document that Import refuses.
var ErrMalformed = errors.New("not a model")

// Import takes in a model from YAML, in the place of the one of the same image.
func (l *Learner) Import(raw []byte) (Summary, error) {
	m, err := parse("model", raw)
	if err != nil {
		return Summary{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.models[m.digest]
	if old == nil && !l.makeRoom() {
		return Summary{}, ErrFull
	}
	m.lastRun = l.ticked
	l.models[m.digest] = m
	for _, t := range l.containers {
		if t.model != nil && t.model == old {
			t.model, t.reported = m, nil
		}
	}
	return l.summary(m), nil
}

// Facts describe the models for status, and Err why they are not safe on disk, or that some were set aside.
func (l *Learner) Facts() []*processv1.Fact {
	l.mu.Lock()
	defer l.mu.Unlock()
	var byState [len(states)]int
	var overflowed, suspected int
	var dry, active uint64
	for _, m := range l.models {
		byState[m.state]++
		for f := range families {
			if m.overflow[f] {
				overflowed++
			}
			if m.state == DryRun {
				dry += m.anomalies[f]
			} else {
				active += m.anomalies[f]
			}
		}
	}
	for _, t := range l.containers {
		if t.suspected {
			suspected++
		}
	}
	counts := fmt.Sprintf("%d learning, %d in dry run, %d active", byState[Learning], byState[DryRun], byState[Active])
	number := func(name string, n uint64) *processv1.Fact {
		return &processv1.Fact{Name: name, Value: strconv.FormatUint(n, 10)}
	}
	return []*processv1.Fact{
		{Name: "models", Value: counts}, number("anomalies in dry run", dry), number("anomalies", active),
		number("containers not learned from", uint64(suspected)), number("model families that overflowed", uint64(overflowed)), //nolint:gosec // counts
		number("models that gave way", l.evicted), number("events of images without a model", l.turnedAway+l.unnamed),
	}
}

// Err is why models are not safe on disk, or which ones were set aside, nil if all is well.
func (l *Learner) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.storeErr
	if len(l.aside) > 0 {
		err = errors.Join(err, fmt.Errorf("set aside because it cannot be read: %s", strings.Join(l.aside, ", ")))
	}
	return err
}

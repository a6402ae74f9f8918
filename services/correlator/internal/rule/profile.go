package rule

import (
	"slices"
	"time"

	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

// Profile measures what each rule costs: of every Every events it takes one and times each rule that is tried on it. A nil
// Profile measures nothing. One goroutine at a time may use it.
type Profile struct {
	// Every is how many events it takes one of, at least 1.
	Every uint64

	events uint64
	clock  time.Duration // what reading the clock costs
	byRule map[*Rule]*Cost
}

// Cost is what a rule has cost on the events that were measured.
type Cost struct {
	// Tried is on how many of them.
	Tried uint64
	Spent time.Duration
}

// Match is set.Match, measured now and then.
func (p *Profile) Match(set *Set, c *field.Context, yield func(*Rule)) {
	if p == nil {
		set.Match(c, yield)
		return
	}
	if p.events++; p.events%p.Every != 0 {
		set.Match(c, yield)
		return
	}
	p.measure(set, c, yield)
}

func (p *Profile) measure(set *Set, c *field.Context, yield func(*Rule)) {
	if p.byRule == nil {
		p.byRule, p.clock = map[*Rule]*Cost{}, clockCost()
	}
	i := field.KindOf(c.Event).Index()
	if i < 0 {
		return
	}
	for _, candidate := range set.byKind[i] {
		cost := p.byRule[candidate.rule]
		if cost == nil {
			cost = &Cost{}
			p.byRule[candidate.rule] = cost
		}
		begun := time.Now()
		matched := candidate.match(c)
		cost.Spent += max(0, time.Since(begun)-p.clock)
		cost.Tried++
		if matched {
			yield(candidate.rule)
		}
	}
}

// Of is what a rule has cost, zero if it was never tried.
func (p *Profile) Of(r *Rule) Cost {
	if cost := p.byRule[r]; cost != nil {
		return *cost
	}
	return Cost{}
}

// clockCost is the median of what two readings of the clock, one after the other, are apart.
func clockCost() time.Duration {
	apart := make([]time.Duration, 101)
	for i := range apart {
		apart[i] = time.Since(time.Now())
	}
	slices.Sort(apart)
	return apart[len(apart)/2]
}

// Package profile measures what each rule costs. Data in: the events that rules are run over; data out: for each rule, on how many of
// the measured events it was tried, and what that took.
package profile

import (
	"slices"
	"time"

	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
)

// Profile takes one of every Every events and times each rule that is tried on it. A nil
// Profile measures nothing. One goroutine at a time may use it.
type Profile struct {
	// Every is how many events it takes one of, at least 1.
	Every uint64

	events uint64
	clock  time.Duration // what reading the clock costs
	byRule map[*rule.Rule]*Cost
}

// Cost is what a rule has cost on the events that were measured.
type Cost struct {
	// Tried is on how many of them.
	Tried uint64
	Spent time.Duration
}

// Match is set.Match, measured now and then.
func (p *Profile) Match(set *rule.Set, c *field.Context, yield func(*rule.Rule)) {
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

func (p *Profile) measure(set *rule.Set, c *field.Context, yield func(*rule.Rule)) {
	if p.byRule == nil {
		p.byRule, p.clock = map[*rule.Rule]*Cost{}, clockCost()
	}
	set.Try(c, func(r *rule.Rule, match func(*field.Context) bool) {
		cost := p.byRule[r]
		if cost == nil {
			cost = &Cost{}
			p.byRule[r] = cost
		}
		begun := time.Now()
		matched := match(c)
		cost.Spent += max(0, time.Since(begun)-p.clock)
		cost.Tried++
		if matched {
			yield(r)
		}
	})
}

// Of is what a rule has cost, zero if it was never tried.
func (p *Profile) Of(r *rule.Rule) Cost {
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

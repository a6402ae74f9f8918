package pipeline

import (
	"strconv"
	"sync/atomic"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
)

// Matches knows the rules in force and counts how often each matched. It is safe for concurrent use.
type Matches struct {
	current atomic.Pointer[counts]
	total   atomic.Uint64
}

// counts are of one set of rules. The map does not change.
type counts struct {
	set    *rule.Set
	byRule map[*rule.Rule]*atomic.Uint64
}

func newMatches(set *rule.Set) *Matches {
	m := &Matches{}
	m.adopt(set)
	return m
}

// adopt goes on with another set. A rule that keeps its name keeps its count.
func (m *Matches) adopt(set *rule.Set) {
	next := &counts{set: set, byRule: make(map[*rule.Rule]*atomic.Uint64, len(set.Rules()))}
	before := map[string]*atomic.Uint64{}
	if old := m.current.Load(); old != nil {
		for r, n := range old.byRule {
			before[r.Name] = n
		}
	}
	for _, r := range set.Rules() {
		if next.byRule[r] = before[r.Name]; next.byRule[r] == nil {
			next.byRule[r] = &atomic.Uint64{}
		}
	}
	m.current.Store(next)
}

func (m *Matches) add(r *rule.Rule) {
	m.total.Add(1)
	m.current.Load().byRule[r].Add(1)
}

// Set is the rules in force.
func (m *Matches) Set() *rule.Set { return m.current.Load().set }

// Of is how often a rule matched, 0 for one that is not in force any more.
func (m *Matches) Of(r *rule.Rule) uint64 {
	if n := m.current.Load().byRule[r]; n != nil {
		return n.Load()
	}
	return 0
}

// Matches is the engine's count.
func (e *Engine) Matches() *Matches { return e.matches }

// adopt puts other rules into force, all at once: what was judged before is not judged again.
func (e *Engine) adopt(set *rule.Set) {
	e.deps.Rules = set
	e.matches.adopt(set)
	if e.deps.Adopted != nil {
		e.deps.Adopted(set)
	}
}

// Facts describe the engine to people. Safe for concurrent use.
func (e *Engine) Facts() []*processv1.Fact {
	m := e.metrics
	count := func(name string, n int64) *processv1.Fact {
		return &processv1.Fact{Name: name, Value: strconv.FormatInt(n, 10)}
	}
	return []*processv1.Fact{
		{Name: "events", Value: strconv.FormatUint(m.total.Load(), 10)},
		{Name: "findings", Value: strconv.FormatUint(e.matches.total.Load(), 10)},
		count("events held", m.held.Load()),
		count("containers", m.workloads.Load()),
		count("containers without cgroup", m.unbound.Load()),
		count("processes", m.processes.Load()-m.exited.Load()),
		count("exited processes kept", m.exited.Load()),
		count("rules", int64(len(e.matches.Set().Rules()))),
	}
}

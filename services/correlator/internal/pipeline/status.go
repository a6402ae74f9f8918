package pipeline

import (
	"strconv"
	"sync/atomic"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
)

// Matches counts how often each rule matched. It is safe for concurrent use.
type Matches struct {
	byRule map[*rule.Rule]*atomic.Uint64
	total  atomic.Uint64
}

func newMatches(set *rule.Set) *Matches {
	m := &Matches{byRule: map[*rule.Rule]*atomic.Uint64{}}
	for _, r := range set.Rules() {
		m.byRule[r] = &atomic.Uint64{}
	}
	return m
}

func (m *Matches) add(r *rule.Rule) {
	m.total.Add(1)
	m.byRule[r].Add(1)
}

// Of is how often a rule of the set matched.
func (m *Matches) Of(r *rule.Rule) uint64 { return m.byRule[r].Load() }

// Matches is the engine's count.
func (e *Engine) Matches() *Matches { return e.matches }

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
		count("rules", int64(len(e.deps.Rules.Rules()))),
	}
}

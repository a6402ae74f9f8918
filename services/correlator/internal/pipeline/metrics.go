package pipeline

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// metrics of the pipeline. The gauges are copies for other goroutines, renewed after each step.
type metrics struct {
	events   [field.NumKinds]prometheus.Counter
	others   *prometheus.CounterVec // the same, by what is in no kind
	total    atomic.Uint64
	batches  prometheus.Counter
	repeated prometheus.Counter
	findings *prometheus.CounterVec
	released *prometheus.CounterVec
	refusals *prometheus.CounterVec
	lost     *prometheus.CounterVec

	held, workloads, unbound, processes, exited atomic.Int64
}

func newMetrics(registry *prometheus.Registry) (*metrics, error) {
	m := &metrics{
		batches: prometheus.NewCounter(prometheus.CounterOpts{Name: "palisade_correlator_batches_total", Help: "Batches of events taken in."}),
		repeated: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "palisade_correlator_events_repeated_total", Help: "Events passed over because they had been taken in before the collector was restarted.",
		}),
		findings: vector("palisade_correlator_findings_total", "Events that matched a rule.", "priority"),
		released: vector("palisade_correlator_held_released_total", "Events that waited for their container, by why they went on.", "reason"),
		refusals: vector("palisade_correlator_bindings_refused_total", "Containers whose cgroup was not believed.", "reason"),
		lost:     vector("palisade_correlator_lost_total", "Records that are missing, as the collector reports.", "class", "reason"),
	}
	m.others = vector("palisade_correlator_events_total", "Events taken in.", "class")
	for i, class := range field.AllKinds.Classes() {
		m.events[i] = m.others.WithLabelValues(class)
	}
	for _, reason := range workload.Reasons {
		m.refusals.WithLabelValues(string(reason))
	}
	collected := []prometheus.Collector{
		m.batches, m.repeated, m.findings, m.released, m.refusals, m.lost, m.others,
		gauge("palisade_correlator_held_events", "Events that wait for their container.", &m.held),
		gauge("palisade_correlator_workloads", "Containers bound to a cgroup.", &m.workloads),
		gauge("palisade_correlator_unbound_workloads", "Containers whose cgroup is not known.", &m.unbound),
		gauge("palisade_correlator_processes", "Processes remembered.", &m.processes),
	}
	var errs []error
	for _, c := range collected {
		errs = append(errs, registry.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

func vector(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func gauge(name, help string, value *atomic.Int64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value.Load()) })
}

// event counts one.
func (m *metrics) event(e *eventv1.Event) {
	m.total.Add(1)
	if i := field.KindOf(e).Index(); i >= 0 {
		m.events[i].Inc()
		return
	}
	class := classOther
	switch e.GetKind().(type) {
	case *eventv1.Event_Loss:
		class = "loss"
	case *eventv1.Event_Started:
		class = "started"
	case *eventv1.Event_SyscallsUsed:
		class = "syscalls_used"
	}
	m.others.WithLabelValues(class).Inc()
}

// observe copies what the engine's goroutine knows.
func (m *metrics) observe(e *Engine) {
	m.held.Store(int64(e.held.count))
	bound, unbound := e.index.Len()
	m.workloads.Store(int64(bound))
	m.unbound.Store(int64(unbound))
	all, exited := e.tree.Len()
	m.processes.Store(int64(all))
	m.exited.Store(int64(exited))
}

// priorityLabel is "warning" for PRIORITY_WARNING.
func priorityLabel(p findingv1.Priority) string {
	return strings.ToLower(strings.TrimPrefix(p.String(), "PRIORITY_"))
}

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

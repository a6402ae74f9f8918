package delivery

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// How a push, or a finding, ended.
const (
	outcomeStored  = "stored"
	outcomeRetried = "retried"
	outcomeGivenUp = "given_up"
)

// metrics of the way out.
type metrics struct {
	actions, pushes, findings *prometheus.CounterVec
}

func newMetrics(registry *prometheus.Registry) (*metrics, error) {
	vector := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"outcome"})
	}
	m := &metrics{
		actions:  vector("palisade_correlator_actions_total", "Actions asked of the enforcer."),
		pushes:   vector("palisade_correlator_pushes_total", "Calls to the uplink."),
		findings: vector("palisade_correlator_delivered_findings_total", "Findings that left."),
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.actions, m.pushes, m.findings} {
		errs = append(errs, registry.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

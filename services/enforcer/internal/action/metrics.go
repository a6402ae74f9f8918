package action

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/palisade-sec/palisade/services/enforcer/internal/kill"
)

// metrics counts acts, for Prometheus and for the status page.
type metrics struct {
	kills   *prometheus.CounterVec
	seconds prometheus.Histogram

	done, refused, gone, failed atomic.Uint64
	// unaudited is true while the last act failed for want of a record.
	unaudited atomic.Bool
}

func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		kills: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "palisade_enforcer_kills_total",
			Help: "Requests to kill a process, by what became of them and why.",
		}, []string{"outcome", "reason"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "palisade_enforcer_kill_seconds",
			Help:    "From the request to the answer, the audit log and the end of the process included.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1},
		}),
	}
	for _, collector := range []prometheus.Collector{m.kills, m.seconds} {
		if err := registry.Register(collector); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) observe(result kill.Result, took time.Duration) {
	m.kills.WithLabelValues(string(result.Outcome), string(result.Reason)).Inc()
	m.seconds.Observe(took.Seconds())
	switch result.Outcome {
	case kill.Done:
		m.done.Add(1)
		m.unaudited.Store(false)
	case kill.Refused:
		m.refused.Add(1)
	case kill.Gone:
		m.gone.Add(1)
	case kill.Failed:
		m.failed.Add(1)
		m.unaudited.Store(result.Reason == kill.ReasonAudit)
	}
}

func (m *metrics) counts() map[kill.Outcome]uint64 {
	return map[kill.Outcome]uint64{
		kill.Done: m.done.Load(), kill.Refused: m.refused.Load(), kill.Gone: m.gone.Load(), kill.Failed: m.failed.Load(),
	}
}

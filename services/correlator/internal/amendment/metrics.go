package amendment

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// How a finding's wait for its container ends.
const (
	outcomeAmended = "amended"
	outcomeExpired = "expired" // nobody claimed it in time
	outcomeFull    = "full"    // too many wait
)

type metrics struct {
	waiting prometheus.Gauge
	ended   *prometheus.CounterVec
}

func newMetrics(registry *prometheus.Registry) (metrics, error) {
	m := metrics{
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "palisade_correlator_amendments_waiting", Help: "Findings that were told without metadata and may still be amended.",
		}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "palisade_correlator_amendments_total", Help: "Findings that were told without metadata, by what became of them.",
		}, []string{"outcome"}),
	}
	for _, c := range []prometheus.Collector{m.waiting, m.ended} {
		if err := registry.Register(c); err != nil {
			return m, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

package scan

import "github.com/prometheus/client_golang/prometheus"

// metrics are the service's.
type metrics struct {
	scans *prometheus.CounterVec
	took  prometheus.Histogram
}

func newMetrics(registry *prometheus.Registry, waiting func() float64) *metrics {
	m := &metrics{
		scans: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "palisade_scanner_scans_total", Help: "Scans, by outcome: done, failed, refused.",
		}, []string{"outcome"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "palisade_scanner_scan_seconds", Help: "How long scans take, without waiting.", Buckets: []float64{0.1, 0.3, 1, 3, 10, 30, 100, 300},
		}),
	}
	registry.MustRegister(m.scans, m.took, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "palisade_scanner_scans_waiting", Help: "Scans that wait for the one that runs.",
	}, waiting))
	return m
}

package queue

import "github.com/prometheus/client_golang/prometheus"

// Why a finding was dropped.
const (
	reasonCorrupt   = "corrupt"
	reasonDuplicate = "duplicate"
	reasonFull      = "full"
	// ReasonRefused is the console's no to one finding.
	ReasonRefused = "refused"
)

type metrics struct {
	in      prometheus.Counter
	out     prometheus.Counter
	dropped *prometheus.CounterVec
	refused prometheus.Counter
	pending prometheus.Gauge
	kept    prometheus.Gauge
	bytes   *prometheus.GaugeVec
	commit  prometheus.Histogram
}

func newMetrics(registry *prometheus.Registry) metrics {
	m := metrics{
		in: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "palisade_uplink_findings_in_total", Help: "Findings stored."}),
		out: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "palisade_uplink_findings_out_total", Help: "Findings the console has acknowledged."}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "palisade_uplink_findings_dropped_total", Help: "Findings dropped, by reason."}, []string{"reason"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "palisade_uplink_findings_refused_total",
			Help: "Findings not taken because the disk was nearly full; each attempt counts."}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "palisade_uplink_queue_pending", Help: "Findings that wait for the console."}),
		kept: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "palisade_uplink_queue_delivered", Help: "Delivered findings kept for local reading."}),
		bytes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "palisade_uplink_queue_bytes", Help: "Size of the findings in the queue, by what they are there for."},
			[]string{"state"}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "palisade_uplink_commit_seconds", Help: "Time to write and sync one group.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
	}
	for _, reason := range []string{reasonCorrupt, reasonDuplicate, reasonFull, ReasonRefused} {
		m.dropped.WithLabelValues(reason)
	}
	registry.MustRegister(m.in, m.out, m.dropped, m.refused, m.pending, m.kept, m.bytes, m.commit)
	return m
}

func (q *Queue) gauge() {
	stats := q.counts()
	q.metrics.pending.Set(float64(stats.Pending))
	q.metrics.kept.Set(float64(stats.Delivered))
	q.metrics.bytes.WithLabelValues("pending").Set(float64(stats.PendingBytes))
	q.metrics.bytes.WithLabelValues("delivered").Set(float64(stats.DeliveredBytes))
}

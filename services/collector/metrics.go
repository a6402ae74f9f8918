package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// metrics reads the collector's counters when asked for them.
type metrics struct {
	collector      *collector
	read, lost     *prometheus.Desc
	leftOut        *prometheus.Desc
	waiting, size  *prometheus.Desc
	malformed      *prometheus.Desc
	unacknowledged *prometheus.Desc
	bytes          *prometheus.Desc
}

func newMetrics(c *collector) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("palisade_collector_"+name, help, labels, nil)
	}
	return &metrics{
		collector:      c,
		read:           desc("records_read_total", "Records read from the ring.", "class"),
		lost:           desc("records_lost_total", "Records the kernel could not write.", "class"),
		leftOut:        desc("programs_left_out_total", "Times the kernel left a program out because it was running there.", "hook", "place"),
		waiting:        desc("ring_waiting_bytes", "Bytes of a ring that are taken.", "ring"),
		size:           desc("ring_size_bytes", "Size of a ring.", "ring"),
		malformed:      desc("records_malformed_total", "Records that could not be decoded."),
		unacknowledged: desc("unacknowledged_batches", "Batches the subscriber has not acknowledged."),
		bytes:          desc("unacknowledged_bytes", "Memory of the batches the subscriber has not acknowledged."),
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, out) }

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	counts := m.collector.ring.Counts()
	lost, err := m.collector.probes.Lost()
	for kind := record.Exec; kind < record.Kinds; kind++ {
		out <- prometheus.MustNewConstMetric(m.read, prometheus.CounterValue, float64(counts.ByKind[kind]), kind.Class())
		if err == nil {
			out <- prometheus.MustNewConstMetric(m.lost, prometheus.CounterValue, float64(lost[kind]), kind.Class())
		}
	}
	out <- prometheus.MustNewConstMetric(m.malformed, prometheus.CounterValue, float64(counts.Malformed))
	left, _ := m.collector.probes.LeftOut()
	for _, program := range left { // none if there is an error, which status tells
		out <- prometheus.MustNewConstMetric(m.leftOut, prometheus.CounterValue, float64(program.Count), program.Hook.Name, program.Place)
	}
	for _, ring := range m.collector.rings() {
		out <- prometheus.MustNewConstMetric(m.waiting, prometheus.GaugeValue, float64(ring.waiting), ring.name)
		out <- prometheus.MustNewConstMetric(m.size, prometheus.GaugeValue, float64(ring.size), ring.name)
	}
	queue := m.collector.stream.Status()
	out <- prometheus.MustNewConstMetric(m.unacknowledged, prometheus.GaugeValue, float64(queue.Unacknowledged))
	out <- prometheus.MustNewConstMetric(m.bytes, prometheus.GaugeValue, float64(queue.UnacknowledgedBytes))
}

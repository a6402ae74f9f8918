package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// Status is what `palisade status` shows of the collector.
func (c *collector) Status() *processv1.GetStatusResponse {
	status := &processv1.GetStatusResponse{Healthy: true}
	warn := func(format string, args ...any) {
		status.Healthy = false
		status.Warnings = append(status.Warnings, fmt.Sprintf(format, args...))
	}
	fact := func(name, value string) {
		status.Facts = append(status.Facts, &processv1.Fact{Name: name, Value: value})
	}
	fact("tier", string(c.probes.Tier()))
	for _, reason := range c.probes.Worse() {
		fact("not tier", reason)
	}
	fact("hooks", hookNames(c.probes))
	if runs, err := c.probes.Runs(); err != nil {
		warn("runs cannot be counted: %v", err)
	} else {
		fact("runs", byHook(runs))
	}
	for _, hook := range c.probes.Missing() {
		fact("missing hook "+hook.Name, hook.Without+": "+hook.Reason)
	}
	if guards, err := c.guards.Status(); err != nil {
		warn("guards cannot be counted: %v", err)
	} else {
		fact("guards", fmt.Sprintf("%d, generation %d, %s", guards.Guards, guards.Generation, c.denies()))
	}
	fact("workloads", strconv.Itoa(c.workloads.Len()))
	queue := c.stream.Status()
	if !queue.Subscribed {
		warn("nobody reads the events: is the correlator running?")
	}
	fact("events", strconv.FormatUint(queue.Sequence, 10))
	fact("unacknowledged", fmt.Sprintf("%d batches, %d KiB", queue.Unacknowledged, queue.UnacknowledgedBytes>>10))
	counts := c.ring.Counts()
	fact("records read", byClass(counts.ByKind))
	lost, err := c.probes.Lost()
	if err != nil {
		warn("lost records cannot be counted: %v", err)
	}
	fact("records lost", byClass(lost))
	fact("rings", fmt.Sprintf("urgent %d KiB, bulk %d KiB", c.probes.Urgent().MaxEntries()>>10, c.probes.Bulk().MaxEntries()>>10))
	if counts.Malformed > 0 {
		warn("%d records could not be decoded: report this", counts.Malformed)
	}
	return status
}

// byHook lists how often hooks ran and what that took on average. The kernel counts only while it is told to.
func byHook(runs []probe.Run) string {
	var parts []string
	for len(runs) > 0 {
		n := slices.IndexFunc(runs, func(r probe.Run) bool { return r.Hook != runs[0].Hook })
		if n < 0 {
			n = len(runs)
		}
		var count uint64
		var total time.Duration
		for _, run := range runs[:n] {
			count, total = count+run.Count, total+run.Total
		}
		if count > 0 {
			parts = append(parts, fmt.Sprintf("%s=%d (%d ns)", runs[0].Hook, count, uint64(total.Nanoseconds())/count)) //nolint:gosec // never negative
		}
		runs = runs[n:]
	}
	if len(parts) == 0 {
		return "not counted: sysctl kernel.bpf_stats_enabled=1 counts them"
	}
	return strings.Join(parts, " ")
}

// denies says what happens to who passes a guard.
func (c *collector) denies() string {
	if c.probes.Tier().CanDeny() {
		return "denied by the kernel"
	}
	return fmt.Sprintf("prevent: degraded to kill (tier %s)", c.probes.Tier())
}

// byClass lists counts in the order of the kinds, leaving out those that are zero.
func byClass(counts [record.Kinds]uint64) string {
	var parts []string
	for kind := record.Exec; kind < record.Kinds; kind++ {
		if counts[kind] > 0 {
			parts = append(parts, fmt.Sprintf("%s=%d", kind.Class(), counts[kind]))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, " ")
}

// metrics reads the collector's counters when asked for them.
type metrics struct {
	collector      *collector
	read, lost     *prometheus.Desc
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
	queue := m.collector.stream.Status()
	out <- prometheus.MustNewConstMetric(m.unacknowledged, prometheus.GaugeValue, float64(queue.Unacknowledged))
	out <- prometheus.MustNewConstMetric(m.bytes, prometheus.GaugeValue, float64(queue.UnacknowledgedBytes))
}

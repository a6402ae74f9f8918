package flight

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
)

// Why segments are deleted.
const (
	deletedAge      = "age"
	deletedWorkload = "workload_bytes"
	deletedTotal    = "total_bytes"
	deletedCount    = "workloads"
)

// metrics of the recorder. The gauges are renewed after each round of writing.
type metrics struct {
	written prometheus.Counter
	lost    [numReasons]prometheus.Counter
	deleted *prometheus.CounterVec
	damaged prometheus.Counter
	refused prometheus.Counter
	took    prometheus.Histogram

	bytes, pinned, workloads, waiting, failing atomic.Int64
}

func newMetrics(registry *prometheus.Registry) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "palisade_correlator_recorder_" + name, Help: help})
	}
	m := &metrics{
		written: counter("events_total", "Events that the flight recorder wrote."),
		damaged: counter("damaged_files_total", "Files of the flight recorder that could not be read, or not to their end."),
		refused: counter("refused_findings_total", "Grave findings that nothing was set aside for, because their workload has its share or there are too many incidents."),
		deleted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "palisade_correlator_recorder_deleted_segments_total", Help: "Segments of the flight recorder that were deleted, by why.",
		}, []string{"reason"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "palisade_correlator_recorder_write_seconds", Help: "How long a round of writing took.", Buckets: prometheus.ExponentialBuckets(1e-4, 4, 9),
		}),
	}
	missed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "palisade_correlator_recorder_missed_events_total", Help: "Events that the flight recorder did not take or could not write, by why.",
	}, []string{"reason"})
	for _, reason := range []correlatorv1.MissedReason{
		correlatorv1.MissedReason_MISSED_REASON_RATE, correlatorv1.MissedReason_MISSED_REASON_BEHIND, correlatorv1.MissedReason_MISSED_REASON_DISK,
	} {
		m.lost[reason] = missed.WithLabelValues(word(reason))
	}
	for _, reason := range []string{deletedAge, deletedWorkload, deletedTotal, deletedCount} {
		m.deleted.WithLabelValues(reason)
	}
	gauge := func(name, help string, value *atomic.Int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "palisade_correlator_recorder_" + name, Help: help}, func() float64 { return float64(value.Load()) })
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.written, m.damaged, m.refused, m.deleted, m.took, missed,
		gauge("bytes", "Bytes of the flight recorder's rings on disk.", &m.bytes),
		gauge("incident_bytes", "Bytes on disk that are set aside for incidents.", &m.pinned),
		gauge("workloads", "Workloads that the flight recorder has something of.", &m.workloads),
		gauge("waiting_bytes", "Bytes that wait in memory to be written.", &m.waiting),
		gauge("failing", "1 while events cannot be written to disk.", &m.failing),
	} {
		errs = append(errs, registry.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

// missed counts events. The reason is one of a recorder that runs: rate, behind or disk.
func (m *metrics) missed(reason correlatorv1.MissedReason, n uint64) { m.lost[reason].Add(float64(n)) }

// word is "rate" for MISSED_REASON_RATE.
func word(reason correlatorv1.MissedReason) string {
	return strings.ToLower(strings.TrimPrefix(reason.String(), "MISSED_REASON_"))
}

// observe copies what the recorder has for who asks.
func (r *Recorder) observe() {
	r.mu.Lock()
	defer r.mu.Unlock()
	ring, pinned := r.sizes()
	r.metrics.bytes.Store(ring)
	r.metrics.pinned.Store(pinned)
	r.metrics.workloads.Store(int64(len(r.rings)))
	r.metrics.waiting.Store(int64(r.waiting))
	failing := int64(0)
	if r.notes.disk != "" {
		failing = 1
	}
	r.metrics.failing.Store(failing)
}

// sizes are the bytes on disk. Called with mu held.
func (r *Recorder) sizes() (rings, pinned int64) {
	for _, g := range r.rings {
		rings += g.bytes
	}
	for _, s := range r.aside {
		rings += s.allocated()
	}
	for _, p := range r.pins {
		pinned += p.bytes
	}
	return rings, pinned
}

// Facts and Warnings describe the recorder to people.
func (r *Recorder) Facts() []*processv1.Fact {
	r.mu.Lock()
	defer r.mu.Unlock()
	rings, pinned := r.sizes()
	oldest := r.now()
	for _, g := range r.rings {
		if len(g.segments) > 0 && g.segments[0].first.Before(oldest) {
			oldest = g.segments[0].first
		}
	}
	value := fmt.Sprintf("%d workloads, %.1f MiB since %s, %.1f MiB of %d incidents", len(r.rings), mib(rings), oldest.UTC().Format(time.RFC3339), mib(pinned), len(r.pins))
	return []*processv1.Fact{
		{Name: "recorder", Value: value},
		{Name: "recorder events written", Value: strconv.FormatUint(r.notes.written, 10)},
		{Name: "recorder events missed", Value: strconv.FormatUint(r.notes.missed, 10)},
	}
}

// Warnings are what a person should look at.
func (r *Recorder) Warnings() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	if r.notes.disk != "" {
		all = append(all, "events are not recorded on disk: "+r.notes.disk)
	}
	if len(r.aside) > 0 {
		all = append(all, fmt.Sprintf("%d files of the flight recorder cannot be read and are set aside as *%s in %s; they are deleted after %v",
			len(r.aside), corruptSuffix, r.directory, r.cfg.Age))
	}
	if r.notes.refused > 0 {
		all = append(all, fmt.Sprintf("around %d grave findings nothing was set aside, because their workload has its quarter of recorder.incidents.total_bytes or there are "+
			"too many incidents", r.notes.refused))
	}
	return all
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

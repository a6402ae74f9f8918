package admit

import (
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/palisade-sec/palisade/internal/admission"
)

// What became of a question.
const (
	answerPassed  = "passed" // a start, or nothing to say against a container
	answerAlerted = "alerted"
	answerDryRun  = "dry run"
	answerRefused = "refused"
)

// metrics counts answers, for Prometheus and for the status page.
type metrics struct {
	answers                     *prometheus.CounterVec
	unknown, turnedAway, failed prometheus.Counter
	seconds                     prometheus.Histogram

	allowed, alerted, wouldRefuse, refused atomic.Uint64
	// unaudited is true while the last refusal could not be recorded.
	unaudited atomic.Bool
}

func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "palisade_enforcer_admission_answers_total", Help: "Questions of the runC shim, by what became of them.",
		}, []string{"answer"}),
		unknown: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "palisade_enforcer_admission_unknown_total", Help: "Containers of which no runtime told.",
		}),
		turnedAway: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "palisade_enforcer_admission_turned_away_total", Help: "Shims that were not heard because too many asked at once.",
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "palisade_enforcer_admission_failures_total", Help: "Conversations with a shim that ended without an answer.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "palisade_enforcer_admission_seconds", Help: "From the question to the answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .15, .25},
		}),
	}
	for _, collector := range []prometheus.Collector{m.answers, m.unknown, m.turnedAway, m.failed, m.seconds} {
		if err := registry.Register(collector); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) answer(what string) { m.answers.WithLabelValues(what).Inc() }

// decided counts a decision about a create.
func (m *metrics) decided(d admission.Decision) {
	switch {
	case d.Denied:
		m.refused.Add(1)
		m.answer(answerRefused)
	case d.Effect == admission.Block:
		m.wouldRefuse.Add(1)
		m.answer(answerDryRun)
	case d.Effect == admission.Alert:
		m.alerted.Add(1)
		m.answer(answerAlerted)
	default:
		m.allowed.Add(1)
		m.answer(answerPassed)
	}
}

func (m *metrics) audited(err error) { m.unaudited.Store(err != nil) }

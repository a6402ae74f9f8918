package proxy

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Why a call was refused.
const (
	reasonMethod = "method" // not in the table
	reasonCaller = "caller" // in the table, but not for that uid
)

// metrics of the window. A method's label is always one of the table's.
type metrics struct {
	forwarded     *prometheus.CounterVec
	refused       *prometheus.CounterVec
	requestBytes  prometheus.Counter
	responseBytes prometheus.Counter

	// The sums, for the status.
	forwards, refusals atomic.Uint64
}

func newMetrics(registry *prometheus.Registry) (*metrics, error) {
	m := &metrics{
		forwarded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "palisade_gate_forwarded_total", Help: "Calls passed on to the container runtime.",
		}, []string{"method"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "palisade_gate_refused_total", Help: "Calls refused, by reason.",
		}, []string{"reason"}),
		requestBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "palisade_gate_request_bytes_total", Help: "Bytes of requests passed on.",
		}),
		responseBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "palisade_gate_response_bytes_total", Help: "Bytes of responses passed back.",
		}),
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.forwarded, m.refused, m.requestBytes, m.responseBytes} {
		errs = append(errs, registry.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

// forward counts a call that is passed on.
func (m *metrics) forward(method string, requestBytes int) {
	m.forwards.Add(1)
	m.forwarded.WithLabelValues(method).Inc()
	m.requestBytes.Add(float64(requestBytes))
}

// refuse counts a call that is not.
func (m *metrics) refuse(reason string) {
	m.refusals.Add(1)
	m.refused.WithLabelValues(reason).Inc()
}

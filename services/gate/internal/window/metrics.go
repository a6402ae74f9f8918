package window

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Why a request was refused.
const (
	reasonCaller = "caller" // not the correlator
	reasonMethod = "method" // not GET
	reasonTarget = "target" // not in the table
	reasonBody   = "body"   // it has one, or says so
	reasonHost   = "host"   // addressed to somebody else
	reasonSwitch = "switch" // wants another protocol on the connection
)

// metrics of all windows. Labels are of the tables.
type metrics struct {
	forwarded *prometheus.CounterVec
	refused   *prometheus.CounterVec
	bytes     *prometheus.CounterVec
}

// counts are one window's sums, for the status.
type counts struct{ forwards, refusals atomic.Uint64 }

func newMetrics(registry *prometheus.Registry) (*metrics, error) {
	m := &metrics{
		forwarded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "palisade_gate_http_forwarded_total", Help: "HTTP requests passed on to a container runtime.",
		}, []string{"runtime", "route"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "palisade_gate_http_refused_total", Help: "HTTP requests refused, by reason.",
		}, []string{"runtime", "reason"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "palisade_gate_http_response_bytes_total", Help: "Bytes of HTTP responses passed back.",
		}, []string{"runtime"}),
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.forwarded, m.refused, m.bytes} {
		errs = append(errs, registry.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

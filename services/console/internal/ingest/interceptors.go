package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/ratelimit"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/palisade-sec/palisade/internal/rpc"
)

const (
	// maxMessageBytes is twice what an uplink sends at once.
	maxMessageBytes = 8 << 20
	// maxStreams is per connection; an uplink pushes one batch at a time.
	maxStreams = 8
	// pushesPerSecond bounds what the console takes from all nodes together.
	pushesPerSecond = 20_000
)

// interceptors are, outermost first: tracing, metrics, logging, limits, the node's name, recovery.
func interceptors(log *slog.Logger, registry *prometheus.Registry) ([]grpc.ServerOption, error) {
	calls := grpcprom.NewServerMetrics()
	// The unix socket's server has metrics of the same names.
	if err := prometheus.WrapRegistererWithPrefix("palisade_console_nodes_", registry).Register(calls); err != nil {
		return nil, fmt.Errorf("register gRPC metrics: %w", err)
	}
	limit := rpc.NewLimiter(pushesPerSecond)
	return []grpc.ServerOption{
		grpc.StatsHandler(otelgrpc.NewServerHandler()),
		grpc.ChainUnaryInterceptor(
			calls.UnaryServerInterceptor(),
			logging.UnaryServerInterceptor(rpc.Logger(log), rpc.LogFinished()...),
			ratelimit.UnaryServerInterceptor(limit),
			nodesOnly,
			recovery.UnaryServerInterceptor(rpc.Recovery(log)),
		),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxSendMsgSize(maxMessageBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}, nil
}

// nodesOnly refuses every call of a connection that is not a node's. TLS has refused it already; this stands should
// that ever be set up differently.
func nodesOnly(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if _, err := nodeOf(ctx); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

type metrics struct {
	in         prometheus.Counter
	duplicates prometheus.Counter
}

func newMetrics(registry *prometheus.Registry) metrics {
	m := metrics{
		in: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "palisade_console_findings_in_total", Help: "New findings kept."}),
		duplicates: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "palisade_console_findings_duplicate_total", Help: "Findings acknowledged that were kept already."}),
	}
	registry.MustRegister(m.in, m.duplicates)
	return m
}

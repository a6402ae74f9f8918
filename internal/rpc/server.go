// Package rpc builds the gRPC servers and clients that Palisade's processes talk through on unix sockets. Every server
// has the same order of interceptors (tracing, metrics, logging, limits, caller table, recovery) and the same
// standard services (health, status, metrics).
package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/ratelimit"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/internal/unixsock"
)

const (
	// maxMessageBytes bounds one message: a batch of 512 events with 32 KiB of arguments each is 16 MiB.
	maxMessageBytes = 32 << 20
	maxStreams      = 64
	// callsPerSecond bounds what one process takes from all its callers; batching keeps honest ones far below.
	callsPerSecond = 20_000
)

// ServerConfig describes a server on a unix socket.
type ServerConfig struct {
	// Process is the name in the table of privileges.
	Process string
	// Callers says who may call the methods the process adds to the standard ones.
	Callers Callers
	// UIDs says who is who.
	UIDs UIDs
	// Recover turns a handler's panic into codes.Internal. A privileged process leaves it false and dies.
	Recover bool
	Log     *slog.Logger
	Metrics *prometheus.Registry
	// Status describes the process to people; nil means just "running".
	Status func(ctx context.Context) *processv1.GetStatusResponse
	// Options are added to the server's, for a proxy's handler and codec.
	Options []grpc.ServerOption
}

// Server is a gRPC server that refuses everything its caller table does not allow.
type Server struct {
	*grpc.Server
	authorizer authorizer
	health     *health.Server
}

// NewServer returns a server without listener. Register services on it, then call Run.
func NewServer(cfg ServerConfig) (*Server, error) {
	auth, err := newAuthorizer(cfg.Callers, cfg.UIDs)
	if err != nil {
		return nil, err
	}
	metrics := grpcprom.NewServerMetrics()
	if err := cfg.Metrics.Register(metrics); err != nil {
		return nil, fmt.Errorf("register gRPC metrics: %w", err)
	}
	limit := NewLimiter(callsPerSecond)
	unary := []grpc.UnaryServerInterceptor{
		metrics.UnaryServerInterceptor(),
		logging.UnaryServerInterceptor(Logger(cfg.Log), LogFinished()...),
		ratelimit.UnaryServerInterceptor(limit),
		auth.unary,
	}
	stream := []grpc.StreamServerInterceptor{
		metrics.StreamServerInterceptor(),
		logging.StreamServerInterceptor(Logger(cfg.Log), LogFinished()...),
		ratelimit.StreamServerInterceptor(limit),
		auth.stream,
	}
	if cfg.Recover {
		handler := Recovery(cfg.Log)
		unary = append(unary, recovery.UnaryServerInterceptor(handler))
		stream = append(stream, recovery.StreamServerInterceptor(handler))
	}
	options := append([]grpc.ServerOption{
		grpc.Creds(unixsock.ServerCredentials()),
		grpc.StatsHandler(otelgrpc.NewServerHandler()),
		grpc.ChainUnaryInterceptor(unary...),
		grpc.ChainStreamInterceptor(stream...),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(5 * time.Second),
	}, cfg.Options...)
	s := &Server{Server: grpc.NewServer(options...), authorizer: auth, health: health.NewServer()}
	healthpb.RegisterHealthServer(s, s.health)
	processv1.RegisterProcessServiceServer(s, newProcessServer(cfg))
	return s, nil
}

// Run serves on the listener until ctx ends, then lets running calls finish for two seconds. It refuses to start if
// a registered method has no line in the caller table.
func (s *Server) Run(ctx context.Context, listener net.Listener) error {
	if err := s.authorizer.complete(s.GetServiceInfo()); err != nil {
		return errors.Join(err, listener.Close())
	}
	stopped := context.AfterFunc(ctx, func() {
		s.health.Shutdown()
		force := time.AfterFunc(2*time.Second, s.Stop)
		defer force.Stop()
		s.GracefulStop()
	})
	defer stopped()
	if err := s.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	}
	return ctx.Err()
}

// pid is what a status reports.
func pid() uint32 { return uint32(os.Getpid()) } //nolint:gosec // a pid is never negative

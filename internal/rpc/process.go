package rpc

import (
	"bytes"
	"context"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
)

// processServer answers what is the same for every process.
type processServer struct {
	processv1.UnimplementedProcessServiceServer
	name    string
	started time.Time
	status  func(ctx context.Context) *processv1.GetStatusResponse
	metrics prometheus.Gatherer
}

func newProcessServer(cfg ServerConfig) *processServer {
	return &processServer{name: cfg.Process, started: time.Now(), status: cfg.Status, metrics: cfg.Metrics}
}

// GetStatus fills in name, pid, start and version around what the process says of itself.
func (s *processServer) GetStatus(ctx context.Context, _ *processv1.GetStatusRequest) (*processv1.GetStatusResponse, error) {
	answer := &processv1.GetStatusResponse{Healthy: true}
	if s.status != nil {
		answer = s.status(ctx)
	}
	answer.Process = s.name
	answer.Pid = pid()
	answer.Started = timestamppb.New(s.started)
	answer.Version = Version()
	return answer, nil
}

// GetMetrics returns the registry in Prometheus's text format.
func (s *processServer) GetMetrics(context.Context, *processv1.GetMetricsRequest) (*processv1.GetMetricsResponse, error) {
	families, err := s.metrics.Gather()
	if err != nil {
		return nil, status.Error(codes.Internal, "gather metrics")
	}
	var text bytes.Buffer
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(&text, family); err != nil {
			return nil, status.Error(codes.Internal, "write metrics")
		}
	}
	return &processv1.GetMetricsResponse{Text: text.String()}, nil
}

// Version is the version the binary was built from: a release's tag, or the commit.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && len(setting.Value) >= 12 {
			return setting.Value[:12]
		}
	}
	return info.Main.Version
}

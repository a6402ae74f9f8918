package e2e

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// traceStore is an OTLP receiver that remembers which services took part in which trace.
type traceStore struct {
	collectortrace.UnimplementedTraceServiceServer
	mu     sync.Mutex
	traces map[string]map[string]bool // trace id → service names
}

// Export takes spans (OTLP/gRPC, TraceService).
func (s *traceStore) Export(_ context.Context, req *collectortrace.ExportTraceServiceRequest,
) (*collectortrace.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range req.GetResourceSpans() {
		service := serviceName(resource)
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				id := hex.EncodeToString(span.GetTraceId())
				if s.traces[id] == nil {
					s.traces[id] = map[string]bool{}
				}
				s.traces[id][service] = true
			}
		}
	}
	return &collectortrace.ExportTraceServiceResponse{}, nil
}

func serviceName(resource *tracev1.ResourceSpans) string {
	for _, attribute := range resource.GetResource().GetAttributes() {
		if attribute.GetKey() == "service.name" {
			return attribute.GetValue().GetStringValue()
		}
	}
	return ""
}

// whole reports whether one trace has spans of all services.
func (s *traceStore) whole(services ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seen := range s.traces {
		all := true
		for _, service := range services {
			all = all && seen[service]
		}
		if all {
			return true
		}
	}
	return false
}

// TestOneTraceSpansTheWholePath follows a finding from the collector's batch to the console.
func TestOneTraceSpansTheWholePath(t *testing.T) {
	store := &traceStore{traces: map[string]map[string]bool{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	collectortrace.RegisterTraceServiceServer(server, store)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)

	n := startNode(t, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+listener.Addr().String())
	n.demo()
	path := []string{"palisade-collector", "palisade-correlator", "palisade-uplink", "palisade-console"}
	if !eventually(15*time.Second, func() bool { return store.whole(path...) }) {
		t.Errorf("no trace has spans of %v; seen: %s", path, fmt.Sprint(store.traces))
	}
}

// Package telemetry sets up tracing and metrics. Traces go out over OTLP if OTEL_EXPORTER_OTLP_ENDPOINT is set; the
// usual OTEL_* variables apply. A process without a network gives a unix socket as endpoint: unix:///run/….
package telemetry

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// EndpointVariable is the environment variable that switches tracing on.
const EndpointVariable = "OTEL_EXPORTER_OTLP_ENDPOINT"

// Start installs the global tracer provider and propagator for the process. Call the returned function at the end; it
// sends what is left, for at most two seconds.
func Start(ctx context.Context, process string) (stop func(), err error) {
	otel.SetTextMapPropagator(propagation.TraceContext{})
	endpoint := os.Getenv(EndpointVariable)
	if endpoint == "" {
		return func() {}, nil
	}
	exporter, err := newExporter(ctx, endpoint)
	if err != nil {
		return nil, fmt.Errorf("tracing to %s=%s: %w", EndpointVariable, endpoint, err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter, sdktrace.WithBatchTimeout(time.Second)),
		sdktrace.WithResource(resource.NewSchemaless(semconv.ServiceName("palisade-"+process))),
	)
	otel.SetTracerProvider(provider)
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = provider.Shutdown(ctx) // traces are best effort
	}, nil
}

func newExporter(ctx context.Context, endpoint string) (*otlptrace.Exporter, error) {
	if !strings.HasPrefix(endpoint, "unix:") {
		return otlptracegrpc.New(ctx)
	}
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return otlptracegrpc.New(ctx, otlptracegrpc.WithGRPCConn(conn))
}

// NewRegistry returns a metrics registry with the Go runtime's and the process's own figures.
func NewRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return registry
}

package channel_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	consolev1 "github.com/palisade-sec/palisade/api/palisade/console/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/mtls"
	"github.com/palisade-sec/palisade/internal/statedir"
	"github.com/palisade-sec/palisade/services/uplink/internal/channel"
	"github.com/palisade-sec/palisade/services/uplink/internal/queue"
)

// console keeps what nodes push, in memory, over real mutual TLS.
type console struct {
	consolev1.UnimplementedIngestServiceServer
	refuse string // id it refuses as invalid

	mu       sync.Mutex
	kept     map[string]bool // guarded by mu
	pushes   int             // guarded by mu
	loseAcks int             // guarded by mu; so many pushes are kept but not acknowledged
}

func (c *console) PushFindings(
	_ context.Context, req *consolev1.PushFindingsRequest,
) (*consolev1.PushFindingsResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pushes++
	for _, finding := range req.GetFindings() {
		if finding.GetId() == c.refuse {
			return nil, status.Error(codes.InvalidArgument, "no")
		}
	}
	for _, finding := range req.GetFindings() {
		c.kept[finding.GetId()] = true
	}
	if c.loseAcks > 0 {
		c.loseAcks--
		return nil, status.Error(codes.Unavailable, "acknowledgement lost")
	}
	return &consolev1.PushFindingsResponse{}, nil
}

func (c *console) ids() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.kept))
}

// serve listens on address until the returned function is called.
func (c *console) serve(t *testing.T, authority *mtls.Authority, address string) (at string, stop func()) {
	t.Helper()
	pair, err := authority.IssueServer("localhost")
	if err != nil {
		t.Fatal(err)
	}
	keypair, err := pair.Keypair()
	if err != nil {
		t.Fatal(err)
	}
	side, err := mtls.NodeSide(keypair, authority.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(side)), grpc.StatsHandler(otelgrpc.NewServerHandler()))
	consolev1.RegisterIngestServiceServer(server, c)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String(), server.Stop
}

// node is an uplink without its socket.
type node struct {
	queue   *queue.Queue
	channel *channel.Channel
	enroll  string
}

func startNode(t *testing.T, address string) *node {
	t.Helper()
	q, err := queue.Open(t.TempDir(), queue.DefaultConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	n := &node{queue: q, enroll: t.TempDir()}
	cfg := channel.Config{
		Address: address, ServerName: "localhost", EnrollDirectory: n.enroll, PushTimeout: 5 * time.Second,
	}
	n.channel = channel.New(cfg, q, slog.New(slog.DiscardHandler), otel.Tracer("test"))
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = q.Run(ctx) })
	tasks.Go(func() { _ = n.channel.Run(ctx) })
	t.Cleanup(func() { cancel(); tasks.Wait(); q.Close() })
	return n
}

func (n *node) enrollWith(t *testing.T, authority *mtls.Authority) {
	t.Helper()
	pair, err := authority.IssueNode("node-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := statedir.WriteFile(filepath.Join(n.enroll, "ca.crt"), authority.Certificate(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := mtls.WritePair(n.enroll, "node", pair, 0o640); err != nil {
		t.Fatal(err)
	}
}

func (n *node) put(t *testing.T, from, to int, change ...func(*findingv1.Finding)) []string {
	t.Helper()
	var findings []*findingv1.Finding
	var ids []string
	for i := from; i <= to; i++ {
		finding := &findingv1.Finding{Id: fmt.Sprintf("%032x", i), Rule: "r"}
		for _, f := range change {
			f(finding)
		}
		findings = append(findings, finding)
		ids = append(ids, finding.GetId())
	}
	if _, err := n.queue.Put(t.Context(), findings); err != nil {
		t.Fatal(err)
	}
	return ids
}

func newAuthority(t *testing.T) *mtls.Authority {
	t.Helper()
	authority, err := mtls.OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

// eventually polls, because what it waits for happens in other goroutines and processes.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (n *node) drained() bool { return n.queue.Stats().Pending == 0 }

func TestConsoleOutageLosesAndDoublesNothing(t *testing.T) {
	authority := newAuthority(t)
	c := &console{kept: map[string]bool{}}
	address, stop := c.serve(t, authority, "127.0.0.1:0")
	n := startNode(t, address)
	n.enrollWith(t, authority)
	want := n.put(t, 1, 10)
	eventually(t, "first findings delivered", n.drained)
	stop()
	want = append(want, n.put(t, 11, 1500)...)
	eventually(t, "the outage is in the state", func() bool {
		return n.channel.State().Connection == channel.Disconnected && n.channel.State().Err != nil
	})
	if got := n.queue.Stats().Pending; got != 1490 {
		t.Errorf("pending during the outage = %d, want 1490", got)
	}
	c.mu.Lock()
	c.loseAcks = 1 // the batch must come again
	c.mu.Unlock()
	c.serve(t, authority, address)
	eventually(t, "queue drained", n.drained)
	if got := c.ids(); !slices.Equal(got, want) {
		t.Errorf("console has %d findings, want exactly the %d put", len(got), len(want))
	}
	if got := n.channel.State(); got.Connection != channel.Connected || got.Err != nil {
		t.Errorf("state = %+v, want connected", got)
	}
}

func TestCertificatesThatComeLateOrChange(t *testing.T) {
	first, second := newAuthority(t), newAuthority(t)
	c := &console{kept: map[string]bool{}}
	address, stop := c.serve(t, first, "127.0.0.1:0")
	n := startNode(t, address)
	want := n.put(t, 1, 1)
	eventually(t, "waiting for certificates", func() bool { return n.channel.State().Connection == channel.Waiting })
	n.enrollWith(t, first)
	eventually(t, "delivered with the first certificates", n.drained)
	stop()
	c.serve(t, second, address)
	want = append(want, n.put(t, 2, 2)...)
	eventually(t, "the wrong authority is in the state", func() bool {
		return n.channel.State().Connection == channel.Disconnected
	})
	if got := c.ids(); len(got) != 1 {
		t.Errorf("console of another authority got %v", got)
	}
	n.enrollWith(t, second)
	eventually(t, "delivered with the second certificates", n.drained)
	if got := c.ids(); !slices.Equal(got, want) {
		t.Errorf("console has %v, want %v", got, want)
	}
}

func TestGarbageCertificateIsAWarning(t *testing.T) {
	n := startNode(t, "127.0.0.1:1")
	n.enrollWith(t, newAuthority(t))
	if err := os.WriteFile(filepath.Join(n.enroll, "node.crt"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "state names the file", func() bool {
		err := n.channel.State().Err
		return err != nil && strings.Contains(err.Error(), "node.crt")
	})
}

func TestRefusedFindingDoesNotHoldUpTheOthers(t *testing.T) {
	authority := newAuthority(t)
	c := &console{kept: map[string]bool{}, refuse: fmt.Sprintf("%032x", 2)}
	address, _ := c.serve(t, authority, "127.0.0.1:0")
	n := startNode(t, address)
	ids := n.put(t, 1, 3)
	n.enrollWith(t, authority)
	eventually(t, "queue drained", n.drained)
	if got, want := c.ids(), []string{ids[0], ids[2]}; !slices.Equal(got, want) {
		t.Errorf("console has %v, want %v", got, want)
	}
}

func TestOneTraceToTheConsole(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.TraceContext{})
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	authority := newAuthority(t)
	c := &console{kept: map[string]bool{}}
	address, stop := c.serve(t, authority, "127.0.0.1:0")
	n := startNode(t, address)
	const trace = "0af7651916cd43dd8448eb211c80319c"
	n.put(t, 1, 1, func(f *findingv1.Finding) { f.Traceparent = "00-" + trace + "-b7ad6b7169203331-01" })
	n.enrollWith(t, authority)
	eventually(t, "queue drained", n.drained)
	stop()
	eventually(t, "the spans have ended", func() bool { return len(spans.Ended()) >= 3 })
	names := map[string]string{}
	for _, span := range spans.Ended() {
		names[fmt.Sprint(span.SpanKind(), " ", span.Name())] = span.SpanContext().TraceID().String()
	}
	method := strings.TrimPrefix(consolev1.IngestService_PushFindings_FullMethodName, "/")
	for _, want := range []string{"producer uplink deliver", "client " + method, "server " + method} {
		if names[want] != trace {
			t.Errorf("span %q is in trace %q, want %s; have %v", want, names[want], trace, names)
		}
	}
}

func TestNoConsole(t *testing.T) {
	n := startNode(t, "")
	n.put(t, 1, 3)
	if got := n.channel.State(); got.Connection != channel.Off || got.Err != nil {
		t.Errorf("state = %+v, want off", got)
	}
	if got := n.queue.Stats().Pending; got != 3 {
		t.Errorf("pending = %d, want 3", got)
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	err := channel.Config{Address: "nowhere", EnrollDirectory: "relative"}.Validate()
	for _, key := range []string{"address:", "server_name:", "enroll_directory:", "push_timeout:"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("Validate error = %v, want it to name %s", err, key)
		}
	}
}

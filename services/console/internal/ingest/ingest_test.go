package ingest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	consolev1 "github.com/palisade-sec/palisade/api/palisade/console/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/mtls"
	"github.com/palisade-sec/palisade/services/console/internal/ingest"
)

// memory keeps findings as journal and index do.
type memory struct {
	mu    sync.Mutex
	kept  []*findingv1.Finding // guarded by mu
	fault error                // guarded by mu
}

func (m *memory) Append(_ context.Context, _ string, findings []*findingv1.Finding) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept = append(m.kept, findings...)
	return len(findings), m.fault
}

func (m *memory) Known(_ context.Context, node string, _ []string) (map[string]bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := map[string]bool{}
	for _, finding := range m.kept {
		if finding.GetNode() == node {
			known[finding.GetId()] = finding.GetWorkload().GetMetadata() == findingv1.MetadataState_METADATA_STATE_PENDING
		}
	}
	return known, nil
}

type console struct {
	memory    *memory
	authority *mtls.Authority
	address   string
}

func serve(t *testing.T) *console {
	t.Helper()
	authority := newAuthority(t)
	pair, err := authority.IssueServer("localhost")
	if err != nil {
		t.Fatal(err)
	}
	side, err := mtls.NodeSide(keypair(t, pair), authority.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	c := &console{memory: &memory{}, authority: authority}
	server, err := ingest.New(side, c.memory, c.memory, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.address = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var task sync.WaitGroup
	task.Go(func() { _ = server.Run(ctx, listener) })
	t.Cleanup(func() { cancel(); task.Wait() })
	return c
}

func newAuthority(t *testing.T) *mtls.Authority {
	t.Helper()
	authority, err := mtls.OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

func keypair(t *testing.T, pair mtls.Pair) tls.Certificate {
	t.Helper()
	out, err := pair.Keypair()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (c *console) node(t *testing.T, name string) consolev1.IngestServiceClient {
	t.Helper()
	pair, err := c.authority.IssueNode(name)
	if err != nil {
		t.Fatal(err)
	}
	side, err := mtls.ConsoleSide(keypair(t, pair), c.authority.Certificate(), "localhost")
	if err != nil {
		t.Fatal(err)
	}
	return consolev1.NewIngestServiceClient(c.dial(t, side))
}

func (c *console) dial(t *testing.T, side *tls.Config) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(c.address, grpc.WithTransportCredentials(credentials.NewTLS(side)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func batch(numbers ...int) *consolev1.PushFindingsRequest {
	req := &consolev1.PushFindingsRequest{}
	for _, n := range numbers {
		req.Findings = append(req.Findings, &findingv1.Finding{Id: fmt.Sprintf("%032x", n), Node: "somebody-else"})
	}
	return req
}

func TestNameComesFromTheCertificate(t *testing.T) {
	c := serve(t)
	for _, tt := range []struct {
		node    string
		numbers []int
		stored  uint32
	}{{"node-1", []int{1, 2, 2}, 2}, {"node-1", []int{2, 3}, 1}, {"node-2", []int{1}, 1}} {
		answer, err := c.node(t, tt.node).PushFindings(t.Context(), batch(tt.numbers...))
		if err != nil || answer.GetStored() != tt.stored {
			t.Errorf("PushFindings(%s, %v) = %v, %v, want %d stored", tt.node, tt.numbers, answer, err, tt.stored)
		}
	}
	var got []string
	for _, finding := range c.memory.kept {
		got = append(got, finding.GetNode()+"/"+strings.TrimLeft(finding.GetId(), "0"))
	}
	if want := []string{"node-1/1", "node-1/2", "node-1/3", "node-2/1"}; !slices.Equal(got, want) {
		t.Errorf("kept %v, want %v", got, want)
	}
}

// A finding whose container was not known is taken again when it is, and nothing after that.
func TestAnAmendmentIsTakenOnce(t *testing.T) {
	c := serve(t)
	push := func(states ...findingv1.MetadataState) uint32 {
		t.Helper()
		req := &consolev1.PushFindingsRequest{}
		for _, state := range states {
			req.Findings = append(req.Findings, &findingv1.Finding{Id: fmt.Sprintf("%032x", 1), Workload: &findingv1.Workload{Metadata: state}})
		}
		answer, err := c.node(t, "node-1").PushFindings(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return answer.GetStored()
	}
	const pending, known = findingv1.MetadataState_METADATA_STATE_PENDING, findingv1.MetadataState_METADATA_STATE_KNOWN
	for i, tt := range []struct {
		states []findingv1.MetadataState
		want   uint32
	}{
		{[]findingv1.MetadataState{pending, pending}, 1},
		{[]findingv1.MetadataState{pending}, 0},
		{[]findingv1.MetadataState{known, pending, known}, 1},
		{[]findingv1.MetadataState{pending}, 0},
		{[]findingv1.MetadataState{known}, 0},
	} {
		if i == 3 { // as the index shows one finding of an id
			c.memory.kept = c.memory.kept[1:]
		}
		if got := push(tt.states...); got != tt.want {
			t.Errorf("push %d of %v stored %d, want %d", i, tt.states, got, tt.want)
		}
	}
}

func TestBadPushesAreRefused(t *testing.T) {
	c := serve(t)
	node := c.node(t, "node-1")
	many, huge, id, at := batch(make([]int, 1001)...), batch(1), batch(1), batch(1)
	huge.Findings[0].Output = strings.Repeat("x", 1<<20)
	id.Findings[0].Id = "ABC"
	at.Findings[0].Time = &timestamppb.Timestamp{Seconds: -1 << 62}
	for name, req := range map[string]*consolev1.PushFindingsRequest{
		"over 1000": many, "over 1 MiB": huge, "bad id": id, "bad time": at,
	} {
		if _, err := node.PushFindings(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("PushFindings(%s) error = %v, want InvalidArgument", name, err)
		}
	}
	big := batch()
	for range 20 {
		f := batch(1).Findings[0]
		f.Output = strings.Repeat("x", 500<<10)
		big.Findings = append(big.Findings, f)
	}
	if _, err := node.PushFindings(t.Context(), big); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("PushFindings(over 8 MiB) error = %v, want ResourceExhausted", err)
	}
}

func TestNothingIsAcknowledgedThatIsNotKept(t *testing.T) {
	c := serve(t)
	c.memory.fault = errors.New("disk full at /secret/path")
	_, err := c.node(t, "node-1").PushFindings(t.Context(), batch(1))
	if status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), "secret") {
		t.Errorf("PushFindings error = %v, want Unavailable without a reason", err)
	}
}

func TestANodeCanDoNothingElse(t *testing.T) {
	c := serve(t)
	pair, err := c.authority.IssueNode("node-1")
	if err != nil {
		t.Fatal(err)
	}
	side, err := mtls.ConsoleSide(keypair(t, pair), c.authority.Certificate(), "localhost")
	if err != nil {
		t.Fatal(err)
	}
	conn := c.dial(t, side)
	for _, method := range []string{
		"/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
		"/palisade.process.v1.ProcessService/GetStatus", "/palisade.uplink.v1.FindingService/ListFindings",
	} {
		err := conn.Invoke(t.Context(), method, batch(), &consolev1.PushFindingsResponse{})
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s error = %v, want Unimplemented", method, err)
		}
	}
}

// TestStrangersGetNoApplicationByte reads what the port answers to those who are no node of ours: TLS alerts only.
func TestStrangersGetNoApplicationByte(t *testing.T) {
	c := serve(t)
	foreign, err := newAuthority(t).IssueNode("node-1")
	if err != nil {
		t.Fatal(err)
	}
	own, err := c.authority.IssueServer("localhost")
	if err != nil {
		t.Fatal(err)
	}
	node, err := c.authority.IssueNode("node-1")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name         string
		certificates []tls.Certificate
		version      uint16
	}{
		{name: "no certificate", version: tls.VersionTLS13},
		{name: "certificate of another authority", certificates: []tls.Certificate{keypair(t, foreign)}, version: tls.VersionTLS13},
		{name: "server certificate of ours", certificates: []tls.Certificate{keypair(t, own)}, version: tls.VersionTLS13},
		{name: "node, but TLS 1.2", certificates: []tls.Certificate{keypair(t, node)}, version: tls.VersionTLS12},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(c.authority.Certificate())
			conn, err := tls.Dial("tcp", c.address, &tls.Config{
				RootCAs: roots, ServerName: "localhost", Certificates: tt.certificates, MaxVersion: tt.version,
				NextProtos: []string{"h2"},
				// Sends the certificate even where the server says it would not take it.
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					if len(tt.certificates) == 0 {
						return &tls.Certificate{}, nil
					}
					return &tt.certificates[0], nil
				},
			})
			if err != nil {
				return // refused in the handshake
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
			answer, err := io.ReadAll(conn)
			if len(answer) != 0 || err == nil {
				t.Errorf("read %d application bytes, %v, want none and an alert", len(answer), err)
			}
		})
	}
}

func TestPlainTextGetsNothing(t *testing.T) {
	c := serve(t)
	conn, err := net.Dial("tcp", c.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = conn.Write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	const alert = 21
	if answer, _ := io.ReadAll(conn); len(answer) > 0 && answer[0] != alert {
		t.Errorf("plain text was answered %q, want a TLS alert at most", answer)
	}
}

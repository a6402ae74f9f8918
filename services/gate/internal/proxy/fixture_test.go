package proxy

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"

	"github.com/palisade-sec/palisade/internal/rpc"
)

// gate is a running gate and a connection to it.
type gate struct {
	*grpc.ClientConn
	proxy  *Proxy
	cfg    Config
	socket string
}

// startGate serves a gate before the containerd at upstream, which is its CRI-O, too. The test's own uid is the correlator's.
func startGate(t *testing.T, upstream string) gate {
	t.Helper()
	return startGateOn(t, upstream, upstream)
}

// startGateOn serves a gate before a containerd and a CRI-O.
func startGateOn(t *testing.T, upstream, crioSocket string) gate {
	t.Helper()
	me := uint32(os.Getuid()) //nolint:gosec // never negative
	cfg := Config{Socket: upstream, UID: me, Timeout: 2 * time.Second}
	crio := Config{Socket: crioSocket, UID: me, Timeout: 2 * time.Second}
	registry := prometheus.NewRegistry()
	log := slog.New(slog.DiscardHandler)
	window, err := New(cfg, crio, log, registry)
	if err != nil {
		t.Fatalf("New(%+v) error = %v", cfg, err)
	}
	server, err := rpc.NewServer(rpc.ServerConfig{
		Process: "gate", Callers: Callers(), UIDs: rpc.UIDs{"correlator": me, "enforcer": me + 1, "operator": me},
		Log: log, Metrics: registry, Options: window.ServerOptions(),
	})
	if err != nil {
		t.Fatalf("rpc.NewServer() error = %v", err)
	}
	window.Register(server)
	directory := shortDir(t)
	sockets := rpc.Sockets{Directory: directory, Group: os.Getgid(), UIDs: rpc.UIDs{"gate": me}}
	if me == 0 {
		sockets.Group = 10000 // the wrong uid of a test may connect, and is refused by the table
	}
	listener, err := sockets.Listen("gate")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() { _ = server.Run(ctx, listener) })
	conn, err := sockets.Dial("gate", grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newCodec())))
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		stop()
		served.Wait()
		_ = window.Close()
	})
	return gate{ClientConn: conn, proxy: window, cfg: cfg, socket: sockets.Path("gate")}
}

// call makes one call with one frame and returns the first answer.
func (g gate) call(ctx context.Context, method string, request []byte, options ...grpc.CallOption) ([]byte, error) {
	in, out := &frame{data: mem.BufferSlice{mem.SliceBuffer(request)}}, &frame{}
	err := g.Invoke(ctx, method, in, out, options...)
	return out.data.Materialize(), err
}

// shortDir is a directory whose sockets' paths fit into 107 bytes.
func shortDir(t *testing.T) string {
	t.Helper()
	directory, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatalf("make a directory: %v", err)
	}
	if err := os.Chmod(directory, 0o755); err != nil { //nolint:gosec // the wrong uid must get as far as the socket
		t.Fatalf("open the directory: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	return directory
}

// fakeContainerd answers every method with what handle says, and remembers what reached it.
type fakeContainerd struct {
	socket string
	handle func(method string, stream grpc.ServerStream) error

	mu      sync.Mutex
	reached []string
	seen    metadata.MD
}

func startFake(t *testing.T, handle func(method string, stream grpc.ServerStream) error) *fakeContainerd {
	t.Helper()
	f := &fakeContainerd{socket: filepath.Join(shortDir(t), "c.sock"), handle: handle}
	listener, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(newCodec()), grpc.MaxRecvMsgSize(64<<20), grpc.MaxSendMsgSize(64<<20),
		grpc.UnknownServiceHandler(f.serve))
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		server.Stop()
		served.Wait()
	})
	return f
}

func (f *fakeContainerd) serve(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	md, _ := metadata.FromIncomingContext(stream.Context())
	f.mu.Lock()
	f.reached = append(f.reached, method)
	f.seen = md
	f.mu.Unlock()
	return f.handle(method, stream)
}

func (f *fakeContainerd) calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.reached...)
}

func (f *fakeContainerd) metadata() metadata.MD {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen
}

// echo answers with the request.
func echo(_ string, stream grpc.ServerStream) error {
	var m frame
	if err := stream.RecvMsg(&m); err != nil {
		return err
	}
	return stream.SendMsg(&m)
}

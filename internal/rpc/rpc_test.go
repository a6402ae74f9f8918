package rpc

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	uplinkv1 "github.com/palisade-sec/palisade/api/palisade/uplink/v1"
)

// asChild makes the test binary call the socket in this variable instead of running tests.
const asChild = "PALISADE_TEST_CALL_SOCKET"

func TestMain(m *testing.M) {
	if socket := os.Getenv(asChild); socket != "" {
		os.Stdout.WriteString(callStatus(socket).String())
		return
	}
	os.Exit(m.Run())
}

// callStatus asks the server at socket, which runs as root, for its status.
func callStatus(socket string) codes.Code {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := Dial(socket, 0)
	if err != nil {
		return codes.Internal
	}
	defer conn.Close()
	_, err = processv1.NewProcessServiceClient(conn).GetStatus(ctx, &processv1.GetStatusRequest{})
	return status.Code(err)
}

// serve runs a server that serves QueueService with the given callers and returns its socket.
func serve(t *testing.T, callers Callers, withQueue bool) (socket string, done <-chan error) {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) { // let the child of another uid reach the socket
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sockets := Sockets{Directory: dir, Group: 10000, UIDs: UIDs{Operator: uint32(os.Getuid()), "correlator": 10002}}
	listener, err := sockets.Listen("uplink")
	if err != nil {
		t.Fatal(err)
	}
	server, err := NewServer(ServerConfig{
		Process: "uplink", Callers: callers, UIDs: sockets.UIDs, Recover: true,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if withQueue {
		uplinkv1.RegisterQueueServiceServer(server, panicking{})
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- server.Run(ctx, listener) }()
	t.Cleanup(cancel)
	return sockets.Path("uplink"), result
}

type panicking struct {
	uplinkv1.UnimplementedQueueServiceServer
}

func (panicking) PushFindings(context.Context, *uplinkv1.PushFindingsRequest) (*uplinkv1.PushFindingsResponse, error) {
	panic("bug")
}

func TestCallerTable(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to call as another uid")
	}
	socket, _ := serve(t, nil, false)
	if got := callStatus(socket); got != codes.OK {
		t.Errorf("GetStatus as operator = %v, want OK", got)
	}
	binary := readableCopy(t, filepath.Dir(socket))
	for _, uid := range []uint32{65534, 10002} {
		child := exec.Command(binary)
		child.Env = append(os.Environ(), asChild+"="+socket)
		child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: 10000}}
		out, err := child.CombinedOutput()
		if err != nil {
			t.Fatalf("child: %v: %s", err, out)
		}
		if got := string(out); got != codes.PermissionDenied.String() {
			t.Errorf("GetStatus as uid %d = %q, want %v", uid, got, codes.PermissionDenied)
		}
	}
}

// readableCopy puts the test binary where another uid may run it: go test's own directory is closed to others.
func readableCopy(t *testing.T, dir string) string {
	t.Helper()
	raw, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "child")
	if err := os.WriteFile(path, raw, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestClientRefusesAServerOfAnotherUID(t *testing.T) {
	socket, _ := serve(t, nil, false)
	conn, err := Dial(socket, 4242)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = processv1.NewProcessServiceClient(conn).GetStatus(ctx, &processv1.GetStatusRequest{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "want [4242]") {
		t.Errorf("call of a server that runs as another uid = %v, want Unavailable naming both uids", err)
	}
}

func TestServerRefusesAMethodWithoutALine(t *testing.T) {
	_, done := serve(t, nil, true)
	err := <-done
	if err == nil || !strings.Contains(err.Error(), "no line for /palisade.uplink.v1.QueueService/PushFindings") {
		t.Errorf("Run with an unlisted method = %v, want an error that names it", err)
	}
}

func TestPanicIsRecoveredAndTheServerGoesOn(t *testing.T) {
	socket, _ := serve(t, Callers{uplinkv1.QueueService_PushFindings_FullMethodName: {Operator}}, true)
	conn, err := Dial(socket, uint32(os.Getuid()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = uplinkv1.NewQueueServiceClient(conn).PushFindings(t.Context(), &uplinkv1.PushFindingsRequest{})
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "bug") {
		t.Errorf("call of a panicking handler = %v, want Internal without the reason", err)
	}
	answer, err := processv1.NewProcessServiceClient(conn).GetMetrics(t.Context(), &processv1.GetMetricsRequest{})
	if err != nil || !strings.Contains(answer.GetText(), "grpc_server_handled_total") {
		t.Errorf("GetMetrics after a panic = %v, %v, want the gRPC counters", answer, err)
	}
}

func TestNewServerNeedsAUIDForEveryCaller(t *testing.T) {
	_, err := NewServer(ServerConfig{
		Callers: Callers{"/x/Y": {"stranger"}}, UIDs: UIDs{Operator: 0},
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err == nil || !strings.Contains(err.Error(), `no uid for caller "stranger"`) {
		t.Errorf("NewServer(unknown caller) = %v, want an error that names it", err)
	}
}

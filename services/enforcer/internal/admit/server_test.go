package admit

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	"github.com/palisade-sec/palisade/internal/unixsock"
)

// answers is an answerer of a test's.
type answers func(context.Context, *enforcerv1.AdmissionRequest) (*enforcerv1.AdmissionResponse, func(error))

func (a answers) answer(ctx context.Context, q *enforcerv1.AdmissionRequest, _ unixsock.Peer) (*enforcerv1.AdmissionResponse, func(error)) {
	return a(ctx, q)
}

func echo(_ context.Context, q *enforcerv1.AdmissionRequest) (*enforcerv1.AdmissionResponse, func(error)) {
	return &enforcerv1.AdmissionResponse{Verdict: enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_ALLOW, Message: q.GetContainerId()}, func(error) {}
}

func testMetrics(t testing.TB) *metrics {
	t.Helper()
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// listen serves on a real socket until the test ends, and returns its path.
func listen(t *testing.T, a answerer) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root is answered")
	}
	directory, err := os.MkdirTemp("", "adm") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	path := filepath.Join(directory, "s")
	listener, err := unixsock.Listen(path, os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := newServer(a, testMetrics(t), slog.New(slog.DiscardHandler)).run(ctx, listener); !errors.Is(err, context.Canceled) {
			t.Errorf("run = %v, want %v", err, context.Canceled)
		}
	})
	t.Cleanup(func() { stop(); serving.Wait() })
	return path
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// ask is what the shim does.
func ask(conn net.Conn, q *enforcerv1.AdmissionRequest) (*enforcerv1.AdmissionResponse, error) {
	if err := writeMessage(conn, q); err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(conn)
	if err != nil {
		return nil, err
	}
	if len(raw) < lengthBytes || int(binary.BigEndian.Uint32(raw)) != len(raw)-lengthBytes {
		return nil, io.ErrUnexpectedEOF
	}
	response := &enforcerv1.AdmissionResponse{}
	return response, proto.Unmarshal(raw[lengthBytes:], response)
}

func TestManyShimsAreAnsweredAtOnce(t *testing.T) {
	path := listen(t, answers(echo))
	var shims sync.WaitGroup
	for range 50 {
		shims.Go(func() {
			conn := dial(t, path)
			got, err := ask(conn, &enforcerv1.AdmissionRequest{ContainerId: "c", Spec: bytes.Repeat([]byte("x"), 20<<10)})
			if err != nil || got.GetMessage() != "c" {
				t.Errorf("answer = %v, %v, want c", got, err)
			}
		})
	}
	shims.Wait()
}

// What is no question gets no answer, and the next shim does.
func TestBadQuestionsHarmNobody(t *testing.T) {
	path := listen(t, answers(echo))
	long := binary.BigEndian.AppendUint32(nil, maxQuestion+1)
	for name, raw := range map[string][]byte{
		"nothing": nil, "half a length": {0, 0}, "too long": long, "cut off": {0, 0, 0, 9, 1}, "no protobuf": {0, 0, 0, 2, 0xff, 0xff},
		"the longest length there is": {0xff, 0xff, 0xff, 0xff},
	} {
		conn := dial(t, path)
		if _, err := conn.Write(raw); err != nil {
			t.Fatal(err)
		}
		if unix, ok := conn.(*net.UnixConn); ok {
			_ = unix.CloseWrite()
		}
		if got, _ := io.ReadAll(conn); len(got) > 0 {
			t.Errorf("%s: answer = %q, want none", name, got)
		}
	}
	if got, err := ask(dial(t, path), &enforcerv1.AdmissionRequest{ContainerId: "next"}); err != nil || got.GetMessage() != "next" {
		t.Errorf("the next shim's answer = %v, %v", got, err)
	}
}

// A caller that says nothing, or more than there is room for at once, holds up neither others nor itself for long.
func TestSilentAndGreedyCallersAreCutOff(t *testing.T) {
	path := listen(t, answers(echo))
	silent := dial(t, path)
	greedy := make([]net.Conn, 4)
	for i := range greedy {
		greedy[i] = dial(t, path)
		if _, err := greedy[i].Write(binary.BigEndian.AppendUint32(nil, maxQuestion)); err != nil {
			t.Fatal(err)
		}
	}
	for _, conn := range append(greedy, silent) {
		if got, _ := io.ReadAll(conn); len(got) > 0 {
			t.Errorf("answer = %q, want none", got)
		}
	}
	if got, err := ask(dial(t, path), &enforcerv1.AdmissionRequest{ContainerId: "next"}); err != nil || got.GetMessage() != "next" {
		t.Errorf("the next shim's answer = %v, %v", got, err)
	}
}

// Who is told that the container was refused must have been: a shim that has gone on did not hear it.
func TestAnAnswerThatNobodyWaitsForIsKnownToBeLost(t *testing.T) {
	asked, gone, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	path := listen(t, answers(func(context.Context, *enforcerv1.AdmissionRequest) (*enforcerv1.AdmissionResponse, func(error)) {
		close(asked)
		<-gone
		return &enforcerv1.AdmissionResponse{}, func(err error) { result <- err }
	}))
	conn := dial(t, path)
	if err := writeMessage(conn, &enforcerv1.AdmissionRequest{}); err != nil {
		t.Fatal(err)
	}
	<-asked
	_ = conn.Close()
	close(gone)
	if err := <-result; err == nil {
		t.Error("told(nil), want an error")
	}
}

func TestOnlyRootIsAnswered(t *testing.T) {
	s := newServer(answers(echo), testMetrics(t), slog.New(slog.DiscardHandler))
	near, far := net.Pipe()
	defer near.Close()
	if err := s.converse(t.Context(), far); err == nil {
		t.Error("converse() with somebody whom the kernel does not name succeeds")
	}
}

func FuzzRead(f *testing.F) {
	raw, err := proto.Marshal(&enforcerv1.AdmissionRequest{ContainerId: "c", Layers: []string{"/a"}, CgroupId: 7})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...))
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	s := newServer(answers(echo), testMetrics(f), slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, raw []byte) {
		question, release, err := s.read(t.Context(), bytes.NewReader(raw))
		release()
		if (question == nil) != (err != nil) && err == nil {
			t.Errorf("read(%q) = %v, %v", raw, question, err)
		}
		if !s.bytes.TryAcquire(maxBytes) {
			t.Fatal("room was not given back")
		}
		s.bytes.Release(maxBytes)
	})
}

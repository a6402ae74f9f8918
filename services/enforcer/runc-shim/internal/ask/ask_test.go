package ask

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
)

// What is written by hand here is what the contract says.
func TestMessages(t *testing.T) {
	q := Question{
		Container: "c", Bundle: "/b", Root: "/r", Spec: []byte("{}"), Event: Start, CgroupID: 1 << 40, Layers: []string{"/2", "/1"},
	}
	want := &enforcerv1.AdmissionRequest{
		ContainerId: "c", Bundle: "/b", RuntimeRoot: "/r", Spec: []byte("{}"), Event: enforcerv1.AdmissionEvent_ADMISSION_EVENT_START,
		CgroupId: 1 << 40, Layers: []string{"/2", "/1"},
	}
	got := &enforcerv1.AdmissionRequest{}
	if err := proto.Unmarshal(q.marshal(), got); err != nil || !proto.Equal(got, want) {
		t.Errorf("question = %v, %v, want %v", got, err, want)
	}
	if fields := want.ProtoReflect().Descriptor().Fields().Len(); fields != fieldLayers {
		t.Errorf("the contract has %d fields, %d are written here", fields, fieldLayers)
	}
	if uint64(enforcerv1.AdmissionEvent_ADMISSION_EVENT_CREATE) != uint64(Create) {
		t.Error("create has another number in the contract")
	}
	for verdict, denied := range map[enforcerv1.AdmissionVerdict]bool{
		enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_ALLOW: false, enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_DENY: true,
	} {
		raw, err := proto.Marshal(&enforcerv1.AdmissionResponse{Verdict: verdict, Message: "why\nso"})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parse(raw); err != nil || got.Denied != denied || got.Message != "why\nso" {
			t.Errorf("parse(%v) = %+v, %v", verdict, got, err)
		}
	}
	if got, err := parse(nil); err == nil {
		t.Errorf("parse(nothing) = %+v, want an error: it is neither yes nor no", got)
	}
}

// serve answers each caller as told, on a real socket.
func serve(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	directory, err := os.MkdirTemp("", "ask") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	path := filepath.Join(directory, "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); answer(conn) }()
		}
	}()
	return path
}

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root is believed")
	}
}

func read(conn net.Conn) {
	length := make([]byte, lengthBytes)
	if _, err := io.ReadFull(conn, length); err == nil {
		_, _ = io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(length)))
	}
}

func TestAnswersInWhateverPieces(t *testing.T) {
	requireRoot(t)
	raw, err := proto.Marshal(&enforcerv1.AdmissionResponse{Verdict: enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_DENY, Message: strings.Repeat("no\n", 1000)})
	if err != nil {
		t.Fatal(err)
	}
	path := serve(t, func(conn net.Conn) {
		read(conn)
		for _, b := range append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...) {
			_, _ = conn.Write([]byte{b})
		}
	})
	// The question is larger than a socket's buffer.
	got, err := Ask(path, Question{Container: "c", Spec: make([]byte, 2<<20)}, time.Now().Add(20*time.Second))
	if err != nil || !got.Denied || len(got.Message) != 3000 {
		t.Errorf("Ask() = denied %v, %d bytes, %v, want 3000 bytes of a refusal", got.Denied, len(got.Message), err)
	}
}

func TestWhoDoesNotAnswerIsNotWaitedFor(t *testing.T) {
	requireRoot(t)
	forever := make(chan struct{})
	t.Cleanup(func() { close(forever) })
	for name, answer := range map[string]func(net.Conn){
		"says nothing":     func(net.Conn) { <-forever },
		"reads, no more":   func(conn net.Conn) { read(conn); <-forever },
		"stops in between": func(conn net.Conn) { read(conn); _, _ = conn.Write([]byte{0, 0, 0, 9, 8}); <-forever },
		"one byte a time": func(conn net.Conn) {
			read(conn)
			_, _ = conn.Write([]byte{0, 0, 0xff, 0})
			for range 1000 {
				_, _ = conn.Write([]byte{0})
				time.Sleep(20 * time.Millisecond)
			}
		},
		"hangs up":    func(net.Conn) {},
		"is too long": func(conn net.Conn) { read(conn); _, _ = conn.Write([]byte{0xff, 0xff, 0xff, 0xff}) },
		"no protobuf": func(conn net.Conn) { read(conn); _, _ = conn.Write([]byte{0, 0, 0, 1, 0xff}) },
	} {
		began := time.Now()
		got, err := Ask(serve(t, answer), Question{Container: "c", Spec: make([]byte, 1<<20)}, began.Add(200*time.Millisecond))
		if err == nil {
			t.Errorf("%s: Ask() = %+v, want an error", name, got)
		}
		if took := time.Since(began); took > 5*time.Second { // generous: the machine may be busy
			t.Errorf("%s: it took %v", name, took)
		}
	}
	if _, err := Ask("/nonexistent/socket", Question{}, time.Now().Add(time.Second)); err == nil {
		t.Error("Ask() of no socket succeeds")
	}
	if _, err := Ask(serve(t, func(net.Conn) {}), Question{}, time.Now()); !errors.Is(err, errLate) {
		t.Errorf("Ask() without time = %v, want %v", err, errLate)
	}
}

// Nobody accepts, so that the queue of callers is full: connect itself must not wait.
func TestAFullQueueIsNotWaitedFor(t *testing.T) {
	requireRoot(t)
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for range 10_000 { // net.core.somaxconn is 4096 by default
		fd, err := connect(path, time.Now().Add(10*time.Millisecond))
		if err != nil {
			return
		}
		t.Cleanup(func() { _ = syscall.Close(fd) })
	}
	t.Skip("the queue never fills on this machine")
}

func FuzzParse(f *testing.F) {
	raw, err := proto.Marshal(&enforcerv1.AdmissionResponse{Verdict: enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_DENY, Message: "why"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte{0x0b, 0x0c, 0x08, 0x01})
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := parse(raw)
		want := &enforcerv1.AdmissionResponse{}
		if proto.Unmarshal(raw, want) != nil {
			return // text that is not UTF-8, for which the shim does not care
		}
		known := want.GetVerdict() == enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_ALLOW || want.GetVerdict() == enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_DENY
		if known && (err != nil || got.Message != want.GetMessage() || got.Denied != (want.GetVerdict() == enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_DENY)) {
			t.Errorf("parse(%x) = %+v, %v, want %v", raw, got, err, want)
		}
		if !known && err == nil && int32(want.GetVerdict()) != 0 && want.GetVerdict() > 2 {
			t.Errorf("parse(%x) = %+v, want an error", raw, got)
		}
	})
}

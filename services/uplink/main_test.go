package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	uplinkv1 "github.com/palisade-sec/palisade/api/palisade/uplink/v1"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/mtls"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/internal/statedir"
)

func newRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range []string{"run", "enroll"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func arguments(t *testing.T, root, more string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "uplink.yaml")
	text := fmt.Sprintf(`
sockets: {directory: %s/run, group: %d, uids: {operator: %d, correlator: %d, uplink: %d}}
state_directory: %s/state
%s
`, root, os.Getgid(), os.Getuid(), os.Getuid(), os.Getuid(), root, more)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"-config", path}
}

func environment(arguments []string, stdout io.Writer) daemon.Env {
	return daemon.Env{Name: "uplink", Args: arguments, Log: slog.New(slog.DiscardHandler), Stdout: stdout}
}

func dial(t *testing.T, root string) *grpc.ClientConn {
	t.Helper()
	conn, err := rpc.Dial(filepath.Join(root, "run", "uplink.sock"), uint32(os.Getuid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestWholeProcess(t *testing.T) {
	root := newRoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	args := arguments(t, root, "console: {address: ''}")
	go func() { ended <- run(ctx, environment(args, io.Discard)) }()
	conn := dial(t, root)
	push := &uplinkv1.PushFindingsRequest{Findings: []*findingv1.Finding{{Id: strings.Repeat("a", 32)}}}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, err := uplinkv1.NewQueueServiceClient(conn).PushFindings(t.Context(), push)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	answer, err := processv1.NewProcessServiceClient(conn).GetStatus(t.Context(), &processv1.GetStatusRequest{})
	if err != nil || !answer.GetHealthy() {
		t.Fatalf("GetStatus = %v, %v, want healthy", answer, err)
	}
	facts := map[string]string{}
	for _, fact := range answer.GetFacts() {
		facts[fact.GetName()] = fact.GetValue()
	}
	if facts["pending"] != "1" || facts["console"] != "off" {
		t.Errorf("facts = %v, want one pending and the console off", facts)
	}
	if err := run(t.Context(), environment(args, io.Discard)); err == nil || !strings.Contains(err.Error(), "uplink.sock") {
		t.Errorf("second uplink error = %v, want it to name the socket", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run error = %v, want nil after the context has ended", err)
	}
	if left, err := os.ReadDir(filepath.Join(root, "run")); err != nil || len(left) != 0 {
		t.Errorf("left in the socket directory: %v, %v", left, err)
	}
}

func TestCheckLeavesNothingAndReadsCertificates(t *testing.T) {
	root := newRoot(t)
	enroll := filepath.Join(root, "enroll")
	args := append(arguments(t, root, "console: {enroll_directory: "+enroll+"}"), "-check")
	want := func(text string) {
		t.Helper()
		var out bytes.Buffer
		if err := run(t.Context(), environment(args, &out)); err != nil || !strings.Contains(out.String(), text) {
			t.Errorf("-check = %q, %v, want %q", out.String(), err, text)
		}
	}
	want("not enrolled yet")
	authority, err := mtls.OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.IssueNode("node-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := statedir.WriteFile(filepath.Join(enroll, "ca.crt"), authority.Certificate(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := mtls.WritePair(enroll, "node", pair, 0o640); err != nil {
		t.Fatal(err)
	}
	want("as node node-1")
	bad := filepath.Join(enroll, "ca.crt")
	if err := os.WriteFile(bad, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	err = run(t.Context(), environment(args, io.Discard))
	if err == nil || !strings.Contains(err.Error(), bad) {
		t.Errorf("-check with a bad certificate error = %v, want it to name %s", err, bad)
	}
	if _, err := os.Stat(filepath.Join(root, "state")); !os.IsNotExist(err) {
		t.Errorf("-check made the state directory: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(root, "run")); err != nil || len(left) != 0 {
		t.Errorf("-check left in the socket directory: %v, %v", left, err)
	}
}

func TestBadInputIsNamed(t *testing.T) {
	tests := map[string]struct{ more, want string }{
		"unknown key":   {"colour: red", `unknown key "colour"`},
		"queue bound":   {"queue: {pending: 0}", "queue.pending"},
		"queue size":    {"queue: {pending_bytes: 1}", "queue.pending_bytes"},
		"kept size":     {"queue: {delivered_bytes: -1}", "queue.delivered_bytes"},
		"free space":    {"queue: {min_free_bytes: 0}", "queue.min_free_bytes"},
		"address":       {"console: {address: nowhere}", "console.address"},
		"push time-out": {"console: {push_timeout: 1ms}", "console.push_timeout"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), environment(arguments(t, newRoot(t), tt.more), io.Discard))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("run error = %v, want it to name %s", err, tt.want)
			}
		})
	}
	root := newRoot(t)
	if err := os.WriteFile(filepath.Join(root, "state"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := run(t.Context(), environment(arguments(t, root, ""), io.Discard))
	if err == nil || !strings.Contains(err.Error(), "state_directory") {
		t.Errorf("run with a file as state directory error = %v, want it to name the key", err)
	}
}

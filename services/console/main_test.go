package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	consolev1 "github.com/palisade-sec/palisade/api/palisade/console/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/loopbacktest"
	"github.com/palisade-sec/palisade/internal/mtls"
	"github.com/palisade-sec/palisade/internal/rpc"
)

// place is where one console lives.
type place struct {
	root          string
	nodes, people string
}

func newPlace(t *testing.T) place {
	t.Helper()
	p := place{root: t.TempDir(), nodes: loopbacktest.Address(t), people: loopbacktest.Address(t)}
	for _, name := range []string{"run", "enroll"} {
		if err := os.Mkdir(filepath.Join(p.root, name), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// arguments writes the configuration; more is added to it.
func (p place) arguments(t *testing.T, more string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "console.yaml")
	text := fmt.Sprintf(`
sockets: {directory: %s/run, group: %d, uids: {operator: %d, console: %d}}
state_directory: %s/state
nodes: {listen: %s}
people: {listen: %s}
enroll: {directory: %s/enroll, nodes: [node-1]}
%s
`, p.root, os.Getgid(), os.Getuid(), os.Getuid(), p.root, p.nodes, p.people, p.root, more)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"-config", path}
}

func environment(arguments []string, stdout io.Writer) daemon.Env {
	return daemon.Env{Name: "console", Args: arguments, Log: slog.New(slog.DiscardHandler), Stdout: stdout}
}

// start runs the console until the returned function, or the test, ends; that function returns what it printed.
func (p place) start(t *testing.T) (stop func() string) {
	t.Helper()
	var out bytes.Buffer
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	arguments := p.arguments(t, "")
	go func() { ended <- run(ctx, environment(arguments, &out)) }()
	stop = sync.OnceValue(func() string {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run error = %v, want nil after the context has ended", err)
		}
		return out.String()
	})
	t.Cleanup(func() { stop() })
	conn, err := rpc.Dial(filepath.Join(p.root, "run", "console.sock"), uint32(os.Getuid()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		answer, err := processv1.NewProcessServiceClient(conn).GetStatus(t.Context(), &processv1.GetStatusRequest{})
		if err == nil && answer.GetHealthy() {
			return stop
		}
		if time.Now().After(deadline) {
			t.Fatalf("GetStatus = %v, %v, want healthy", answer, err)
		}
	}
}

func (p place) push(t *testing.T, numbers ...int) {
	t.Helper()
	identity, err := mtls.OpenNode(filepath.Join(p.root, "enroll"), "localhost")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(p.nodes, grpc.WithTransportCredentials(credentials.NewTLS(identity.TLS)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	req := &consolev1.PushFindingsRequest{}
	for _, n := range numbers {
		req.Findings = append(req.Findings, &findingv1.Finding{Id: fmt.Sprintf("%032x", n)})
	}
	if _, err := consolev1.NewIngestServiceClient(conn).PushFindings(t.Context(), req); err != nil {
		t.Fatal(err)
	}
}

// shown asks 8083 until it shows so many findings, and returns their names.
func (p place) shown(t *testing.T, password string, n int) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // certificates have tests of their own
	}}
	defer client.CloseIdleConnections()
	var names string
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+p.people+"/api/v1/findings?after=0", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("admin", password)
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var body struct{ Findings []struct{ Node, ID string } }
		err = json.NewDecoder(answer.Body).Decode(&body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("findings = %s, %v", answer.Status, err)
		}
		names = ""
		for _, one := range body.Findings {
			names += " " + one.Node + "/" + strings.TrimLeft(one.ID, "0")
		}
		if len(body.Findings) >= n || time.Now().After(deadline) {
			return strings.TrimSpace(names)
		}
	}
}

func TestFirstStartAndRestart(t *testing.T) {
	p := newPlace(t)
	stop := p.start(t)
	p.push(t, 1, 2)
	p.push(t, 2, 3)
	printed := stop()
	line := regexp.MustCompile(`^palisade-console: admin password: (\S{20,})\n$`).FindStringSubmatch(printed)
	if line == nil {
		t.Fatalf("first start printed %q, want one line with the password", printed)
	}
	stop = p.start(t)
	p.push(t, 1, 4)
	if got, want := p.shown(t, line[1], 4), "node-1/1 node-1/2 node-1/3 node-1/4"; got != want {
		t.Errorf("findings after a restart = %s, want %s", got, want)
	}
	if printed := stop(); printed != "" {
		t.Errorf("second start printed %q, want nothing", printed)
	}
	if left, err := os.ReadDir(filepath.Join(p.root, "run")); err != nil || len(left) != 0 {
		t.Errorf("left in the socket directory: %v, %v", left, err)
	}
}

func TestCheckLeavesNothing(t *testing.T) {
	p := newPlace(t)
	var out bytes.Buffer
	if err := run(t.Context(), environment(append(p.arguments(t, ""), "-check"), &out)); err != nil {
		t.Fatal(err)
	}
	if strings.Count(out.String(), "\n") != 1 || !strings.Contains(out.String(), "ready") {
		t.Errorf("-check printed %q, want one line", out.String())
	}
	p.wantUntouched(t)
}

func (p place) wantUntouched(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(p.root, "state")); !os.IsNotExist(err) {
		t.Errorf("state directory was made: %v", err)
	}
	for _, name := range []string{"run", "enroll"} {
		if left, err := os.ReadDir(filepath.Join(p.root, name)); err != nil || len(left) != 0 {
			t.Errorf("left in %s: %v, %v", name, left, err)
		}
	}
}

func TestBadInputLeavesNothingHalfStarted(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	tests := []struct {
		name   string
		change func(t *testing.T, p *place) (more string)
		want   string
	}{
		{"nodes port in use", func(_ *testing.T, p *place) string { p.nodes = taken.Addr().String(); return "" }, "nodes.listen"},
		{"people port in use", func(_ *testing.T, p *place) string { p.people = taken.Addr().String(); return "" }, "people.listen"},
		{"unknown key", func(*testing.T, *place) string { return "colour: red" }, `unknown key "colour"`},
		{"retention too short", func(*testing.T, *place) string { return "retention: {max_age: 1s}" }, "retention.max_age"},
		{"no enroll directory", func(t *testing.T, p *place) string {
			if err := os.Remove(filepath.Join(p.root, "enroll")); err != nil {
				t.Fatal(err)
			}
			return ""
		}, "enroll.directory"},
	}
	for _, tt := range tests {
		for _, check := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/check %v", tt.name, check), func(t *testing.T) {
				p := newPlace(t)
				more := tt.change(t, &p)
				arguments := p.arguments(t, more)
				if check {
					arguments = append(arguments, "-check")
				}
				err := run(t.Context(), environment(arguments, io.Discard))
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("run error = %v, want it to name %s", err, tt.want)
				}
				if err := os.MkdirAll(filepath.Join(p.root, "enroll"), 0o750); err != nil {
					t.Fatal(err)
				}
				p.wantUntouched(t)
			})
		}
	}
}

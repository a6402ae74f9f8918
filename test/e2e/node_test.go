package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/containerdtest"
	"github.com/palisade-sec/palisade/internal/loopbacktest"
)

// node is a running `palisade up`.
type node struct {
	t          *testing.T
	containerd *containerdtest.Daemon
	docker     string // Docker's socket, if the node has one of the test's
	run        string // directory of sockets
	bin        string // its own copies of the binaries
	state      string
	nodes      string   // address of 8084
	people     string   // address of 8083
	ephemeral  bool     // state is thrown away
	words      []string // more words for `palisade up`
	up         *exec.Cmd
	ended      chan struct{}
	stdout     *output
	stderr     *output
}

// output collects what a process writes; tests read it while it runs.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// layNode prepares directories and ports for a node without starting it.
func layNode(t *testing.T) *node {
	t.Helper()
	return layNodeOn(t, containerdtest.Start(t)) // skips without root, containerd or runC
}

// layNodeOn is layNode for a containerd that runs already.
func layNodeOn(t *testing.T, daemon *containerdtest.Daemon) *node {
	t.Helper()
	top, err := os.MkdirTemp("/run", "palisade-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(top, 0o755); err != nil {
		t.Fatal(err)
	}
	n := &node{
		t: t, containerd: daemon, run: filepath.Join(top, filepath.Base(top)), bin: filepath.Join(top, "bin"), state: filepath.Join(top, "state"),
		nodes: loopbacktest.Address(t), people: loopbacktest.Address(t), stdout: &output{}, stderr: &output{},
	}
	copyBinaries(t, n.bin)
	t.Cleanup(func() { os.RemoveAll(top) })
	t.Cleanup(n.remove)
	return n
}

// startNode starts a node and waits until all its processes are healthy.
func startNode(t *testing.T, env ...string) *node {
	t.Helper()
	n := layNode(t)
	n.start(env...)
	t.Cleanup(n.stop)
	return n
}

func (n *node) start(env ...string) {
	n.t.Helper()
	n.up = exec.Command(filepath.Join(n.bin, "palisade"), n.upArguments()...)
	n.up.Env = append(os.Environ(), env...)
	n.up.Stdout, n.up.Stderr = n.stdout, n.stderr
	if err := n.up.Start(); err != nil {
		n.t.Fatal(err)
	}
	ended := make(chan struct{})
	n.ended = ended
	go func() { _ = n.up.Wait(); close(ended) }()
	ready := regexp.MustCompile(`Palisade is up: (\d) of (\d) processes healthy`)
	if !eventually(40*time.Second, func() bool { return ready.MatchString(n.stderr.String()) || n.hasEnded() }) {
		n.t.Fatalf("node did not come up:\n%s", n.stderr)
	}
	if m := ready.FindStringSubmatch(n.stderr.String()); m == nil || m[1] != m[2] {
		n.t.Fatalf("not every process is healthy:\n%s", n.stderr)
	}
}

func (n *node) upArguments() []string {
	state := []string{"--state", n.state}
	if n.ephemeral {
		state = []string{"--ephemeral"}
	}
	if n.docker != "" {
		state = append(state, "--docker-socket", n.docker)
	}
	return append(append([]string{
		"up", "--run", n.run, "--containerd-socket", n.containerd.Socket,
		"--nodes-listen", n.nodes, "--people-listen", n.people, "--node-name", "e2e-node",
	}, state...), n.words...)
}

func (n *node) hasEnded() bool {
	select {
	case <-n.ended:
		return true
	default:
		return false
	}
}

// stop is Ctrl-C.
func (n *node) stop() {
	n.t.Helper()
	if n.hasEnded() {
		return
	}
	_ = n.up.Process.Signal(syscall.SIGINT)
	if !eventually(20*time.Second, n.hasEnded) {
		_ = n.up.Process.Kill()
		n.t.Errorf("node did not stop:\n%s", tail(n.stderr.String(), 20))
		return
	}
	if code := n.up.ProcessState.ExitCode(); code != 0 {
		n.t.Errorf("palisade up ended with exit code %d:\n%s", code, tail(n.stderr.String(), 20))
	}
	if n.t.Failed() {
		n.t.Logf("the node said:\n%s", tail(n.stderr.String(), 40))
	}
}

// remove takes away what a node that was killed has left; one that was stopped has left nothing.
func (n *node) remove() {
	if n.ephemeral {
		return // it has no state directory to be named
	}
	if out, err := exec.Command(filepath.Join(n.bin, "palisade"), "remove", "--run", n.run, "--state", n.state).CombinedOutput(); err != nil {
		n.t.Errorf("palisade remove: %v: %s", err, out)
	}
}

// password is what the console told at its first start.
func (n *node) password() string {
	n.t.Helper()
	m := regexp.MustCompile(`login +admin / (\S+)`).FindStringSubmatch(n.stderr.String())
	if m == nil {
		n.t.Fatalf("no password in what palisade up said:\n%s", n.stderr)
	}
	return m[1]
}

// palisade runs a command against the node and returns its standard output and exit code.
func (n *node) palisade(args ...string) (stdout string, code int) {
	n.t.Helper()
	cmd := exec.Command(filepath.Join(n.bin, "palisade"), append(args, "--run", n.run)...)
	var out, diagnostics bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diagnostics
	err := cmd.Run()
	if cmd.ProcessState == nil {
		n.t.Fatalf("palisade %v: %v", args, err)
	}
	if err != nil {
		n.t.Logf("palisade %v: %v: %s", args, err, diagnostics.String())
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// process is what `palisade status -o json` says of one.
type process struct {
	Process string `json:"process"`
	Healthy bool   `json:"healthy"`
	PID     int    `json:"pid"`
}

// processes returns the node's processes by name; those that do not answer have pid 0.
func (n *node) processes() map[string]process {
	n.t.Helper()
	out, _ := n.palisade("status", "-o", "json")
	var list []process
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		n.t.Fatalf("palisade status -o json: %v: %q", err, out)
	}
	byName := map[string]process{}
	for _, p := range list {
		byName[p.Process] = p
	}
	return byName
}

// demoReport is what `palisade demo -o json` prints.
type demoReport struct {
	ContainerID string `json:"container_id"`
	Image       string `json:"image"`
	Attacks     []struct {
		Rule      string `json:"rule"`
		Seen      bool   `json:"seen"`
		FindingID string `json:"finding_id"`
		Killed    bool   `json:"killed"`
		ExitCode  int    `json:"exit_code"`
	} `json:"attacks"`
	StillRunning bool `json:"still_running"`
}

func (n *node) demo() demoReport {
	n.t.Helper()
	out, code := n.palisade("demo", "-o", "json", "--containerd-socket", n.containerd.Socket)
	var report demoReport
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != 0 {
		n.t.Fatalf("palisade demo: exit code %d, %v: %s\nthe node said:\n%s", code, err, out, tail(n.stderr.String(), 30))
	}
	return report
}

// copyBinaries copies what make build made, so that a test can take a binary away without taking it from the others.
func copyBinaries(t *testing.T, to string) {
	t.Helper()
	from := os.Getenv("PALISADE_BIN")
	if from == "" {
		from = "../../bin"
	}
	if _, err := os.Stat(filepath.Join(from, "palisade")); err != nil {
		t.Fatalf("no binaries: run make build: %v", err)
	}
	binaries, err := filepath.Glob(filepath.Join(from, "palisade*")) // what else is there is large, and no part of a node
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, binary := range binaries {
		raw, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(binary)), raw, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

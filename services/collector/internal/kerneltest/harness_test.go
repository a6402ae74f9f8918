package kerneltest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
	"github.com/palisade-sec/palisade/services/collector/internal/ring"
)

// patience is how long an event may take on a loaded machine before the test gives up; a VM's processor is emulated.
const patience = 30 * time.Second

// roleVariable makes the test binary play a role instead of testing.
const roleVariable = "PALISADE_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role))
	}
	code := m.Run()
	if err := shared.close(); err != nil {
		code = fails(fmt.Errorf("close the shared set: %w", err))
	}
	os.Exit(code)
}

// tierVariable is set where the kernel must allow a certain tier.
const tierVariable = "PALISADE_TEST_WANT_TIER"

// watcher keeps the events of a running set of probes.
type watcher struct {
	set    *probe.Set
	reader *ring.Reader
	// lostBefore is what the set's counters said when it was borrowed.
	lostBefore [record.Kinds]uint64

	mu      sync.Mutex
	changed chan struct{}
	events  []*eventv1.Event
	// family is this process and what it started; what others on the machine do is not kept.
	family map[uint32]bool
}

// watch borrows the shared set and collects what it says until the test ends.
func watch(t *testing.T) *watcher {
	t.Helper()
	w := borrow(t)
	w.start(t)
	return w
}

// loadWith loads a set that is the test's own.
func loadWith(t *testing.T, cfg probe.Config) *watcher {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	set, err := probe.Load(cfg)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	t.Cleanup(func() {
		if err := set.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	w := newWatcher(set)
	w.checkTier(t)
	return w
}

func (w *watcher) checkTier(t *testing.T) {
	t.Helper()
	if want := os.Getenv(tierVariable); want != "" && string(w.set.Tier()) != want {
		t.Errorf("tier = %s, want %s: %v", w.set.Tier(), want, w.set.Worse())
	}
}

func newWatcher(set *probe.Set) *watcher {
	return &watcher{set: set, changed: make(chan struct{}), family: map[uint32]bool{uint32(os.Getpid()): true}}
}

func (w *watcher) start(t *testing.T) {
	t.Helper()
	reader, err := ring.NewReader(w.set, decoder(), w.publish)
	if err != nil {
		t.Fatal(err)
	}
	w.reader = reader
	t.Cleanup(startReader(t, reader))
}

// startReader starts a reader. stop ends it, which it must survive without a record that it cannot decode.
func startReader(t *testing.T, reader *ring.Reader) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- reader.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ring: %v", err)
		}
		if malformed := reader.Counts().Malformed; malformed != 0 {
			t.Errorf("%d malformed records, want none", malformed)
		}
		if err := reader.Close(); err != nil {
			t.Errorf("Close ring: %v", err)
		}
	}
}

func decoder() record.Decoder {
	return record.NewDecoder(time.Now().Add(-time.Duration(ring.Boottime())))
}

func (w *watcher) publish(_ context.Context, events []*eventv1.Event, done func()) error {
	defer done()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, event := range events {
		if w.family[event.GetProcess().GetPid()] || w.family[event.GetParent().GetPid()] {
			w.family[event.GetProcess().GetPid()] = true
			w.events = append(w.events, event)
		}
		if child := event.GetFork().GetChild(); child != nil && w.family[event.GetProcess().GetPid()] {
			w.family[child.GetPid()] = true
		}
	}
	close(w.changed)
	w.changed = make(chan struct{})
	return nil
}

// await returns the first event that matches, waiting for it.
func (w *watcher) await(t *testing.T, what string, match func(*eventv1.Event) bool) *eventv1.Event {
	t.Helper()
	deadline := time.After(patience)
	seen := 0
	for {
		w.mu.Lock()
		events, changed := w.events, w.changed
		w.mu.Unlock()
		for _, event := range events[seen:] {
			if match(event) {
				return event
			}
		}
		seen = len(events)
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("no event: %s, among %d (lost %v): %v", what, seen, w.lost(t), byClass(events))
		}
	}
}

// lost counts, by kind, the records that were lost or dropped since the test has the set, whoever's they are.
func (w *watcher) lost(t *testing.T) [record.Kinds]uint64 {
	t.Helper()
	lost, err := w.set.Lost()
	if err != nil {
		t.Error(err)
	}
	for kind, before := range w.lostBefore {
		lost[kind] -= before
	}
	return lost
}

// byClass says what there was.
func byClass(events []*eventv1.Event) map[string]int {
	classes := map[string]int{}
	for _, event := range events {
		classes[classOf(event)]++
	}
	return classes
}

// count counts the events so far that match.
func (w *watcher) count(match func(*eventv1.Event) bool) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, event := range w.events {
		if match(event) {
			n++
		}
	}
	return n
}

// actor is a command that plays a role with arguments.
func actor(t *testing.T, role string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	// Without the second one, a program built with -race sleeps for a second before it exits.
	cmd.Env = append(os.Environ(), roleVariable+"="+role, "GORACE=atexit_sleep_ms=0")
	return cmd
}

// perform runs an actor to its end, which must be good, and returns its pid and what it printed.
func perform(t *testing.T, role string, args ...string) (pid uint32, output string) {
	t.Helper()
	cmd := actor(t, role, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("role %s: %v: %s", role, err, out)
	}
	return uint32(cmd.Process.Pid), strings.TrimSpace(string(out))
}

func isExec(pid uint32) func(*eventv1.Event) bool {
	return func(e *eventv1.Event) bool { return e.GetExec() != nil && e.GetProcess().GetPid() == pid }
}

// isOpen matches an open of a file by its inode, whatever the path looks like.
func isOpen(pid uint32, inode uint64) func(*eventv1.Event) bool {
	return func(e *eventv1.Event) bool {
		return e.GetFileOpen() != nil && e.GetProcess().GetPid() == pid && e.GetFileOpen().GetFile().GetInode() == inode
	}
}

func fails(err error) int {
	fmt.Println(err)
	return 1
}

// talker is an actor that is spoken with by lines.
type talker struct {
	pid    int
	cmd    *exec.Cmd
	input  io.WriteCloser
	output *bufio.Reader
	ended  bool
}

// talk starts an actor, which does not outlive the test.
func talk(t *testing.T, cmd *exec.Cmd) *talker {
	t.Helper()
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a := &talker{pid: cmd.Process.Pid, cmd: cmd, input: input, output: bufio.NewReader(output)}
	t.Cleanup(func() {
		if !a.ended {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return a
}

func (a *talker) expect(t *testing.T, want string) {
	t.Helper()
	if line, err := a.output.ReadString('\n'); strings.TrimSpace(line) != want {
		t.Fatalf("actor said %q (%v), want %q", line, err, want)
	}
}

func (a *talker) say(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(a.input, line+"\n"); err != nil {
		t.Fatal(err)
	}
}

// end closes the actor's input, after which it must end well.
func (a *talker) end(t *testing.T) {
	t.Helper()
	a.ended = true
	_ = a.input.Close()
	if err := a.cmd.Wait(); err != nil {
		t.Fatalf("actor: %v", err)
	}
}

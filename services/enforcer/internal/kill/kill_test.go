package kill

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/services/enforcer/internal/audit"
)

// helperVariable makes the test binary a victim instead.
const helperVariable = "PALISADE_KILL_VICTIM"

func TestMain(m *testing.M) {
	switch os.Getenv(helperVariable) {
	case "":
		os.Exit(m.Run())
	case "headless":
		go endFirstThread()
	}
	os.Stdout.WriteString("ready\n")
	select {}
}

// endFirstThread ends the thread whose id is the process's, and no other.
func endFirstThread() {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		go endFirstThread()
		time.Sleep(time.Millisecond) // keeps this thread busy, so that the next goroutine gets another
		return
	}
	_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
}

// victim starts a process, in its own pid namespace if nested, and returns it with its start time.
func victim(t *testing.T, mode string, nested bool) (*exec.Cmd, uint64) {
	t.Helper()
	if nested && os.Getuid() != 0 {
		t.Skip("a new pid namespace needs root")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperVariable+"="+mode)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if nested {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWPID
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatalf("victim did not start: %v", err)
	}
	id, err := readIdentity(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, id.startTicks*tickNs + tickNs/2
}

// memory is an audit log that can be full, and that looks at the victim while it writes.
type memory struct {
	mu      sync.Mutex
	full    error
	look    func(audit.Record)
	records []audit.Record
}

func (m *memory) Append(r audit.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.look != nil {
		m.look(r)
	}
	if m.full != nil {
		return m.full
	}
	m.records = append(m.records, r)
	return nil
}

func (m *memory) phases() []audit.Phase {
	m.mu.Lock()
	defer m.mu.Unlock()
	var phases []audit.Phase
	for _, r := range m.records {
		phases = append(phases, r.Phase)
	}
	return phases
}

func newKiller(t *testing.T, auditor Auditor, change func(*Config), options ...Option) *Killer {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Confirm = 5 * time.Second
	if change != nil {
		change(&cfg)
	}
	k, err := New(cfg, auditor, slog.New(slog.DiscardHandler), options...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *Killer) accuse(pid int, start uint64) Request {
	return Request{BootID: k.bootID, PID: uint32(pid), StartBoottimeNs: start, Rule: "shell in container", FindingID: "f1"}
}

// alive asks the kernel, through a pidfd: a zombie is not alive.
func alive(t *testing.T, pid int) bool {
	t.Helper()
	fd, err := openPidfd(pid)
	if err != nil {
		return false
	}
	defer fd.Close()
	dead, err := fd.exited(0)
	if err != nil {
		t.Fatal(err)
	}
	return !dead
}

func (r Result) is(outcome Outcome, reason Reason, detail string) bool {
	return r.Outcome == outcome && r.Reason == reason && strings.Contains(r.Detail, detail)
}

func TestKillEndsExactlyTheAccusedContainerProcess(t *testing.T) {
	bystander, _ := victim(t, "sleep", true)
	target, start := victim(t, "sleep", true)
	log := &memory{}
	log.look = func(r audit.Record) {
		if got, want := alive(t, target.Process.Pid), r.Phase == audit.PhaseBefore; got != want {
			t.Errorf("while the %q record is written: alive = %v, want %v", r.Phase, got, want)
		}
	}
	k := newKiller(t, log, nil)
	if got := k.Kill(k.accuse(target.Process.Pid, start)); !got.is(Done, "", "killed") {
		t.Fatalf("Kill = %+v, want done", got)
	}
	if alive(t, target.Process.Pid) || !alive(t, bystander.Process.Pid) {
		t.Error("want the accused process dead and the other one alive")
	}
	want := []audit.Record{
		{Phase: audit.PhaseBefore, Act: "kill", Comm: "exe", PID: uint32(target.Process.Pid), StartBoottimeNs: start, Rule: "shell in container", FindingID: "f1"},
		{Phase: audit.PhaseAfter, Outcome: "done", Detail: "killed", Act: "kill", Comm: "exe", PID: uint32(target.Process.Pid), StartBoottimeNs: start, Rule: "shell in container", FindingID: "f1"},
	}
	if diff := cmp.Diff(want, log.records, cmpopts.IgnoreFields(audit.Record{}, "Time")); diff != "" {
		t.Errorf("audit log (-want +got):\n%s", diff)
	}
	if got := k.Kill(k.accuse(target.Process.Pid, start)); !got.is(Gone, ReasonGone, "") {
		t.Errorf("second Kill, of a zombie = %+v, want gone", got)
	}
}

// A process whose first thread has ended is a zombie to /proc/<pid>/stat and to ps, and goes on in its other threads.
func TestKillEndsAProcessThatLooksLikeAZombie(t *testing.T) {
	target, start := victim(t, "headless", true)
	for deadline := time.Now().Add(5 * time.Second); ; {
		stat, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(target.Process.Pid), "stat"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(stat[strings.LastIndexByte(string(stat), ')'):]), ") Z ") {
			break
		}
		if time.Now().After(deadline) {
			t.Skip("the Go runtime did not give the first thread to a goroutine")
		}
		time.Sleep(time.Millisecond)
	}
	if !alive(t, target.Process.Pid) {
		t.Fatal("victim has ended, want only its first thread to")
	}
	k := newKiller(t, &memory{}, nil)
	if got := k.Kill(k.accuse(target.Process.Pid, start)); !got.is(Done, "", "killed") || alive(t, target.Process.Pid) {
		t.Errorf("Kill = %+v, want done, and the process dead", got)
	}
}

func TestKillRefuses(t *testing.T) {
	nested, start := victim(t, "sleep", true)
	onHost, hostStart := victim(t, "sleep", false)
	kthreadd, err := readIdentity(2)
	if err != nil {
		t.Skipf("no kernel thread is visible: %v", err)
	}
	log := &memory{}
	k := newKiller(t, log, nil)
	self, err := readIdentity(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	with := func(req Request, change func(*Request)) Request { change(&req); return req }
	tests := []struct {
		name   string
		req    Request
		reason Reason
		detail string
	}{
		{"the pid given to another process", k.accuse(nested.Process.Pid, start-3*tickNs), ReasonIdentity, "another process"},
		{"one tick later", k.accuse(nested.Process.Pid, start+tickNs), ReasonIdentity, "another process"},
		{"another boot", with(k.accuse(nested.Process.Pid, start), func(r *Request) { r.BootID = "0" }), ReasonRequest, "another boot"},
		{"no start time", k.accuse(nested.Process.Pid, 0), ReasonRequest, "no start time"},
		{"no pid", k.accuse(0, start), ReasonRequest, "names no process"},
		{"negative pid", with(k.accuse(0, start), func(r *Request) { r.PID = ^uint32(0) }), ReasonRequest, "names no process"},
		{"no rule", with(k.accuse(nested.Process.Pid, start), func(r *Request) { r.Rule = "" }), ReasonRequest, "no rule"},
		{"process on the host", k.accuse(onHost.Process.Pid, hostStart), ReasonProtected, "host's pid namespace"},
		{"caller", with(k.accuse(nested.Process.Pid, start), func(r *Request) { r.PeerPID = r.PID }), ReasonProtected, "caller"},
		{"enforcer", k.accuse(self.pid, self.startTicks*tickNs), ReasonProtected, "enforcer itself"},
		{"kernel thread", k.accuse(2, max(kthreadd.startTicks, 1)*tickNs), ReasonProtected, "kernel thread"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := k.Kill(tt.req); !got.is(Refused, tt.reason, tt.detail) {
				t.Errorf("Kill = %+v, want refused, %s: %s", got, tt.reason, tt.detail)
			}
		})
	}
	if !alive(t, nested.Process.Pid) || !alive(t, onHost.Process.Pid) {
		t.Error("a refused request killed")
	}
	if got := log.phases(); slices.Contains(got, audit.PhaseBefore) || len(got) != len(tests) {
		t.Errorf("audit log has phases %v, want %d refusals", got, len(tests))
	}
}

func TestKillOnTheHostIfAllowed(t *testing.T) {
	target, start := victim(t, "sleep", false)
	k := newKiller(t, &memory{}, func(c *Config) { c.AllowHost = true })
	if got := k.Kill(k.accuse(target.Process.Pid, start)); !got.is(Done, "", "killed") {
		t.Errorf("Kill = %+v, want done", got)
	}
}

func TestKillOfNobody(t *testing.T) {
	target, start := victim(t, "sleep", true)
	_ = target.Process.Kill()
	_ = target.Wait()
	log := &memory{}
	k := newKiller(t, log, nil)
	const beyondPIDMax = 4 << 20
	for _, pid := range []int{target.Process.Pid, beyondPIDMax} {
		if got := k.Kill(k.accuse(pid, start)); !got.is(Gone, ReasonGone, "") {
			t.Errorf("Kill of pid %d = %+v, want gone", pid, got)
		}
	}
}

// A thread's id opens no process, so a request cannot reach a process by another number than its pid.
func TestKillByThreadID(t *testing.T) {
	target, start := victim(t, "sleep", true)
	tasks, err := os.ReadDir(filepath.Join(proc, strconv.Itoa(target.Process.Pid), "task"))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("victim has %d threads, want several: %v", len(tasks), err)
	}
	k := newKiller(t, &memory{}, nil)
	for _, task := range tasks[1:] {
		req := k.accuse(target.Process.Pid, start)
		req.PID = parsePID(t, task.Name())
		if got := k.Kill(req); got.Outcome != Gone {
			t.Errorf("Kill of thread %s = %+v, want gone", task.Name(), got)
		}
	}
	if !alive(t, target.Process.Pid) {
		t.Error("a thread's id killed the process")
	}
}

func TestKillWithoutARecordDoesNotHappen(t *testing.T) {
	target, start := victim(t, "sleep", true)
	log := &memory{full: errors.New("no space left on device")}
	k := newKiller(t, log, nil)
	if got := k.Kill(k.accuse(target.Process.Pid, start)); !got.is(Failed, ReasonAudit, "no space left") {
		t.Errorf("Kill = %+v, want failed for want of a record", got)
	}
	if !alive(t, target.Process.Pid) {
		t.Error("killed without a record")
	}
}

// The same with a real log on a file system that is full.
func TestKillWithTheDiskFull(t *testing.T) {
	target, start := victim(t, "sleep", true)
	directory := t.TempDir()
	if err := unix.Mount("tmpfs", directory, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mount a small file system: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(directory, unix.MNT_DETACH) })
	log, err := audit.Open(audit.Config{Path: filepath.Join(directory, "audit.log"), MaxBytes: 1 << 20, Keep: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	filler := filepath.Join(directory, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill the file system: %v, want ENOSPC", err)
	}
	k := newKiller(t, log, nil)
	if got := k.Kill(k.accuse(target.Process.Pid, start)); !got.is(Failed, ReasonAudit, "no space left") || !alive(t, target.Process.Pid) {
		t.Fatalf("Kill on a full disk = %+v, want failed, and the process alive", got)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if got := k.Kill(k.accuse(target.Process.Pid, start)); !got.is(Done, "", "") || alive(t, target.Process.Pid) {
		t.Errorf("Kill with room again = %+v, want done", got)
	}
}

func TestKillWithinBudgets(t *testing.T) {
	now := time.Now()
	clock := WithClock(func() time.Time { return now })
	k := newKiller(t, &memory{}, func(c *Config) { c.PerRule, c.Total = 2, 3 }, clock)
	try := func(rule string) Result {
		target, start := victim(t, "sleep", true)
		req := k.accuse(target.Process.Pid, start)
		req.Rule = rule
		got := k.Kill(req)
		if alive(t, target.Process.Pid) != (got.Outcome == Refused) {
			t.Errorf("rule %s: Kill = %+v, and the process's life says otherwise", rule, got)
		}
		return got
	}
	steps := []struct {
		rule   string
		after  time.Duration
		reason Reason
		detail string
	}{
		{rule: "a"}, {rule: "a"},
		{rule: "a", reason: ReasonBudget, detail: "of the rule"},
		{rule: "b"},
		{rule: "b", reason: ReasonBudget, detail: "of the node"},
		{rule: "a", after: 30 * time.Second},
		{rule: "b", reason: ReasonBudget, detail: "of the node"},
		{rule: "b", after: 20 * time.Second},
	}
	for i, step := range steps {
		now = now.Add(step.after)
		if got := try(step.rule); got.Reason != step.reason || !strings.Contains(got.Detail, step.detail) {
			t.Errorf("step %d, rule %s: Kill = %+v, want reason %q (%s)", i, step.rule, got, step.reason, step.detail)
		}
	}
}

// Accusations of nobody are cheap to make; they must not push acts out of a bounded log.
func TestKillCountsRefusalsInsteadOfRecordingThemAll(t *testing.T) {
	now := time.Now()
	log := &memory{}
	k := newKiller(t, log, nil, WithClock(func() time.Time { return now }))
	for range 1000 {
		k.Kill(Request{})
	}
	if got := len(log.phases()); got != 100 {
		t.Fatalf("1000 refusals at once: %d records, want 100", got)
	}
	now = now.Add(time.Second)
	k.Kill(Request{})
	if got := log.records[100].Suppressed; got != 900 {
		t.Errorf("next record says %d suppressed, want 900", got)
	}
}

func parsePID(t *testing.T, s string) uint32 {
	t.Helper()
	pid, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(pid)
}

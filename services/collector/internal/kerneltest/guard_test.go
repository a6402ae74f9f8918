package kerneltest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/guard"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// tries is how often a forbidden thing is tried.
func tries() int { return scaled(10_000) }

// forbidden are guards on everybody, by what a role tries against them.
func forbidden(t *testing.T, dir string) []*collectorv1.Guard {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "denied-program"), &st); err != nil {
		t.Fatal(err)
	}
	device := unix.Major(st.Dev)<<20 | unix.Minor(st.Dev)
	return []*collectorv1.Guard{
		{Id: 11, Subject: &collectorv1.Guard_ExecFile{ExecFile: &collectorv1.FileIdentity{Device: device, Inode: st.Ino}}},
		{Id: 12, Subject: &collectorv1.Guard_ExecPrefix{ExecPrefix: dir + "/denied-dir/"}},
		{Id: 13, Subject: &collectorv1.Guard_ExecProperty{ExecProperty: collectorv1.ExecProperty_EXEC_PROPERTY_MEMFD}},
		{Id: 14, Subject: &collectorv1.Guard_WritePrefix{WritePrefix: dir + "/precious"}},
		{Id: 15, Subject: &collectorv1.Guard_Connect{Connect: &collectorv1.Network{Cidr: "127.66.0.0/16", Port: 4444}}},
	}
}

// guarded is a watched kernel with the guards in force, and the directory they are about.
func guarded(t *testing.T) (w *watcher, dir string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "denied-dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"denied-program", "allowed-program", "denied-dir/program"} {
		if err := os.WriteFile(filepath.Join(dir, name), program, 0o755); err != nil { //nolint:gosec // to be executed
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "precious"), []byte("as it was"), 0o600); err != nil {
		t.Fatal(err)
	}
	w = watch(t)
	if _, err := guard.NewTable(w.set.Guards()).Apply(forbidden(t, dir)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := guard.NewTable(w.set.Guards()).Apply(nil); err != nil {
			t.Error(err)
		}
	})
	return w, dir
}

// attempts are what the role "forbidden" does; each returns whether it got through.
var attempts = map[string]func(dir string) bool{
	"exec by identity": func(dir string) bool { return runs(filepath.Join(dir, "denied-program")) },
	"exec by path":     func(dir string) bool { return runs(filepath.Join(dir, "denied-dir", "program")) },
	"write":            func(dir string) bool { return opens(filepath.Join(dir, "precious"), unix.O_WRONLY) },
	"append":           func(dir string) bool { return opens(filepath.Join(dir, "precious"), unix.O_RDWR|unix.O_APPEND) },
	"create":           func(dir string) bool { return opens(filepath.Join(dir, "precious-too"), unix.O_CREAT|unix.O_WRONLY) },
	"rename": func(dir string) bool {
		return unix.Rename(filepath.Join(dir, "precious"), filepath.Join(dir, "other")) == nil
	},
	"rename onto it": func(dir string) bool {
		return unix.Rename(filepath.Join(dir, "allowed-program"), filepath.Join(dir, "precious")) == nil
	},
	"remove":   func(dir string) bool { return unix.Unlink(filepath.Join(dir, "precious")) == nil },
	"truncate": func(dir string) bool { return unix.Truncate(filepath.Join(dir, "precious"), 0) == nil },
	"second name": func(dir string) bool {
		return unix.Link(filepath.Join(dir, "precious"), filepath.Join(dir, "alias")) == nil
	},
	"connect": func(string) bool { return dials("127.66.0.1:4444") },
	"send":    func(string) bool { return sends(&unix.SockaddrInet4{Port: 4444, Addr: [4]byte{127, 66, 0, 2}}) },
}

func runs(path string) bool {
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), roleVariable+"=nothing")
	return cmd.Run() == nil
}

func opens(path string, flags int) bool {
	fd, err := unix.Open(path, flags, 0o600)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err == nil
}

func dials(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

func sends(to unix.Sockaddr) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, []byte("x"), 0, to) == nil
}

// tryForbidden is the role: args are an attempt, a directory and how often. It says how often it got through.
func tryForbidden(args []string) error {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	through := 0
	for range n {
		if attempts[args[0]](args[1]) {
			through++
		}
	}
	_, err = os.Stdout.WriteString(strconv.Itoa(through))
	return err
}

// TestGuardsDeny tries everything that is forbidden, in the tiers that can deny.
func TestGuardsDeny(t *testing.T) {
	w, dir := guarded(t)
	if !w.set.Tier().CanDeny() {
		t.Skipf("tier %s kills instead: see TestGuardsKill", w.set.Tier())
	}
	listener, err := net.Listen("tcp", "127.66.0.1:4444")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for name := range attempts {
		t.Run(name, func(t *testing.T) {
			if pid, out := perform(t, "forbidden", name, dir, "3"); out != "0" {
				t.Errorf("got through %s of 3 times (pid %d)", out, pid)
			}
		})
	}
	if raw, err := os.ReadFile(filepath.Join(dir, "precious")); string(raw) != "as it was" {
		t.Errorf("the guarded file holds %q, %v", raw, err)
	}
	// What no guard names goes on.
	if !runs(filepath.Join(dir, "allowed-program")) || !opens(filepath.Join(dir, "harmless"), unix.O_CREAT|unix.O_WRONLY) {
		t.Error("what no guard names was denied")
	}
	if !opens(filepath.Join(dir, "precious"), unix.O_RDONLY) {
		t.Error("reading was denied by a guard on writing")
	}
}

// TestGuardsHoldUnderManyTries counts: nothing gets through, and every denial is told or counted.
func TestGuardsHoldUnderManyTries(t *testing.T) {
	w, dir := guarded(t)
	if !w.set.Tier().CanDeny() {
		t.Skipf("tier %s kills instead", w.set.Tier())
	}
	for _, tt := range []struct {
		attempt, class string
		guard          uint32
	}{{"exec by identity", "exec_failed", 11}, {"write", "file_open", 14}, {"connect", "connect", 15}} {
		t.Run(tt.attempt, func(t *testing.T) {
			pid, through := perform(t, "forbidden", tt.attempt, dir, strconv.Itoa(tries()))
			if through != "0" {
				t.Errorf("%s of %d got through", through, tries())
			}
			ours := func(e *eventv1.Event) bool {
				parent := tt.class == "exec_failed" && e.GetParent().GetPid() == pid
				return e.GetGuard() == tt.guard && classOf(e) == tt.class && (e.GetProcess().GetPid() == pid || parent)
			}
			got := func() int { return w.count(ours) + int(short(t, w, tt.class)) }
			for deadline := time.Now().Add(patience); got() < tries() && time.Now().Before(deadline); {
				time.Sleep(50 * time.Millisecond)
			}
			if got() != tries() {
				t.Errorf("%d denials told or counted, want %d", got(), tries())
			}
			denial := w.await(t, "denial", ours)
			if denial.GetResult() != -int64(unix.EPERM) || !denial.GetResultKnown() || denial.GetKilled() {
				t.Errorf("denial = %v, want EPERM", denial)
			}
		})
	}
}

// short counts what of a class was lost or dropped.
func short(t *testing.T, w *watcher, class string) uint64 {
	t.Helper()
	lost, err := w.set.Lost()
	if err != nil {
		t.Fatal(err)
	}
	return lost[record.KindOfClass(class)]
}

// TestGuardsKill is what the tier does that cannot deny: who passes a guard is dead before it can use what it got.
func TestGuardsKill(t *testing.T) {
	w, dir := guarded(t)
	if w.set.Tier().CanDeny() {
		t.Skipf("tier %s denies", w.set.Tier())
	}
	listener, err := net.Listen("tcp", "127.66.0.1:4444")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for attempt, want := range map[string]struct {
		class string
		guard uint32
	}{"write": {"file_open", 14}, "append": {"file_open", 14}, "connect": {"connect", 15}} {
		t.Run(attempt, func(t *testing.T) {
			cmd := actor(t, "forbidden", attempt, dir, "1")
			out, err := cmd.CombinedOutput()
			status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if err == nil || !ok || status.Signal() != unix.SIGKILL {
				t.Fatalf("ended with %v (%s), want SIGKILL", err, out)
			}
			event := w.await(t, "kill", func(e *eventv1.Event) bool {
				return e.GetGuard() == want.guard && e.GetProcess().GetPid() == uint32(cmd.Process.Pid) && classOf(e) == want.class
			})
			if !event.GetKilled() || event.GetRing() != 1 {
				t.Errorf("event = %v, want killed, on the urgent ring", event)
			}
		})
	}
	for _, program := range []string{"denied-program", "denied-dir/program"} {
		cmd := exec.Command(filepath.Join(dir, program))
		cmd.Env = append(os.Environ(), roleVariable+"=exit-3")
		if err := cmd.Run(); cmd.ProcessState.ExitCode() != -1 {
			t.Errorf("%s: %v, want killed before its first instruction", program, err)
		}
	}
	if raw, _ := os.ReadFile(filepath.Join(dir, "precious")); string(raw) != "as it was" {
		t.Errorf("the guarded file holds %q", raw)
	}
	if !runs(filepath.Join(dir, "allowed-program")) {
		t.Error("what no guard names was killed")
	}
}

// A guard on one cgroup leaves the others alone, and holds for the cgroups below it.
func TestGuardsKnowWhoseTheyAre(t *testing.T) {
	w, dir := guarded(t)
	parent, child := scratchCgroups(t)
	guards := []*collectorv1.Guard{{Id: 21, CgroupId: cgroupID(t, parent), Subject: &collectorv1.Guard_WritePrefix{WritePrefix: dir + "/precious"}}}
	if _, err := guard.NewTable(w.set.Guards()).Apply(guards); err != nil {
		t.Fatal(err)
	}
	if !opens(filepath.Join(dir, "precious"), unix.O_WRONLY) {
		t.Error("a process outside the guard's cgroup was denied")
	}
	cmd := actor(t, "forbidden", "write", dir, "1")
	group, err := os.Open(child)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	out, err := cmd.CombinedOutput()
	if w.set.Tier().CanDeny() && (err != nil || strings.TrimSpace(string(out)) != "0") {
		t.Errorf("in a cgroup below the guard's: %q, %v, want denied", out, err)
	}
	if !w.set.Tier().CanDeny() && err == nil {
		t.Errorf("in a cgroup below the guard's: %q, want killed", out)
	}
}

// scratchCgroups makes a cgroup and one in it, in the cgroup2 hierarchy.
func scratchCgroups(t *testing.T) (parent, child string) {
	t.Helper()
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
		root = filepath.Join(root, "unified")
	}
	parent = filepath.Join(root, "palisade-kerneltest-"+strconv.Itoa(os.Getpid()))
	child = filepath.Join(parent, "below")
	for _, path := range []string{parent, child} {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Skipf("no cgroup2 hierarchy to make a cgroup in: %v", err)
		}
		t.Cleanup(func() {
			if err := os.Remove(path); err != nil {
				t.Errorf("remove cgroup: %v", err)
			}
		})
	}
	return parent, child
}

// cgroupID is the inode of the directory (kernfs_node.id).
func cgroupID(t *testing.T, path string) uint64 {
	t.Helper()
	return inodeOf(t, path)
}

package kerneltest

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// forbidden are guards on everybody, by what a role tries against them.
func forbidden(t *testing.T, dir string) []*collectorv1.Guard {
	t.Helper()
	guards, err := forbiddenIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	return guards
}

func forbiddenIn(dir string) ([]*collectorv1.Guard, error) {
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "denied-program"), &st); err != nil {
		return nil, err
	}
	device := unix.Major(st.Dev)<<20 | unix.Minor(st.Dev)
	return []*collectorv1.Guard{
		{Id: 11, Subject: &collectorv1.Guard_ExecFile{ExecFile: &collectorv1.FileIdentity{Device: device, Inode: st.Ino}}},
		{Id: 12, Subject: &collectorv1.Guard_ExecPrefix{ExecPrefix: dir + "/denied-dir/"}},
		{Id: 13, Subject: &collectorv1.Guard_ExecProperty{ExecProperty: collectorv1.ExecProperty_EXEC_PROPERTY_MEMFD}},
		{Id: 14, Subject: &collectorv1.Guard_WritePrefix{WritePrefix: dir + "/precious"}},
		{Id: 15, Subject: &collectorv1.Guard_Connect{Connect: &collectorv1.Network{Cidr: "127.66.0.0/16", Port: 4444}}},
		nameGuard(16, 0, ".bad.example"),
	}, nil
}

// guarded is a watched kernel with the guards in force, and the directory they are about.
func guarded(t *testing.T) (w *watcher, dir string) {
	t.Helper()
	dir = guardedFiles(t)
	w = watch(t)
	w.guards(t, forbidden(t, dir)...)
	return w, dir
}

// guardedFiles makes the directory that guards are about.
func guardedFiles(t *testing.T) string {
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
	return dir
}

// attempts are what the role "forbidden" does. Each returns nil if it got through, and EPERM if it was denied.
var attempts = map[string]func(dir string) error{
	"exec by identity": func(dir string) error { return runs(filepath.Join(dir, "denied-program")) },
	"exec by path":     func(dir string) error { return runs(filepath.Join(dir, "denied-dir", "program")) },
	"write":            func(dir string) error { return opens(filepath.Join(dir, "precious"), unix.O_WRONLY) },
	"append":           func(dir string) error { return opens(filepath.Join(dir, "precious"), unix.O_RDWR|unix.O_APPEND) },
	"create":           func(dir string) error { return opens(filepath.Join(dir, "precious-too"), unix.O_CREAT|unix.O_WRONLY) },
	"rename": func(dir string) error {
		return unix.Rename(filepath.Join(dir, "precious"), filepath.Join(dir, "other"))
	},
	"rename onto it": func(dir string) error {
		return unix.Rename(filepath.Join(dir, "allowed-program"), filepath.Join(dir, "precious"))
	},
	"remove":      func(dir string) error { return unix.Unlink(filepath.Join(dir, "precious")) },
	"truncate":    func(dir string) error { return unix.Truncate(filepath.Join(dir, "precious"), 0) },
	"second name": func(dir string) error { return unix.Link(filepath.Join(dir, "precious"), filepath.Join(dir, "alias")) },
	"connect":     func(string) error { return dials("127.66.0.1:4444") },
	"lookup":      func(string) error { return asks("lookup.bad.example") },
	"send":        func(string) error { return sends(&unix.SockaddrInet4{Port: 4444, Addr: [4]byte{127, 66, 0, 2}}) },
}

func runs(path string) error {
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), roleVariable+"=nothing")
	return cmd.Run()
}

func opens(path string, flags int) error {
	fd, err := unix.Open(path, flags, 0o600)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

func dials(address string) error {
	conn, err := net.Dial("tcp", address)
	if err == nil {
		_ = conn.Close()
	}
	return err
}

func asks(name string) error {
	conn, err := net.Dial("udp", nameServer)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write(question(name))
	return err
}

func sends(to unix.Sockaddr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, []byte("x"), 0, to)
}

// tryForbidden is the role: args are an attempt, a directory and how often. It says how often it got through, and fails if
// anything else but a guard stood in the way.
func tryForbidden(args []string) error {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	through := 0
	for range n {
		var killed *exec.ExitError // the program that was started, in the tier that cannot deny
		switch err := attempts[args[0]](args[1]); {
		case err == nil:
			through++
		case !errors.Is(err, unix.EPERM) && !errors.As(err, &killed):
			return err
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
	acceptAll(t, "127.66.0.1:4444")
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
	if err := errors.Join(runs(filepath.Join(dir, "allowed-program")), opens(filepath.Join(dir, "harmless"), unix.O_CREAT|unix.O_WRONLY)); err != nil {
		t.Errorf("what no guard names: %v", err)
	}
	if err := opens(filepath.Join(dir, "precious"), unix.O_RDONLY); err != nil {
		t.Errorf("reading what a guard on writing names: %v", err)
	}
}

// short counts what of a class was lost or dropped.
func short(t *testing.T, w *watcher, class string) uint64 {
	t.Helper()
	return w.lost(t)[record.KindOfClass(class)]
}

// TestGuardsKill is what the tier does that cannot deny: who passes a guard is dead before it can use what it got.
func TestGuardsKill(t *testing.T) {
	w, dir := guarded(t)
	if w.set.Tier().CanDeny() {
		t.Skipf("tier %s denies", w.set.Tier())
	}
	acceptAll(t, "127.66.0.1:4444")
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
	if err := runs(filepath.Join(dir, "allowed-program")); err != nil {
		t.Errorf("what no guard names: %v", err)
	}
}

// A guard on one cgroup leaves the others alone, and holds for the cgroups below it, however many levels below.
func TestGuardsKnowWhoseTheyAre(t *testing.T) {
	w, dir := guarded(t)
	parent := newWorkload(t)
	w.guards(t, &collectorv1.Guard{Id: 21, CgroupId: parent.id, Subject: &collectorv1.Guard_WritePrefix{WritePrefix: dir + "/precious"}})
	if err := opens(filepath.Join(dir, "precious"), unix.O_WRONLY); err != nil {
		t.Errorf("outside the guard's cgroup: %v", err)
	}
	for _, levels := range []int{0, 1, 40} {
		cmd := actor(t, "forbidden", "write", dir, "1")
		out, err := runIn(t, cmd, parent.nested(t, levels))
		if w.set.Tier().CanDeny() && (err != nil || out != "0") {
			t.Errorf("%d levels below the guard's cgroup: %q, %v, want denied", levels, out, err)
		}
		if !w.set.Tier().CanDeny() && err == nil {
			t.Errorf("%d levels below the guard's cgroup: %q, want killed", levels, out)
		}
	}
}

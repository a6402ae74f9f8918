package kerneltest

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/services/collector/internal/snapshot"
)

func TestSnapshotSeesAnOlderProcess(t *testing.T) {
	cmd := actor(t, "wait", "some", "argument")
	cmd.Dir = t.TempDir()
	talk(t, cmd).expect(t, "ready")
	w := borrow(t)
	events, err := snapshot.Snapshot{Open: w.set.Tasks, Decoder: decoder(), Proc: "/proc"}.Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range events {
		if event.GetProcess().GetPid() != uint32(cmd.Process.Pid) {
			continue
		}
		got := event.GetExisting()
		if want := cmd.Path + " some argument"; strings.Join(got.GetArgv(), " ") != want || got.GetArgvUnreadable() {
			t.Errorf("argv = %q, want %q", got.GetArgv(), want)
		}
		if got.GetExe().GetPath() != cmd.Path || got.GetCwd() != cmd.Dir {
			t.Errorf("exe, cwd = %q, %q, want %q, %q", got.GetExe().GetPath(), got.GetCwd(), cmd.Path, cmd.Dir)
		}
		if event.GetParent().GetPid() != uint32(os.Getpid()) {
			t.Errorf("parent = %d, want %d", event.GetParent().GetPid(), os.Getpid())
		}
		return
	}
	t.Errorf("process %d is not among the %d of the snapshot", cmd.Process.Pid, len(events))
}

// The collector's row of the privilege table is enough, and nothing is needed after attaching.
func TestRunsWithItsRowOfThePrivilegeTable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives a child capabilities")
	}
	tests := []struct {
		name    string
		ambient []uintptr
		want    string
	}{
		{name: "its row", ambient: []uintptr{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON}},
		{name: "without NET_ADMIN only DNS is missing", ambient: []uintptr{unix.CAP_BPF, unix.CAP_PERFMON}},
		{name: "nothing", want: "missing capability CAP_BPF and CAP_PERFMON: start the collector through"},
		{name: "only BPF", ambient: []uintptr{unix.CAP_BPF}, want: "missing capability CAP_PERFMON: start"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := actor(t, "unprivileged")
			cmd.Path = reachable(t, cmd.Path)
			cmd.Dir = "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 10001, Gid: 10001}, AmbientCaps: tt.ambient}
			out, err := cmd.CombinedOutput()
			if tt.want == "" && err != nil {
				t.Errorf("%v: %s", err, out)
			}
			if !strings.Contains(string(out), tt.want) {
				t.Errorf("output = %q, want %q in it", out, tt.want)
			}
			if lines := strings.Count(strings.TrimSpace(string(out)), "\n"); lines > 0 {
				t.Errorf("output has %d lines, want one: %s", lines+1, out)
			}
		})
	}
}

// publicDirectory makes one that another uid can get into.
func publicDirectory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "palisade-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // another uid must get in
		t.Fatal(err)
	}
	return dir
}

// reachable copies the test binary to where another uid may execute it.
func reachable(t *testing.T, program string) string {
	t.Helper()
	raw, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(publicDirectory(t), "collector.test")
	if err := os.WriteFile(path, raw, 0o755); err != nil { //nolint:gosec // and execute this
		t.Fatal(err)
	}
	return path
}

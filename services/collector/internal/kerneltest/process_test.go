package kerneltest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// The leader of a group in a pid namespace of its own has two numbers, and its group's too; one that only came in there has a group
// whose leader stayed outside.
func TestExecTellsItsGroup(t *testing.T) {
	w := watch(t)
	for _, leads := range []bool{true, false} {
		cmd := actor(t, "nothing")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Setpgid: leads}
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		pid := uint32(cmd.Process.Pid)
		group, innerGroup := pid, uint32(1)
		if !leads {
			group, innerGroup = uint32(unix.Getpgrp()), 0
		}
		exec := w.await(t, "exec in a pid namespace", isExec(pid)).GetExec()
		if exec.GetGroup() != group || exec.GetInnerPid() != 1 || exec.GetInnerGroup() != innerGroup {
			t.Errorf("leads=%t: group %d, inner pid %d, inner group %d, want %d, 1, %d",
				leads, exec.GetGroup(), exec.GetInnerPid(), exec.GetInnerGroup(), group, innerGroup)
		}
	}
}

func TestExecTellsWhoAndWhat(t *testing.T) {
	w := watch(t)
	cmd := actor(t, "nothing", "one", "", "three")
	cmd.Dir = t.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	pid := uint32(cmd.Process.Pid)
	event := w.await(t, "exec of the actor", isExec(pid))
	exe := event.GetExec()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if got := exe.GetExe().GetPath(); got != self {
		t.Errorf("exe path = %q, want %q", got, self)
	}
	if got, want := strings.Join(exe.GetArgv(), "|"), self+"|one||three"; got != want {
		t.Errorf("argv = %q, want %q", got, want)
	}
	if got := exe.GetCwd(); got != cmd.Dir {
		t.Errorf("cwd = %q, want %q", got, cmd.Dir)
	}
	if got := exe.GetSession(); got != pid {
		t.Errorf("session = %d, want its own pid %d", got, pid)
	}
	var st unix.Stat_t
	if err := unix.Stat(self, &st); err != nil {
		t.Fatal(err)
	}
	device := unix.Major(st.Dev)<<20 | unix.Minor(st.Dev)
	if file := exe.GetExe(); file.GetInode() != st.Ino || file.GetDevice() != device || file.GetMode() != st.Mode {
		t.Errorf("exe inode, device, mode = %d, %#x, %o, want %d, %#x, %o",
			file.GetInode(), file.GetDevice(), file.GetMode(), st.Ino, device, st.Mode)
	}
	if got := event.GetParent().GetPid(); got != uint32(os.Getpid()) {
		t.Errorf("parent = %d, want %d", got, os.Getpid())
	}
	checkNamespaces(t, event.GetNamespaces())
	if got := event.GetCredentials().GetEffectiveCapabilities(); got == 0 {
		t.Error("effective capabilities = 0, want root's")
	}
	if event.GetCgroupId() == 0 || event.GetProcess().GetStartBoottimeNs() == 0 {
		t.Errorf("cgroup %d, start %d, want both known", event.GetCgroupId(), event.GetProcess().GetStartBoottimeNs())
	}
}

func checkNamespaces(t *testing.T, got *eventv1.Namespaces) {
	t.Helper()
	for kind, inode := range map[string]uint32{
		"mnt": got.GetMnt(), "pid": got.GetPid(), "net": got.GetNet(), "user": got.GetUser(),
	} {
		want, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		if text := fmt.Sprintf("%s:[%d]", kind, inode); text != want {
			t.Errorf("namespace = %s, want %s", text, want)
		}
	}
}

func TestB14ArgvArrivesWhole(t *testing.T) {
	w := watch(t)
	many := make([]string, 250)
	for i := range many {
		many[i] = fmt.Sprintf("argument-%d", i)
	}
	tests := []struct {
		name string
		args []string
	}{
		{name: "payload after 300 bytes of a 4096 byte argument", args: []string{strings.Repeat("a", 300) + "PAYLOAD" + strings.Repeat("b", 3789)}},
		{name: "250 arguments", args: many},
		{name: "20 KiB in one argument", args: []string{strings.Repeat("x", 20<<10) + "PAYLOAD"}},
		{name: "41 arguments of 700 bytes", args: strings.Fields(strings.Repeat(strings.Repeat("y", 700)+" ", 41))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pid, _ := perform(t, "nothing", tt.args...)
			got := w.await(t, "exec", isExec(pid)).GetExec()
			if strings.Join(got.GetArgv()[1:], "\x00") != strings.Join(tt.args, "\x00") {
				t.Errorf("argv of %d elements, %d bytes differs from the %d given", len(got.GetArgv()), got.GetArgvBytes(), len(tt.args))
			}
			if got.GetArgvTruncated() || got.GetArgvUnreadable() {
				t.Errorf("truncated, unreadable = %v, %v, want false", got.GetArgvTruncated(), got.GetArgvUnreadable())
			}
		})
	}
}

func TestB14LongerArgvSaysSo(t *testing.T) {
	w := watch(t)
	pid, _ := perform(t, "nothing", strings.Repeat("x", 40<<10))
	got := w.await(t, "exec", isExec(pid)).GetExec()
	if !got.GetArgvTruncated() || got.GetArgvBytes() <= 40<<10 {
		t.Errorf("truncated, bytes = %v, %d, want true and the full length", got.GetArgvTruncated(), got.GetArgvBytes())
	}
	if n := len(strings.Join(got.GetArgv(), " ")); n < 32<<10-1 {
		t.Errorf("kept %d bytes, want 32 KiB", n)
	}
}

func TestB13MemfdExec(t *testing.T) {
	w := watch(t)
	pid, _ := perform(t, "exec-memfd")
	event := w.await(t, "exec of the memfd", func(e *eventv1.Event) bool {
		return isExec(pid)(e) && e.GetExec().GetExe().GetMemfd()
	})
	exe := event.GetExec().GetExe()
	if exe.GetPath() != "/memfd:innocent" || !exe.GetUnlinked() {
		t.Errorf("path, unlinked = %q, %v, want /memfd:innocent, true", exe.GetPath(), exe.GetUnlinked())
	}
}

func TestB13DeletedExecutable(t *testing.T) {
	w := watch(t)
	path := filepath.Join(t.TempDir(), "gone")
	cmd := actor(t, "nothing")
	program, err := os.ReadFile(cmd.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, program, 0o700); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	cmd.Path = "/proc/self/fd/3"
	cmd.ExtraFiles = []*os.File{file}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	exe := w.await(t, "exec", isExec(uint32(cmd.Process.Pid))).GetExec().GetExe()
	if exe.GetPath() != path || !exe.GetUnlinked() || exe.GetMemfd() {
		t.Errorf("path, unlinked, memfd = %q, %v, %v, want %q, true, false", exe.GetPath(), exe.GetUnlinked(), exe.GetMemfd(), path)
	}
}

func TestExit(t *testing.T) {
	w := watch(t)
	isExit := func(pid uint32) func(*eventv1.Event) bool {
		return func(e *eventv1.Event) bool { return e.GetExit() != nil && e.GetProcess().GetPid() == pid }
	}
	t.Run("code", func(t *testing.T) {
		cmd := actor(t, "exit-7")
		_ = cmd.Run()
		got := w.await(t, "exit", isExit(uint32(cmd.Process.Pid))).GetExit().GetWaitStatus()
		if want := uint32(cmd.ProcessState.Sys().(syscall.WaitStatus)); got != want || want != 7<<8 {
			t.Errorf("wait status = %#x, want %#x", got, want)
		}
	})
	t.Run("signal", func(t *testing.T) {
		cmd := actor(t, "wait")
		if _, err := cmd.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pid := uint32(cmd.Process.Pid)
		w.await(t, "exec", isExec(pid))
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if got := w.await(t, "exit", isExit(pid)).GetExit().GetWaitStatus(); got != uint32(syscall.SIGKILL) {
			t.Errorf("wait status = %#x, want %#x", got, syscall.SIGKILL)
		}
		// Go programs have several threads; only the last one's end counts.
		if n := w.count(isExit(pid)); n != 1 {
			t.Errorf("%d exits, want 1", n)
		}
	})
}

func TestForkNamesTheChildThatExecs(t *testing.T) {
	w := watch(t)
	pid, _ := perform(t, "nothing")
	isFork := func(e *eventv1.Event) bool { return e.GetFork().GetChild().GetPid() == pid }
	fork := w.await(t, "fork", isFork)
	exec := w.await(t, "exec", isExec(pid))
	if got, want := fork.GetFork().GetChild().GetStartBoottimeNs(), exec.GetProcess().GetStartBoottimeNs(); got != want {
		t.Errorf("child start = %d in fork, %d in exec", got, want)
	}
	if got := fork.GetProcess().GetPid(); got != uint32(os.Getpid()) {
		t.Errorf("fork by %d, want %d", got, os.Getpid())
	}
	if fork.GetFork().GetChildCgroupId() != exec.GetCgroupId() {
		t.Errorf("child cgroup = %d in fork, %d in exec", fork.GetFork().GetChildCgroupId(), exec.GetCgroupId())
	}
}

package kerneltest

import (
	"errors"
	"io"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/services/collector/internal/probe"
)

// nativeCalls are all that a hook on calls stands for, in this architecture's numbers. setgroups16 and fcntl64 have none, and dup2 is
// not everywhere.
var nativeCalls = []uintptr{
	unix.SYS_ADD_KEY, unix.SYS_BPF, unix.SYS_CAPSET, unix.SYS_DELETE_MODULE, unix.SYS_DUP, unix.SYS_DUP3, unix.SYS_EXECVE, unix.SYS_EXECVEAT,
	unix.SYS_FCNTL, unix.SYS_FINIT_MODULE, unix.SYS_FSETXATTR, unix.SYS_INIT_MODULE, unix.SYS_IO_URING_SETUP, unix.SYS_KEYCTL,
	unix.SYS_LSETXATTR, unix.SYS_MEMFD_CREATE, unix.SYS_PERF_EVENT_OPEN, unix.SYS_PIDFD_GETFD, unix.SYS_PROCESS_VM_READV,
	unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PTRACE, unix.SYS_REQUEST_KEY, unix.SYS_SETGROUPS, unix.SYS_SETNS,
	unix.SYS_SETXATTR, unix.SYS_UNSHARE, unix.SYS_USERFAULTFD,
}

// everyCall is the role: each call with arguments that it refuses.
func everyCall([]string) error {
	const bad = ^uintptr(0)
	for _, number := range nativeCalls {
		_ = rawCall(number, bad, bad, bad)
	}
	return nil
}

// moreOperations is the role for hooks that no class of record has to itself.
func moreOperations(args []string) error {
	dir := args[0]
	path := filepath.Join(dir, "file")
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	return errorsOf(
		unix.Ftruncate(fd, 1),
		unix.Unshare(unix.CLONE_NEWNS),
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.MoveMount(tree, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH),
	)
}

// Every program that is attached really runs: a hook that the kernel takes and does not call is the worst kind of blindness.
func TestB24EveryHookFires(t *testing.T) {
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		t.Skipf("needs root and Linux 5.8: %v", err)
	}
	defer stats.Close()
	w := borrow(t)
	before, err := w.set.Runs()
	if err != nil {
		t.Fatal(err)
	}
	for _, class := range slices.Sorted(maps.Keys(triggers)) {
		if lacks(class) == "" {
			perform(t, "trigger", class, t.TempDir())
		}
	}
	perform(t, "every-call")
	perform(t, "more", t.TempDir())
	runs32 := performCompat32(t)
	walk, err := w.set.Tasks()
	if err != nil {
		t.Fatal(err)
	}
	defer walk.Close()
	if _, err := io.Copy(io.Discard, walk); err != nil {
		t.Fatal(err)
	}
	runs, err := w.set.Runs()
	if err != nil {
		t.Fatal(err)
	}
	for i := range runs {
		runs[i].Count -= before[i].Count
		runs[i].Total -= before[i].Total
		runs[i].Missed -= before[i].Missed
	}
	for _, run := range runs {
		if run.Missed > 0 {
			// From Linux 7 on a program on a tracepoint may be preempted, and then keeps the others of its processor out.
			t.Logf("%s at %s: left out %d times of %d", run.Hook, run.Place, run.Missed, run.Missed+run.Count)
		}
		if run.Count > 0 && run.Total > 0 {
			continue
		}
		if reason := idle(run, runs, runs32); reason != "" {
			t.Logf("%s at %s did not run: %s", run.Hook, run.Place, reason)
			continue
		}
		t.Errorf("%s at %s did not run (%d times, %v), want at least once", run.Hook, run.Place, run.Count, run.Total)
	}
	t.Logf("%d programs", len(runs))
}

// idle says why a program cannot have run here, or nothing.
func idle(run probe.Run, all []probe.Run, runs32 bool) string {
	const native, compat = "__ia32_sys_", "__ia32_compat_sys_"
	call, of32 := strings.CutPrefix(run.Place, native)
	twin := compat + call
	if !of32 {
		call, of32 = strings.CutPrefix(run.Place, compat)
		twin = native + call
	}
	ran := func(r probe.Run) bool { return r.Place == twin && r.Count > 0 }
	switch {
	case run.Place == "__x64_sys_setgroups16":
		return "no 64-bit call leads there"
	case strings.HasSuffix(run.Place, "_sys_fcntl") && of32:
		return "fcntl leads 32-bit programs to fcntl64's function"
	case of32 && !runs32:
		return "this kernel runs no 32-bit program"
	case of32 && slices.ContainsFunc(all, ran):
		return "32-bit programs get the other function of this call"
	case strings.HasPrefix(run.Hook, "io_uring") && lacks("io_uring") != "":
		return lacks("io_uring")
	}
	return ""
}

// performCompat32 makes every call as a 32-bit program, if the kernel runs any.
func performCompat32(t *testing.T) bool {
	t.Helper()
	path := compat32(t)
	if path == "" {
		return false
	}
	out, err := exec.CommandContext(t.Context(), path, "every-call").CombinedOutput()
	if errors.Is(err, syscall.ENOEXEC) {
		return false
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return true
}

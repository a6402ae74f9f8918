package kerneltest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/snapshot"
)

// longArguments is how the programs of runLong are called: seven pages of arguments and a bit.
func longArguments(program string) []string {
	argv := []string{program}
	for i := range 4 {
		argv = append(argv, strconv.Itoa(i)+strings.Repeat("x", 7<<10)+"PAYLOAD")
	}
	return argv
}

// runLong is the role: it runs the program args[1] with long arguments, args[0] times, when told to.
func runLong(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return err
	}
	argv := longArguments(args[1])
	for range n {
		pid, err := syscall.ForkExec(args[1], argv, &syscall.ProcAttr{})
		if err != nil {
			return err
		}
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
			return err
		}
	}
	fmt.Println("done")
	return nil
}

// While programs start, the kernel is made to swap out all that they have, as often as it can. Arguments that are
// gone must not look like arguments that never were.
func TestB25ArgumentsPagedOutDuringExec(t *testing.T) {
	group := memoryGroup(t)
	swap(t)
	w := watch(t)
	path := programIn(t)
	inode, want := inodeOf(t, path), longArguments(path)
	const execs = 300
	a := talk(t, actor(t, "run-long", strconv.Itoa(execs), path))
	a.expect(t, "ready")
	workload{directory: group}.add(t, a.pid)
	var halt atomic.Bool
	reclaimed := make(chan int, 1)
	go func() {
		times := 0
		for !halt.Load() {
			// Fails when there is no more to take, which does not matter.
			_ = os.WriteFile(filepath.Join(group, "memory.force_empty"), []byte("0"), 0)
			times++
		}
		reclaimed <- times
	}()
	a.say(t, "go")
	a.expect(t, "done")
	halt.Store(true)
	t.Logf("memory taken away %d times", <-reclaimed)
	a.end(t)
	awaitAll(t, w)
	isOurs := func(e *eventv1.Event) bool { return e.GetExec().GetExe().GetInode() == inode }
	unreadable := w.count(func(e *eventv1.Event) bool { return isOurs(e) && e.GetExec().GetArgvUnreadable() })
	whole := w.count(func(e *eventv1.Event) bool {
		return isOurs(e) && !e.GetExec().GetArgvUnreadable() && slices.Equal(e.GetExec().GetArgv(), want)
	})
	t.Logf("%d execs with whole arguments, %d that say they are unreadable", whole, unreadable)
	if whole+unreadable != execs || w.count(isOurs) != execs {
		t.Errorf("%d execs with whole arguments and %d that say they are not, of %d told, want %d", whole, unreadable, w.count(isOurs), execs)
	}
}

// memoryGroup makes a memory cgroup (v1) of the test's own, the only kind whose memory can be taken away at will before Linux 5.19.
func memoryGroup(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a cgroup")
	}
	group, err := os.MkdirTemp("/sys/fs/cgroup/memory", "palisade-test-")
	if err != nil {
		t.Skipf("no memory cgroup of version 1: %v", err)
	}
	t.Cleanup(func() { removeGroup(t, group) })
	return group
}

// swap gives the machine 32 MiB of swap until the test ends.
func swap(t *testing.T) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "swap")
	if err := writeSwap(path, 32<<20); err != nil {
		t.Fatal(err)
	}
	if err := swapCall(unix.SYS_SWAPON, path); err != nil {
		t.Skipf("swapon: %v", err)
	}
	t.Cleanup(func() {
		if err := swapCall(unix.SYS_SWAPOFF, path); err != nil {
			t.Errorf("swapoff: %v", err)
		}
	})
}

// forget is a program that unmaps the memory in which its arguments are, and pauses.
var forget = map[string][]byte{"amd64": {
	0x48, 0x8b, 0x7c, 0x24, 0x08, // mov rdi, [rsp+8]   argv[0]
	0x48, 0x81, 0xe7, 0x00, 0xf0, 0xff, 0xff, // and rdi, -4096
	0xbe, 0x00, 0x00, 0x02, 0x00, // mov esi, 0x20000
	0xb8, 0x0b, 0x00, 0x00, 0x00, // mov eax, 11        munmap
	0x0f, 0x05, // syscall
	0xb8, 0x22, 0x00, 0x00, 0x00, // mov eax, 34        pause
	0x0f, 0x05, // syscall
	0xeb, 0xf7, // jmp back to the pause
}}

// A process can also take away, after it has started, the memory that it is asked about: the snapshot must not show it as one
// without arguments.
func TestB25ArgumentsHiddenFromTheSnapshot(t *testing.T) {
	code, ok := forget[runtime.GOARCH]
	if !ok {
		t.Skip("no machine code for " + runtime.GOARCH)
	}
	w := borrow(t)
	path := filepath.Join(t.TempDir(), "forgetful")
	programOf(t, path, code)
	cmd := exec.CommandContext(t.Context(), path, "--evil")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	cmdline := fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid)
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if raw, err := os.ReadFile(cmdline); err == nil && len(raw) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the arguments do not go away")
		}
	}
	events, err := snapshot.Snapshot{Open: w.set.Tasks, Decoder: decoder(), Proc: "/proc"}.Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(events, func(e *eventv1.Event) bool { return e.GetProcess().GetPid() == uint32(cmd.Process.Pid) }) //nolint:gosec // a pid
	if i < 0 {
		t.Fatal("the process is not in the snapshot")
	}
	if got := events[i].GetExisting(); !got.GetArgvUnreadable() || got.GetExe().GetPath() != path {
		t.Errorf("argv = %q of %s, want it marked unreadable", got.GetArgv(), got.GetExe().GetPath())
	}
}

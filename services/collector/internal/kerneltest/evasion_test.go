package kerneltest

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
)

// What io_uring does enters no system call of that name. Where the kernel's decisions are hooked it looks like any other;
// where they are not, that a ring opened or connected something is told.
func TestB5OperationsOfIOUring(t *testing.T) {
	if reason := lacks("io_uring"); reason != "" {
		t.Skip(reason)
	}
	w := watch(t)
	path, inode := secret(t, t.TempDir())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	pid, _ := perform(t, "ring-open-and-connect", path, l.Addr().String())
	for _, opcode := range []uint32{opOpenat, opConnect} {
		w.await(t, "operation "+strconv.Itoa(int(opcode)), func(e *eventv1.Event) bool {
			return e.GetProcess().GetPid() == pid && e.GetIoUring() != nil && e.GetIoUring().GetOpcode() == opcode
		})
	}
	if !w.set.Tier().CanDeny() {
		return
	}
	open := w.await(t, "open", func(e *eventv1.Event) bool { return isOpen(e.GetProcess().GetPid(), inode)(e) && byRing(e, pid) })
	if file := open.GetFileOpen().GetFile(); file.GetPath() != path || file.GetPathSource() != fromKernel {
		t.Errorf("path = %q (%v), want %q from the kernel", file.GetPath(), file.GetPathSource(), path)
	}
	connect := w.await(t, "connect", func(e *eventv1.Event) bool { return e.GetConnect() != nil && byRing(e, pid) })
	if got := endpoint(connect.GetConnect().GetRemote()); got != l.Addr().String() {
		t.Errorf("remote = %s, want %s", got, l.Addr())
	}
}

// kthreadd is the parent of kernel threads.
const kthreadd = 2

// byRing says whether an operation is that of a process's ring. Before Linux 5.12 what may block is done by kernel threads,
// and nothing in them leads back to the process.
func byRing(e *eventv1.Event, pid uint32) bool {
	return e.GetProcess().GetPid() == pid || e.GetParent().GetPid() == kthreadd
}

// disguise is the role of who hides: it calls itself systemd, and starts args[0] under the name of a kernel thread as a child
// not of its own but of its parent. It prints the child's pid.
func disguise(args []string) error {
	if err := os.WriteFile("/proc/self/comm", []byte("systemd"), 0); err != nil {
		return err
	}
	runtime.LockOSThread()
	pid, err := syscall.ForkExec(args[0], []string{"[kworker/0:1]"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_PARENT}})
	if err != nil {
		return err
	}
	_, err = os.Stdout.WriteString(strconv.Itoa(pid))
	return err
}

func TestB9NamesAreNotEvidence(t *testing.T) {
	w := watch(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	miner, innocent := filepath.Join(dir, "miner"), filepath.Join(dir, "nginx")
	program(t, miner)
	inode := inodeOf(t, miner)
	if err := os.Rename(miner, innocent); err != nil {
		t.Fatal(err)
	}
	parent, output := perform(t, "disguise", innocent)
	child, err := strconv.Atoi(output)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Wait4(child, nil, 0, nil); err != nil {
		t.Errorf("the child is not ours: %v", err)
	}
	event := w.await(t, "exec", isExec(uint32(child))) //nolint:gosec // a pid
	exec := event.GetExec()
	if exe := exec.GetExe(); exe.GetPath() != innocent || exe.GetInode() != inode || exe.GetPathSource() != fromKernel {
		t.Errorf("exe = %v, want %s, inode %d", exe, innocent, inode)
	}
	if argv := exec.GetArgv(); len(argv) != 1 || argv[0] != "[kworker/0:1]" {
		t.Errorf("argv = %q, want what was given", argv)
	}
	if got := event.GetParent().GetPid(); got != uint32(os.Getpid()) {
		t.Errorf("parent = %d, want %d, which the kernel made it", got, os.Getpid())
	}
	fork := w.await(t, "fork", func(e *eventv1.Event) bool { return e.GetFork().GetChild().GetPid() == uint32(child) }) //nolint:gosec // a pid
	if fork.GetProcess().GetPid() != parent || fork.GetFork().GetChild().GetStartBoottimeNs() != event.GetProcess().GetStartBoottimeNs() {
		t.Errorf("fork = %v, want by %d, of the process that execs", fork, parent)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if got := w.await(t, "exec of the parent", isExec(parent)).GetExec().GetExe().GetPath(); got != self {
		t.Errorf("the parent runs %q, want %q, whatever it calls itself", got, self)
	}
}

// unpin is the role of who wants the collector gone: it opens a pinned map and removes the pins in the directory args[0].
func unpin(args []string) error {
	settings, err := ebpf.LoadPinnedMap(filepath.Join(args[0], "maps", "settings"), nil)
	if err != nil {
		return err
	}
	if err := settings.Close(); err != nil {
		return err
	}
	entries, err := os.ReadDir(args[0])
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(args[0], entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// bpfObjGet is the command of bpf() that opens what is pinned.
const bpfObjGet = 7

// mountPins mounts a BPF file system for one test and makes a directory in it.
func mountPins(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0700"); err != nil {
		t.Skipf("mount a BPF file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount pins: %v", err)
		}
	})
	pins := filepath.Join(dir, "palisade")
	if err := os.Mkdir(pins, 0o700); err != nil {
		t.Fatal(err)
	}
	return pins
}

func TestB22PinsAreRemoved(t *testing.T) {
	cfg := unbounded()
	cfg.Pins = mountPins(t)
	epochs := map[string]bool{}
	for i, resumed := range []bool{false, true} {
		set := loadPinned(t, cfg)
		if set.Resumed() != resumed {
			t.Errorf("load %d: resumed = %v, want %v", i, set.Resumed(), resumed)
		}
		epochs[epochOf(t, set)] = true
		if err := set.Close(); err != nil {
			t.Fatal(err)
		}
	}
	w := newWatcher(loadPinned(t, cfg))
	ids := pinnedPrograms(t, cfg.Pins)
	t.Run("seen", func(t *testing.T) {
		w.start(t)
		pid, _ := perform(t, "unpin", cfg.Pins)
		w.await(t, "bpf()", func(e *eventv1.Event) bool {
			args := e.GetPrivilege().GetArguments()
			return e.GetProcess().GetPid() == pid && classOf(e) == "bpf" && len(args) > 0 && args[0] == bpfObjGet
		})
		w.await(t, "removal of the map", func(e *eventv1.Event) bool {
			return e.GetProcess().GetPid() == pid && classOf(e) == "unlink" && filepath.Base(changed(e)) == "settings"
		})
		perform(t, "nothing") // a collector that runs goes on: it holds what was pinned
		_, inode := secret(t, t.TempDir())
		w.await(t, "an open", isOpen(uint32(os.Getpid()), inode))
	})
	epochs[epochOf(t, w.set)] = true
	if err := w.set.Close(); err != nil {
		t.Fatal(err)
	}
	awaitUnloaded(t, ids)
	set := loadPinned(t, cfg)
	defer func() {
		if err := set.Remove(); err != nil {
			t.Error(err)
		}
	}()
	if set.Resumed() {
		t.Error("resumed = true after the pins were removed, want false")
	}
	if len(epochs) != 1 || epochs[epochOf(t, set)] {
		t.Errorf("epochs before %v and now %s, want one and another", epochs, epochOf(t, set))
	}
}

func loadPinned(t *testing.T, cfg probe.Config) *probe.Set {
	t.Helper()
	set, err := probe.Load(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func epochOf(t *testing.T, set *probe.Set) string {
	t.Helper()
	epoch, err := set.Epoch()
	if err != nil {
		t.Fatal(err)
	}
	return epoch
}

// pinnedPrograms are the ids of all programs that are pinned below a directory.
func pinnedPrograms(t *testing.T, directory string) (ids []ebpf.ProgramID) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(directory, "programs-*", "*"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("pinned programs: %v, %v", paths, err)
	}
	for _, path := range paths {
		program, err := ebpf.LoadPinnedProgram(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		info, err := program.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		ids = append(ids, id)
		if err := program.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

// awaitUnloaded waits until the kernel has let go of programs, which it does some time after their last user has.
func awaitUnloaded(t *testing.T, ids []ebpf.ProgramID) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for _, id := range ids {
		for {
			program, err := ebpf.NewProgramFromID(id)
			if errors.Is(err, fs.ErrNotExist) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			_ = program.Close()
			if time.Now().After(deadline) {
				t.Fatalf("program %d is still loaded", id)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

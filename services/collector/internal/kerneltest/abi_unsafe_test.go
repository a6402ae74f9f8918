//go:build amd64

package kerneltest

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// compat32Variable names the 32-bit program where there is no Go to build it.
const compat32Variable = "PALISADE_TEST_COMPAT32"

func compat32(t *testing.T) string {
	t.Helper()
	if program := os.Getenv(compat32Variable); program != "" {
		return program
	}
	program := filepath.Join(t.TempDir(), "compat32")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./testdata/compat32")
	build.Env = append(os.Environ(), "GOARCH=386", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	return program
}

// 32-bit programs number their system calls differently and connect through socketcall.
func TestB12ThirtyTwoBitSystemCalls(t *testing.T) {
	program := compat32(t)
	w := watch(t)
	path, inode := secret(t, t.TempDir())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.CommandContext(t.Context(), program, path, l.Addr().String())
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.ENOEXEC) {
		t.Skip("this kernel does not run 32-bit programs")
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	pid := uint32(cmd.Process.Pid)
	if got := w.await(t, "32-bit open", isOpen(pid, inode)).GetFileOpen().GetFile().GetPath(); got != path {
		t.Errorf("path = %q, want %q", got, path)
	}
	if got := endpoint(w.await(t, "32-bit connect", isConnect(pid)).GetConnect().GetRemote()); got != l.Addr().String() {
		t.Errorf("remote = %s, want %s", got, l.Addr())
	}
	d := w.await(t, "32-bit duplicate", isDuplicate(pid))
	if got := endpoint(d.GetDuplicate().GetRemote()); got != l.Addr().String() || d.GetAbi() != eventv1.Abi_ABI_COMPAT_32 || result(d) != "0" {
		t.Errorf("duplicate of a connection to %s by %v, result %s, want %s by a 32-bit call, 0", got, d.GetAbi(), result(d), l.Addr())
	}
}

// rawDup2 is the system call dup2 itself, for which Go takes dup3.
func rawDup2(from, to int) error { return rawCall(unix.SYS_DUP2, uintptr(from), uintptr(to), 0) }

// Whatever a 32-bit program does says that it was one, in each tier. Its end does not: the last of its threads to go is often one that
// another's exit killed outside any call.
func TestB12EveryEventOfAThirtyTwoBitProgramSaysSo(t *testing.T) {
	program := compat32(t)
	w := watch(t)
	cmd := exec.CommandContext(t.Context(), program, "operations", t.TempDir(), nameServer)
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.ENOEXEC) {
		t.Skip("this kernel does not run 32-bit programs")
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	pid := uint32(cmd.Process.Pid)
	mine := func(e *eventv1.Event) bool { return e.GetProcess().GetPid() == pid }
	classes := []string{
		"exec", "file_open", "rename", "unlink", "rmdir", "link", "symlink", "mkdir", "mknod", "chmod", "chown", "truncate",
		"mmap_exec", "mprotect_exec", "socket", "bind", "listen", "send", "signal", "setuid", "dns_question",
	}
	for _, class := range classes {
		e := w.await(t, class, func(e *eventv1.Event) bool { return mine(e) && classOf(e) == class })
		if e.GetAbi() != eventv1.Abi_ABI_COMPAT_32 {
			t.Errorf("%s: abi = %v, want %v", class, e.GetAbi(), eventv1.Abi_ABI_COMPAT_32)
		}
	}
}

const x32Bit = 1 << 30

// x32Operations is the role: what a directory's name is made, opened and removed with, by calls of the x32 table.
func x32Operations(args []string) error {
	name, err := unix.BytePtrFromString(args[0])
	if err != nil {
		return err
	}
	at := uintptr(unsafe.Pointer(name))
	if err := rawCall(x32Bit|unix.SYS_MKDIR, at, 0o700, 0); err == unix.ENOSYS { //nolint:errorlint // the number itself
		_, err = os.Stdout.WriteString("refused")
		return err
	} else if err != nil {
		return err
	}
	return errors.Join(
		rawCall(x32Bit|unix.SYS_OPEN, at, unix.O_DIRECTORY, 0),
		rawCall(x32Bit|unix.SYS_CHMOD, at, 0o711, 0),
		rawCall(x32Bit|unix.SYS_RMDIR, at, 0, 0),
	)
}

// An x32 call says so where the kernel has that table.
func TestB12X32CallsSayTheyAre(t *testing.T) {
	w := watch(t)
	directory := filepath.Join(t.TempDir(), "x32")
	pid, out := perform(t, "x32", directory)
	if out == "refused" {
		t.Skip("this kernel has no x32 calls (CONFIG_X86_X32_ABI, or Debian's syscall.x32=y)")
	}
	for _, class := range []string{"mkdir", "file_open", "chmod", "rmdir"} {
		e := w.await(t, class, func(e *eventv1.Event) bool {
			path := e.GetFileChange().GetFile().GetPath() + e.GetFileOpen().GetFile().GetPath()
			return e.GetProcess().GetPid() == pid && classOf(e) == class && path == directory
		})
		if e.GetAbi() != eventv1.Abi_ABI_X32 {
			t.Errorf("%s: abi = %v, want %v", class, e.GetAbi(), eventv1.Abi_ABI_X32)
		}
	}
}

// rawOpen is the system call open itself: the C library and Go both call openat instead.
func rawOpen(path string, flags int) (int, error) {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	fd, _, errno := unix.Syscall(unix.SYS_OPEN, uintptr(unsafe.Pointer(name)), uintptr(flags), 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// Command attacker restricts itself as a scan does, and then tries what somebody would who had taken it over. It writes a line for each
// attempt: "ok" or the error.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/services/scanner/internal/sandbox"
)

func main() {
	layer, scratch, secret, handleOf := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	handle, mount, err := unix.NameToHandleAt(unix.AT_FDCWD, handleOf, 0)
	_ = mount
	if err != nil {
		handle = unix.NewFileHandle(1, make([]byte, 8))
	}
	if os.Args[5] == "handles" {
		if err := sandbox.ForbidHandles(); err != nil {
			fmt.Println("enter:", err)
			os.Exit(1)
		}
		_, err := unix.OpenByHandleAt(unix.AT_FDCWD, handle, unix.O_RDONLY)
		report("open by handle", err)
		report("read outside", read(secret))
		return
	}
	memory, _ := strconv.ParseUint(os.Args[5], 10, 64)
	if err := sandbox.Enter(sandbox.Config{Reads: []string{layer}, Scratch: scratch, MemoryBytes: memory << 20, CPUSeconds: 30, FileBytes: 1 << 20, OpenFiles: 64}); err != nil {
		fmt.Println("enter:", err)
		os.Exit(1)
	}
	for _, attempt := range []struct {
		name string
		try  func() error
	}{
		{"read a layer", func() error { return read(filepath.Join(layer, "file")) }},
		{"write scratch", func() error { return os.WriteFile(filepath.Join(scratch, "x"), []byte("x"), 0o600) }},
		{"a goroutine with a thread", func() error { done := make(chan error); go func() { done <- nil }(); return <-done }},
		{"read outside", func() error { return read(secret) }},
		{"read outside over ..", func() error { return read(layer + "/../" + filepath.Base(secret)) }},
		{"list the root", func() error { _, err := os.ReadDir("/"); return err }},
		{"write a layer", func() error { return os.WriteFile(filepath.Join(layer, "new"), nil, 0o600) }},
		{"remove from a layer", func() error { return os.Remove(filepath.Join(layer, "file")) }},
		{"link into a layer", func() error { return os.Symlink("x", filepath.Join(layer, "link")) }},
		{"write beside", func() error { return os.WriteFile(filepath.Join(filepath.Dir(layer), "new"), nil, 0o600) }},
		{"a large file", func() error { return os.WriteFile(filepath.Join(scratch, "large"), make([]byte, 2<<20), 0o600) }},
		{"a socket", func() error { _, err := net.Dial("tcp", "127.0.0.1:1"); return err }},
		{"a unix socket", func() error { _, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err }},
		{"execute", func() error { return syscall.Exec("/proc/self/exe", []string{"x"}, nil) }},
		{"fork", func() error { _, err := syscall.ForkExec("/proc/self/exe", []string{"x"}, nil); return err }},
		{"fork without exec", func() error {
			_, _, e := syscall.RawSyscall(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0)
			return number(e)
		}},
		{"signal its parent", func() error { return syscall.Kill(os.Getppid(), 0) }},
		{"signal a thread of its parent's", func() error { return unix.Tgkill(os.Getppid(), os.Getppid(), 0) }},
		{"trace its parent", func() error { return syscall.PtraceAttach(os.Getppid()) }},
		{"open by handle", func() error { _, err := unix.OpenByHandleAt(unix.AT_FDCWD, handle, unix.O_RDONLY); return err }},
		{"mount", func() error { return unix.Mount("tmpfs", scratch, "tmpfs", 0, "") }},
		{"a namespace", func() error { return unix.Unshare(unix.CLONE_NEWUSER) }},
		{"bpf", func() error { _, _, e := syscall.RawSyscall(unix.SYS_BPF, 0, 0, 0); return number(e) }},
		{"io_uring", func() error {
			p := make([]byte, 120)
			_, _, e := syscall.RawSyscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&p[0])), 0)
			return number(e)
		}},
		{"raise a limit", func() error {
			return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 1 << 16, Max: 1 << 16})
		}},
		{"files", files},
	} {
		report(attempt.name, attempt.try())
	}
	if len(os.Args) > 6 {
		report("memory", hoard())
	}
}

func report(name string, err error) {
	if err == nil {
		fmt.Printf("%s: ok\n", name)
		return
	}
	fmt.Printf("%s: %v\n", name, err)
}

func number(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func read(path string) error {
	_, err := os.ReadFile(path)
	return err
}

// files opens as many as it can.
func files() error {
	var open []*os.File
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	for range 1000 {
		f, err := os.Open(filepath.Join(os.Args[1], "file"))
		if err != nil {
			return err
		}
		open = append(open, f)
	}
	return nil
}

// hoard writes to more memory than there may be; the Go runtime then ends the process.
func hoard() error {
	var all [][]byte
	for range 64 {
		block := make([]byte, 16<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		all = append(all, block)
	}
	if len(all) == 0 {
		return errors.New("nothing")
	}
	return nil
}

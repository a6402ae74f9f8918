package kerneltest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"unsafe"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// triggers do for real what each class of record tells, in a directory of their own. They run as the role "trigger", on a
// locked thread of a process that ends afterwards.
var triggers = map[string]func(dir string) error{
	"exec": runNothing,
	"exec_failed": func(dir string) error {
		return wantErrno(unix.Exec(filepath.Join(dir, "absent"), nil, nil), unix.ENOENT)
	},
	"fork":      runNothing,
	"exit":      func(string) error { return nil },
	"signal":    func(string) error { return unix.Kill(os.Getpid(), unix.SIGWINCH) },
	"file_open": func(dir string) error { return os.WriteFile(filepath.Join(dir, "file"), nil, 0o600) },
	"rename": func(dir string) error {
		return withFile(dir, func(p string) error { return unix.Rename(p, p+"-renamed") })
	},
	"unlink": func(dir string) error { return withFile(dir, unix.Unlink) },
	"rmdir": func(dir string) error {
		return errorsOf(unix.Mkdir(filepath.Join(dir, "d"), 0o700), unix.Rmdir(filepath.Join(dir, "d")))
	},
	"link":    func(dir string) error { return withFile(dir, func(p string) error { return unix.Link(p, p+"-link") }) },
	"symlink": func(dir string) error { return unix.Symlink("/where/it/leads", filepath.Join(dir, "file")) },
	"mkdir":   func(dir string) error { return unix.Mkdir(filepath.Join(dir, "file"), 0o750) },
	"mknod":   func(dir string) error { return unix.Mknod(filepath.Join(dir, "file"), unix.S_IFIFO|0o640, 0) },
	"chmod":   func(dir string) error { return withFile(dir, func(p string) error { return unix.Chmod(p, 0o4711) }) },
	"chown": func(dir string) error {
		return withFile(dir, func(p string) error { return unix.Chown(p, 1234, 4321) })
	},
	"truncate":         func(dir string) error { return withFile(dir, func(p string) error { return unix.Truncate(p, 99) }) },
	"setxattr":         func(dir string) error { return withFile(dir, setAttribute) },
	"mount":            mountOnce,
	"umount":           mountOnce,
	"pivot_root":       pivotRoot,
	"chroot":           func(dir string) error { return unix.Chroot(dir) },
	"mmap_exec":        mapExecutable,
	"mprotect_exec":    protectExecutable,
	"memfd":            func(string) error { return descriptor(unix.MemfdCreate("innocent", unix.MFD_CLOEXEC)) },
	"socket":           func(string) error { return descriptor(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)) },
	"bind":             func(string) error { return listenOnce(unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}) },
	"listen":           func(string) error { return listenOnce(unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}) },
	"connect":          connectOnce,
	"accept":           connectOnce,
	"connect_unix":     connectUnix,
	"duplicate":        func(string) error { return duplicate([]string{"dup2", "connected", "0"}) },
	"send":             sendOnce,
	"dns_question":     askOnce,
	"dns_answer":       askOnce,
	"setuid":           func(string) error { return rawCall(unix.SYS_SETRESUID, 1111, 2222, 3333) },
	"setgid":           func(string) error { return rawCall(unix.SYS_SETRESGID, 1111, 2222, 3333) },
	"setgroups":        func(string) error { return rawCall(unix.SYS_SETGROUPS, 0, 0, 0) },
	"capset":           dropCapabilities,
	"ptrace":           traceSelf,
	"process_vm_read":  func(string) error { return processVM(unix.SYS_PROCESS_VM_READV) },
	"process_vm_write": func(string) error { return processVM(unix.SYS_PROCESS_VM_WRITEV) },
	"setns":            joinNamespace,
	"unshare":          func(string) error { return unix.Unshare(unix.CLONE_NEWUTS) },
	"module_load":      func(dir string) error { return withFile(dir, loadModule) },
	"module_unload":    func(string) error { _ = unix.DeleteModule("no_such_module", unix.O_NONBLOCK); return nil },
	"bpf":              func(string) error { _ = rawCall(unix.SYS_BPF, 1<<16, 0, 0); return nil },
	"keyctl":           func(string) error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true); return err },
	"userfaultfd":      func(string) error { _ = rawCall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0); return nil },
	"perf_event_open":  openPerf,
	"io_uring_setup":   func(string) error { return ringOnce() },
	"io_uring":         func(string) error { return ringOnce() },
}

// trigger is the role: args are a class and a directory.
func trigger(args []string) error { return triggers[args[0]](args[1]) }

func self() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

// rawCall makes a system call on this thread only.
func rawCall(number uintptr, a, b, c uintptr) error {
	if _, _, errno := unix.RawSyscall(number, a, b, c); errno != 0 {
		return errno
	}
	return nil
}

func runNothing(string) error {
	cmd := exec.Command(self())
	cmd.Env = append(os.Environ(), roleVariable+"=nothing")
	return cmd.Run()
}

func wantErrno(err error, want unix.Errno) error {
	if !errors.Is(err, want) {
		return fmt.Errorf("%w, want %w", err, want)
	}
	return nil
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func withFile(dir string, do func(path string) error) error {
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	return do(path)
}

func descriptor(fd int, err error) error {
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func setAttribute(path string) error {
	// Not every file system takes user attributes; all take trusted ones from root.
	return unix.Setxattr(path, "trusted.palisade", []byte("x"), 0)
}

func mountOnce(dir string) error {
	if err := unix.Mount("a-source", dir, "tmpfs", unix.MS_NOSUID, ""); err != nil {
		return err
	}
	return unix.Unmount(dir, unix.MNT_DETACH)
}

func pivotRoot(dir string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	old := filepath.Join(dir, "old")
	return errorsOf(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("tmpfs", dir, "tmpfs", 0, ""),
		unix.Mkdir(old, 0o700),
		unix.PivotRoot(dir, old),
	)
}

func mapExecutable(string) error {
	program, err := unix.Open(self(), unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	_, err = unix.Mmap(program, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	return err
}

func protectExecutable(string) error {
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	return unix.Mprotect(page, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC)
}

func listenOnce(at unix.SockaddrInet4) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return errorsOf(unix.Bind(fd, &at), unix.Listen(fd, 1))
}

func connectOnce(string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		return err
	}
	return server.Close()
}

func connectUnix(dir string) error {
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	defer l.Close()
	client, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	return client.Close()
}

// sendOnce sends to one peer twice; it is to be told once.
func sendOnce(string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := &unix.SockaddrInet4{Port: 4242, Addr: [4]byte{127, 0, 0, 9}}
	return errorsOf(unix.Sendto(fd, []byte("one"), 0, to), unix.Sendmsg(fd, []byte("two"), nil, to, 0))
}

// nameServer is an address of the loopback network where nothing else serves names.
const nameServer = "127.0.7.53:53"

// askOnce is a name server and who asks it.
func askOnce(string) error {
	server, err := net.ListenPacket("udp", nameServer)
	if err != nil {
		return err
	}
	defer server.Close()
	client, err := net.Dial("udp", nameServer)
	if err != nil {
		return err
	}
	defer client.Close()
	name := dnsmessage.MustNewName("Evil.Example.")
	question := dnsmessage.Message{Header: dnsmessage.Header{ID: 77, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	if err := exchange(client, question); err != nil {
		return err
	}
	buffer := make([]byte, 512)
	_, from, err := server.ReadFrom(buffer)
	if err != nil {
		return err
	}
	answer := question
	answer.Response = true
	answer.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 60},
		Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}}}
	raw, err := answer.Pack()
	if err != nil {
		return err
	}
	if _, err := server.WriteTo(raw, from); err != nil {
		return err
	}
	_, err = client.Read(buffer)
	return err
}

func exchange(to net.Conn, message dnsmessage.Message) error {
	raw, err := message.Pack()
	if err != nil {
		return err
	}
	_, err = to.Write(raw)
	return err
}

func dropCapabilities(string) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: 1 << unix.CAP_KILL, Permitted: 1 << unix.CAP_KILL}}
	return unix.Capset(&header, &data[0])
}

func processVM(call uintptr) error {
	from, to := make([]byte, 8), make([]byte, 8)
	local := unix.Iovec{Base: &to[0], Len: 8}
	remote := unix.RemoteIovec{Base: uintptr(unsafe.Pointer(&from[0])), Len: 8}
	_, _, errno := unix.RawSyscall6(call, uintptr(os.Getpid()), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// traceSelf asks for what no process gets. One that is traced by the test, which does not know, may stop for ever or never be
// gone: each signal stops it, Go's own too, and a thread's end waits for its tracer.
func traceSelf(string) error {
	return wantErrno(rawCall(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(os.Getpid()), 0), unix.EPERM)
}

func joinNamespace(string) error {
	fd, err := unix.Open("/proc/self/ns/uts", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return unix.Setns(fd, unix.CLONE_NEWUTS)
}

// loadModule offers an empty file, which no kernel takes.
func loadModule(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	_ = unix.FinitModule(fd, "", 0)
	return nil
}

func openPerf(string) error {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	return nil // refused or not: it was asked
}

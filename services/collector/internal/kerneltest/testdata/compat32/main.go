// Command compat32 is built for GOARCH=386 by the tests of 32-bit system calls: it opens a file and connects a socket, which it
// makes its input, or makes every call that a hook on calls stands for, or one operation of each kind that needs no more than a
// directory and the loopback.
//
// # Privileges
//
// None of its own: the test that starts it decides.
package main

import (
	"net"
	"os"
	"strconv"
	"syscall"
)

// calls have a hook at their end; the numbers are i386's (arch/x86/entry/syscalls/syscall_32.tbl).
var calls = map[string]uintptr{
	"add_key": 286, "bpf": 357, "capset": 185, "delete_module": 129, "dup": 41, "dup2": 63, "dup3": 330,
	"execve": 11, "execveat": 358, "fcntl": 55, "fcntl64": 221, "finit_module": 350,
	"fsetxattr": 228, "init_module": 128, "io_uring_setup": 425, "keyctl": 288, "lsetxattr": 227, "memfd_create": 356,
	"perf_event_open": 336, "pidfd_getfd": 438, "process_vm_readv": 347, "process_vm_writev": 348, "ptrace": 26, "request_key": 287,
	"setgroups": 206, "setgroups16": 81, "setns": 346, "setxattr": 226, "unshare": 310, "userfaultfd": 374,
}

func main() {
	if os.Args[1] == "every-call" {
		const bad = ^uintptr(0)
		for _, number := range calls { // all refuse such arguments
			_, _, _ = syscall.RawSyscall(number, bad, bad, bad)
		}
		return
	}
	if os.Args[1] == "operations" {
		operate(os.Args[2], os.Args[3])
		return
	}
	fd, err := syscall.Open(os.Args[1], syscall.O_RDONLY, 0)
	if err != nil {
		panic(err)
	}
	_ = syscall.Close(fd)
	host, port, err := net.SplitHostPort(os.Args[2])
	if err != nil {
		panic(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		panic(err)
	}
	to := &syscall.SockaddrInet4{Port: number, Addr: [4]byte(net.ParseIP(host).To4())}
	if fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0); err != nil {
		panic(err)
	}
	if err := syscall.Connect(fd, to); err != nil {
		panic(err)
	}
	if err := syscall.Dup2(fd, 0); err != nil {
		panic(err)
	}
}

// operate is one operation for each of a tier's ways to a record, and a DNS question that nobody answers.
func operate(dir, server string) {
	file, other := dir+"/file", dir+"/other"
	fd, err := syscall.Open(file, syscall.O_CREAT|syscall.O_RDWR, 0o700)
	if err != nil {
		panic(err)
	}
	host, _, err := net.SplitHostPort(server)
	if err != nil {
		panic(err)
	}
	to := &syscall.SockaddrInet4{Port: 53, Addr: [4]byte(net.ParseIP(host).To4())}
	local := &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	datagrams, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		panic(err)
	}
	stream, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		panic(err)
	}
	code, err := syscall.Mmap(fd, 0, 4096, syscall.PROT_READ|syscall.PROT_EXEC, syscall.MAP_PRIVATE)
	if err != nil {
		panic(err)
	}
	question := []byte("\x00\x4d\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01")
	for _, err := range []error{
		syscall.Mprotect(code, syscall.PROT_READ), syscall.Mprotect(code, syscall.PROT_READ|syscall.PROT_EXEC),
		syscall.Ftruncate(fd, 7), syscall.Chmod(file, 0o750), syscall.Chown(file, 1, 1), syscall.Link(file, other),
		syscall.Rename(other, file+"2"), syscall.Unlink(file + "2"), syscall.Symlink(file, other),
		syscall.Mkdir(dir+"/dir", 0o700), syscall.Rmdir(dir + "/dir"), syscall.Mknod(dir+"/pipe", syscall.S_IFIFO, 0),
		syscall.Setxattr(file, "user.a", nil, 0), syscall.Kill(os.Getpid(), 0),
		syscall.Bind(stream, local), syscall.Listen(stream, 1), syscall.Sendto(datagrams, question, 0, to),
		syscall.Setresuid(1, 1, 0),
	} {
		if err != nil && err != syscall.ENOTSUP { // extended attributes, of some file systems
			panic(err)
		}
	}
}

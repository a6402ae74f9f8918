// Command compat32 is built for GOARCH=386 by the tests of 32-bit system calls: it opens a file and connects a socket, which it
// makes its input, or makes every call that a hook on calls stands for.
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

// Package sandbox takes from the process that it runs in, for good, all that reading an image's layers does not need: files but the
// layers and a scratch directory (Landlock), system calls but a short list (seccomp), memory, processor time, file sizes and open files
// (resource limits). What reads foreign files runs in it, so that a file that takes the reader over has nothing to go on with.
package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/privilege"
)

// Config says what is left.
type Config struct {
	// Reads are directories.
	Reads []string
	// Scratch is a directory in which files may be made.
	Scratch string
	// MemoryBytes bounds what the process may write to of its memory: heap, stacks, anonymous mappings.
	MemoryBytes uint64
	// CPUSeconds of all threads together; then the kernel kills.
	CPUSeconds uint64
	// FileBytes bounds each file that is written.
	FileBytes uint64
	// OpenFiles at one time.
	OpenFiles uint64
}

// addressBytes bounds the address space. The Go runtime reserves several times what it uses, without ever touching it.
const addressBytes = 4 << 30

// Enter restricts the process, all its threads. What stays absent is Landlock on kernels that have none (before Linux 5.13, or switched
// off): the rest holds, and whoever started the process has bounded its files too.
func Enter(cfg Config) error {
	// Under memory pressure this process is the one to go, not who started it. A hint: it may not be writable.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0); err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("offer itself to the kernel's out-of-memory killer: %w", err)
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	debug.SetMemoryLimit(int64(cfg.MemoryBytes / 4 * 3)) //nolint:gosec // a few hundred MiB
	if err := limit(cfg); err != nil {
		return err
	}
	if err := landlock.V5.BestEffort().Restrict(
		landlock.RODirs(cfg.Reads...),
		landlock.RWDirs(cfg.Scratch),
		landlock.RODirs("/proc/self").IgnoreIfMissing(), // the way to what is open already, to open it for reading
	); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	return filter()
}

// dropCapabilities keeps what reads files of any owner, if that is held: a root directory may be scanned by who has all capabilities.
func dropCapabilities() error {
	const reads = "DAC_READ_SEARCH"
	if privilege.Require("scanner", reads) != nil {
		return privilege.DropAllBut()
	}
	return privilege.DropAllBut(reads)
}

func limit(cfg Config) error {
	for _, l := range []struct {
		name     string
		resource int
		value    uint64
	}{
		{"core", unix.RLIMIT_CORE, 0},
		{"cpu", unix.RLIMIT_CPU, cfg.CPUSeconds},
		{"file size", unix.RLIMIT_FSIZE, cfg.FileBytes},
		{"open files", unix.RLIMIT_NOFILE, cfg.OpenFiles},
		{"address space", unix.RLIMIT_AS, addressBytes},
		{"memory", unix.RLIMIT_DATA, cfg.MemoryBytes},
	} {
		if err := unix.Setrlimit(l.resource, &unix.Rlimit{Cur: l.value, Max: l.value}); err != nil {
			return fmt.Errorf("limit %s: %w", l.name, err)
		}
	}
	return nil
}

// allowed are the system calls that are left, with their use. Any other is refused with EPERM: no socket, no execution, no handle of a
// file (open_by_handle_at, which CAP_DAC_READ_SEARCH would let out of the layers), no other process's memory.
var allowed = []string{
	// Memory and threads of the Go runtime. clone is narrowed to threads, and tgkill to the process itself, below.
	"brk", "futex", "get_robust_list", "gettid", "getpid", "madvise", "mincore", "mmap", "mprotect", "mremap", "munmap", "rseq", "sched_getaffinity",
	"sched_yield", "set_robust_list", "set_tid_address", "exit", "exit_group", "getrandom", "membarrier",
	// Signals: preemption, and the kernel's own when a limit is reached.
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
	// Time.
	"clock_gettime", "clock_nanosleep", "gettimeofday", "nanosleep", "timer_create", "timer_delete", "timer_settime", "time",
	// Waiting for files.
	"epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd2", "pipe2", "poll", "ppoll",
	// Looking at files and reading them.
	"access", "close", "dup", "dup3", "faccessat", "faccessat2", "fadvise64", "fcntl", "fgetxattr", "flock", "fstat", "fstatfs", "getcwd", "getdents64", "getxattr",
	"lseek", "lstat", "newfstatat", "openat", "openat2", "pread64", "read", "readlink", "readlinkat", "readv", "stat", "statfs", "statx",
	// Writing the answer, and the copy of a package database in the scratch directory.
	"chmod", "copy_file_range", "fallocate", "fchmod", "fchmodat", "fdatasync", "fsync", "ftruncate", "mkdirat", "mkdir", "pwrite64", "rmdir", "sendfile", "unlink", "unlinkat",
	"write", "writev",
	// Who and where the process is.
	"getegid", "geteuid", "getgid", "getppid", "getrlimit", "getuid", "sched_getparam", "sched_getscheduler", "sysinfo", "uname",
}

func filter() error {
	info, err := arch.GetInfo("")
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	var names []string
	for _, name := range allowed { // not every architecture has all
		if _, ok := info.SyscallNames[name]; ok {
			names = append(names, name)
		}
	}
	return load(seccomp.Policy{
		DefaultAction: seccomp.ActionErrno, // EPERM
		Syscalls: []seccomp.SyscallGroup{{
			Action: seccomp.ActionAllow,
			Names:  names,
			NamesWithCondtions: []seccomp.NameWithConditions{
				condition("clone", seccomp.BitsSet, unix.CLONE_THREAD),
				condition("tgkill", seccomp.Equal, uint64(os.Getpid())), //nolint:gosec // a pid is never negative
			},
		}},
	})
}

// ForbidHandles takes from the process, and from all that it starts, the way that CAP_DAC_READ_SEARCH opens out of a container's mounts: a
// file of the host's by its handle.
func ForbidHandles() error {
	return load(seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls:      []seccomp.SyscallGroup{{Action: seccomp.ActionErrno, Names: []string{"open_by_handle_at"}}},
	})
}

func load(policy seccomp.Policy) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy}); err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	return nil
}

// condition allows a system call if its first argument is as it must be.
func condition(name string, operation seccomp.Operation, value uint64) seccomp.NameWithConditions {
	return seccomp.NameWithConditions{Name: name, Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: operation, Value: value}}}
}

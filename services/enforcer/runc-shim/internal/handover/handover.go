// Package handover turns this process into another program, which finds everything as if it had been started itself.
//
// In: a path and arguments. Out: nothing, unless the program cannot be started. Open descriptors, the working directory,
// the umask, limits, capabilities, the cgroup and the parent are the kernel's to keep over an execve. What the Go runtime
// changed before main began is put back here:
//   - limits: it raises RLIMIT_NOFILE, and syscall.Exec lowers it again;
//   - signals: it installs handlers, which an execve turns into the default action even where the caller had the signal
//     ignored (it leaves only SIGHUP and SIGINT alone), and unblocks some signals;
//   - descriptors 0, 1 and 2: it opens /dev/null where the caller had closed them;
//   - the environment: os.Environ leaves out what has the same name twice.
//
// The kernel keeps some things for each thread, the signal that announces the parent's death for example, and an execve
// keeps those of the thread that calls it. So it is called by the first thread.
package handover

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
)

// The main goroutine stays on the process's first thread: runtime.LockOSThread does that only if it is called while
// packages are initialised.
var _ = lockFirstThread()

func lockFirstThread() bool {
	runtime.LockOSThread()
	return true
}

// Exec replaces the program by the one at path. It returns only if it could not, and may be tried again with another
// path; standard descriptors that the caller had closed are then closed. It is to be called by the main goroutine.
func Exec(path string, argv []string) error {
	env := environment()
	restoreDescriptors()
	if err := restoreSignals(); err != nil {
		return fmt.Errorf("restore signals: %w", err)
	}
	return &os.PathError{Op: "execve", Path: path, Err: syscall.Exec(path, argv, env)}
}

// environment is what the kernel was given, entry by entry.
func environment() []string {
	raw, err := os.ReadFile("/proc/self/environ")
	if err != nil {
		// There is no /proc, or the caller may run this file but not read it. No container starts so, but runC tells its version.
		return os.Environ()
	}
	if len(raw) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00")
}

// restoreDescriptors closes those of the standard descriptors that were closed when the process began.
func restoreDescriptors() {
	for fd := range 3 {
		if inherited.known != 0 && inherited.closed&(1<<fd) != 0 {
			_ = syscall.Close(fd) // nobody knows of it
		}
	}
}

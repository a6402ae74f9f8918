package kill

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// pidfd is a process for as long as it is open: whatever its pid is given to afterwards, a signal sent through it
// reaches this process or none.
type pidfd int

// noPidfd is no process; closing it is allowed.
const noPidfd pidfd = -1

// openPidfd returns unix.ESRCH, wrapped, if no process has the pid. Close it when done.
func openPidfd(pid int) (pidfd, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	// A thread's id is not a process's: EINVAL, or ENOENT since Linux 6.9.
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		err = unix.ESRCH
	}
	if err != nil {
		return noPidfd, fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	return pidfd(fd), nil
}

// exited says whether the process has ended, all its threads included, within the timeout. The state in
// /proc/<pid>/stat would not do: it is Z as soon as the first thread ends, and the others may go on.
func (p pidfd) exited(timeout time.Duration) (bool, error) {
	deadline := time.Now().Add(timeout)
	for {
		left := max(0, time.Until(deadline).Milliseconds())
		fds := []unix.PollFd{{Fd: int32(p), Events: unix.POLLIN}} //nolint:gosec // a file descriptor fits
		n, err := unix.Poll(fds, int(left))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("poll pidfd: %w", err)
		}
		return n > 0, nil
	}
}

// kill sends SIGKILL. It returns unix.ESRCH, wrapped, if the process has ended and was waited for.
func (p pidfd) kill() error {
	if err := unix.PidfdSendSignal(int(p), unix.SIGKILL, nil, 0); err != nil {
		return fmt.Errorf("pidfd_send_signal: %w", err)
	}
	return nil
}

// Close is to be called once.
func (p pidfd) Close() error {
	if p == noPidfd {
		return nil
	}
	return unix.Close(int(p))
}

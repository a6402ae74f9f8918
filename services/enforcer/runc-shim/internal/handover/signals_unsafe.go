package handover

import (
	"syscall"
	"unsafe"
)

const (
	signals = 64 // of Linux on the architectures that Go knows but MIPS
	setMask = 2  // SIG_SETMASK
	ignore  = 1  // SIG_IGN
)

// sigaction is the kernel's, on architectures that have a restorer; where there is none, the mask is in its place, and
// both are zero.
type sigaction struct {
	handler, flags, restorer, mask uint64
}

// restoreSignals has those signals ignored, and those blocked in this thread, that were so when the process began. From
// here on the Go runtime may miss one of its own, so an execve must follow.
func restoreSignals() error {
	if inherited.known == 0 {
		return nil
	}
	action := sigaction{handler: ignore}
	for number := range uintptr(signals) {
		if inherited.ignored&(1<<number) == 0 {
			continue
		}
		//nolint:gosec // the kernel reads it
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, number+1, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0); errno != 0 {
			return errno
		}
	}
	blocked := inherited.blocked
	//nolint:gosec // the kernel reads it
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, setMask, uintptr(unsafe.Pointer(&blocked)), 0, 8, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

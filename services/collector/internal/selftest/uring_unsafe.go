package selftest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// io_uring as include/uapi/linux/io_uring.h lays it out, in bytes.
const (
	ringEntries  = 1
	paramsSize   = 120
	sqTailAt     = 44 // in the parameters: where things are in the ring's memory
	sqArrayAt    = 64
	sqRingOffset = 0
	sqesOffset   = 0x10000000
	sqeSize      = 64
)

// ringNothing submits an operation that does nothing (IORING_OP_NOP, which is 0, as is all else of the entry).
func ringNothing(*ground) error {
	var params [paramsSize]byte
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, ringEntries, uintptr(unsafe.Pointer(&params[0])), 0) //nolint:gosec // the call writes no more than the params
	if errno != 0 {
		return fmt.Errorf("set up io_uring: %w", errno)
	}
	return errors.Join(submitNothing(int(fd), &params), unix.Close(int(fd)))
}

func submitNothing(fd int, params *[paramsSize]byte) error {
	field := func(at int) int { return int(binary.NativeEndian.Uint32(params[at:])) }
	queue, err := unix.Mmap(fd, sqRingOffset, field(sqArrayAt)+4*ringEntries, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map io_uring: %w", err)
	}
	defer func() { _ = unix.Munmap(queue) }()
	entries, err := unix.Mmap(fd, sqesOffset, sqeSize*ringEntries, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map io_uring: %w", err)
	}
	defer func() { _ = unix.Munmap(entries) }()
	(*atomic.Uint32)(unsafe.Pointer(&queue[field(sqTailAt)])).Store(1) //nolint:gosec // the kernel aligns it
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(fd), 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("enter io_uring: %w", errno)
	}
	return nil
}

package kerneltest

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// io_uring as its users' header has it (include/uapi/linux/io_uring.h).
const (
	opNop             = 0
	opConnect         = 16
	opOpenat          = 18
	enterGetEvents    = 1
	offsetSQ          = 0
	offsetCQ          = 0x8000000
	offsetSQEs        = 0x10000000
	sqeSize           = 64
	paramsSize        = 120
	fieldSQTail       = 44
	fieldSQMask       = 48
	fieldSQArray      = 64
	fieldCQHead       = 80
	fieldCQEs         = 100
	completionResult  = 8
	submissionEntries = 4
)

// uring is an io_uring without any library.
type uring struct {
	fd       int
	params   [paramsSize]byte
	sq, cq   []byte
	sqes     []byte
	tailSeen uint32
}

func (r *uring) param(at int) uint32 { return *(*uint32)(unsafe.Pointer(&r.params[at])) }

func newURing() (*uring, error) {
	r := &uring{}
	fd, _, errno := unix.RawSyscall(unix.SYS_IO_URING_SETUP, submissionEntries, uintptr(unsafe.Pointer(&r.params[0])), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	r.fd = int(fd)
	var err error
	for _, m := range []struct {
		to     *[]byte
		offset int64
		size   int
	}{
		{&r.sq, offsetSQ, int(r.param(fieldSQArray)) + 4*submissionEntries},
		{&r.cq, offsetCQ, int(r.param(fieldCQEs)) + 16*2*submissionEntries},
		{&r.sqes, offsetSQEs, sqeSize * submissionEntries},
	} {
		if *m.to, err = unix.Mmap(r.fd, m.offset, m.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
			return nil, fmt.Errorf("map io_uring: %w", err)
		}
	}
	return r, nil
}

// do submits one operation and returns its result.
func (r *uring) do(opcode byte, fd int32, addr unsafe.Pointer, length uint32, offset uint64) (int32, error) {
	index := r.tailSeen & (submissionEntries - 1)
	sqe := r.sqes[sqeSize*index : sqeSize*(index+1)]
	clear(sqe)
	sqe[0] = opcode
	*(*int32)(unsafe.Pointer(&sqe[4])) = fd
	*(*uint64)(unsafe.Pointer(&sqe[8])) = offset
	*(*uint64)(unsafe.Pointer(&sqe[16])) = uint64(uintptr(addr))
	*(*uint32)(unsafe.Pointer(&sqe[24])) = length
	*(*uint32)(unsafe.Pointer(&r.sq[r.param(fieldSQArray)+4*index])) = index
	r.tailSeen++
	*(*uint32)(unsafe.Pointer(&r.sq[r.param(fieldSQTail)])) = r.tailSeen
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 1, 1, enterGetEvents, 0, 0); errno != 0 {
		return 0, fmt.Errorf("io_uring_enter: %w", errno)
	}
	head := (*uint32)(unsafe.Pointer(&r.cq[r.param(fieldCQHead)]))
	cqe := r.param(fieldCQEs) + 16*(*head&(2*submissionEntries-1))
	result := *(*int32)(unsafe.Pointer(&r.cq[cqe+completionResult]))
	*head++
	return result, nil
}

func ringOnce() error {
	r, err := newURing()
	if err != nil {
		return err
	}
	_, err = r.do(opNop, -1, nil, 0, 0)
	return err
}

// ringOpenAndConnect is the role that opens args[0] and connects to args[1] without a system call for either.
func ringOpenAndConnect(args []string) error {
	r, err := newURing()
	if err != nil {
		return err
	}
	at := int32(unix.AT_FDCWD)
	path := append([]byte(args[0]), 0)
	if fd, err := r.do(opOpenat, at, unsafe.Pointer(&path[0]), 0, 0); err != nil || fd < 0 {
		return fmt.Errorf("open: %d, %w", fd, err)
	}
	to := inet4(netip.MustParseAddrPort(args[1]))
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if result, err := r.do(opConnect, int32(socket), unsafe.Pointer(to), 0, unix.SizeofSockaddrInet4); err != nil || result < 0 {
		return fmt.Errorf("connect: %d, %w", result, err)
	}
	return nil
}

// ringOpen is the role: it opens the file args[0] through a ring.
func ringOpen(args []string) error {
	r, err := newURing()
	if err != nil {
		return err
	}
	path := append([]byte(args[0]), 0)
	if fd, err := r.do(opOpenat, int32(unix.AT_FDCWD), unsafe.Pointer(&path[0]), 0, 0); err != nil || fd < 0 {
		return fmt.Errorf("open: %d, %w", fd, err)
	}
	return nil
}

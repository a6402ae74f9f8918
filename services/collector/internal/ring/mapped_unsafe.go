package ring

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Bits of a record's length (include/uapi/linux/bpf.h: BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT) and the size of its
// header.
const (
	busyBit    = 1 << 31
	discardBit = 1 << 30
	headerSize = 8
)

// mapped is a ring of the kernel (BPF_MAP_TYPE_RINGBUF) in our memory: a page that we write, in which the consumer's
// position lies; a page that the kernel writes, with the producer's; and the data, mapped twice in a row, so that no record
// is cut in two.
type mapped struct {
	head     []byte // the consumer's page
	body     []byte // the producer's page and the data
	consumer *atomic.Uint64
	producer *atomic.Uint64
	data     []byte
	size     uint64
}

func mapRing(m *ebpf.Map) (*mapped, error) {
	page, size := os.Getpagesize(), int(m.MaxEntries())
	head, err := unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map ring's consumer page: %w", err)
	}
	body, err := unix.Mmap(m.FD(), int64(page), page+2*size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map ring's data: %w", err), unix.Munmap(head))
	}
	return &mapped{
		head: head, body: body, data: body[page:], size: uint64(size), //nolint:gosec // a power of two below 2^31
		// Both pages begin with an unsigned long, which is 64 bits on the architectures we support.
		consumer: (*atomic.Uint64)(unsafe.Pointer(&head[0])), //nolint:gosec // a page that stays mapped as long as m
		producer: (*atomic.Uint64)(unsafe.Pointer(&body[0])), //nolint:gosec // as above
	}, nil
}

// at returns the record at a position and the position after it. ok is false if nothing has been written there yet. sample is
// nil for a record that its writer took back; it is valid until the consumer's position passes it.
func (m *mapped) at(position uint64) (sample []byte, next uint64, ok bool) {
	if position >= m.producer.Load() {
		return nil, position, false
	}
	start := position & (m.size - 1)
	length := (*atomic.Uint32)(unsafe.Pointer(&m.data[start])).Load() //nolint:gosec // records begin at multiples of 8
	if length&busyBit != 0 {
		return nil, position, false
	}
	bytes := uint64(length &^ (busyBit | discardBit))
	next = position + (bytes+headerSize+7)/8*8
	if length&discardBit != 0 {
		return nil, next, true
	}
	return m.data[start+headerSize : start+headerSize+bytes], next, true
}

func (m *mapped) close() error {
	return errors.Join(unix.Munmap(m.head), unix.Munmap(m.body))
}

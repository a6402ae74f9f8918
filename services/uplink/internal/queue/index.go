package queue

import (
	"slices"
)

// fifo is a queue of ascending sequence numbers, each with the size of what it stands for.
type fifo struct {
	sequences []uint64
	sizes     []uint32 // beside sequences, since a struct of both would take 16 bytes
	head      int
	bytes     int64 // sum of sizes
}

func (f *fifo) len() int { return len(f.sequences) - f.head }

func (f *fifo) push(sequence uint64, size uint32) {
	f.sequences = append(f.sequences, sequence)
	f.sizes = append(f.sizes, size)
	f.bytes += int64(size)
}

func (f *fifo) pop() uint64 {
	sequence := f.sequences[f.head]
	f.bytes -= int64(f.sizes[f.head])
	f.head++
	if f.head == len(f.sequences) {
		*f = fifo{} // gives the memory of an outage back
	} else if f.head > 1024 && f.head > len(f.sequences)/2 {
		f.sequences = slices.Clone(f.sequences[f.head:])
		f.sizes = slices.Clone(f.sizes[f.head:])
		f.head = 0
	}
	return sequence
}

func (f *fifo) find(sequence uint64) (at int, ok bool) {
	at, ok = slices.BinarySearch(f.sequences[f.head:], sequence)
	return f.head + at, ok
}

// remove takes out one sequence; nearly always that is the head.
func (f *fifo) remove(sequence uint64) (size uint32, ok bool) {
	at, ok := f.find(sequence)
	if !ok {
		return 0, false
	}
	size = f.sizes[at]
	if at == f.head {
		f.pop()
		return size, true
	}
	f.sequences = slices.Delete(f.sequences, at, at+1)
	f.sizes = slices.Delete(f.sizes, at, at+1)
	f.bytes -= int64(size)
	return size, true
}

// index knows which findings are pending, by severity, and which are delivered, each in order of arrival. It holds
// 12 bytes a finding. Not safe for concurrent use.
type index struct {
	pending   [ranks]fifo
	delivered fifo
	last      uint64
}

func (x *index) waiting() int {
	n := 0
	for i := range x.pending {
		n += x.pending[i].len()
	}
	return n
}

// waitingBytes is the size of what is pending.
func (x *index) waitingBytes() int64 {
	var n int64
	for i := range x.pending {
		n += x.pending[i].bytes
	}
	return n
}

func (x *index) isPending(sequence uint64) bool {
	for i := range x.pending {
		if _, ok := x.pending[i].find(sequence); ok {
			return true
		}
	}
	return false
}

func (x *index) remove(sequence uint64) (size uint32, ok bool) {
	for i := range x.pending {
		if size, ok := x.pending[i].remove(sequence); ok {
			return size, true
		}
	}
	return 0, false
}

// first are the n pending findings that arrived first.
func (x *index) first(n int) []uint64 {
	var at [ranks]int
	var out []uint64
	for len(out) < n {
		best := -1
		for rank := range x.pending {
			f := &x.pending[rank]
			if at[rank] < f.len() && (best < 0 || f.sequences[f.head+at[rank]] < x.peek(best, at[best])) {
				best = rank
			}
		}
		if best < 0 {
			break
		}
		out = append(out, x.peek(best, at[best]))
		at[best]++
	}
	return out
}

func (x *index) peek(rank, at int) uint64 {
	f := &x.pending[rank]
	return f.sequences[f.head+at]
}

// evict takes out the pending findings that matter least, of the lowest severity the oldest, until at most keep of at
// most keepBytes are left.
func (x *index) evict(keep int, keepBytes int64) []uint64 {
	var out []uint64
	left, bytes := x.waiting(), x.waitingBytes()
	for rank := ranks - 1; rank >= 0; rank-- {
		f := &x.pending[rank]
		for (left > keep || bytes > keepBytes) && f.len() > 0 {
			left, bytes = left-1, bytes-int64(f.sizes[f.head])
			out = append(out, f.pop())
		}
	}
	return out
}

// expire takes out the oldest delivered findings, so that at most keep of at most keepBytes are left.
func (x *index) expire(keep int, keepBytes int64) []uint64 {
	var out []uint64
	for x.delivered.len() > keep || x.delivered.bytes > keepBytes {
		out = append(out, x.delivered.pop())
	}
	return out
}

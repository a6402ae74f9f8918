// Package uapi has the names that Linux's user API gives to numbers: errors, signals, requests, bits of a mask. Data in:
// a number from an event; data out: its name, as the manual pages and Falco's rules write it.
package uapi

import "strconv"

// name is the table's name of n, or n in decimal if it has none.
func name(table []string, n uint64) string {
	if n < uint64(len(table)) && table[n] != "" {
		return table[n]
	}
	return strconv.FormatUint(n, 10)
}

// Errno names an error number, which is positive.
func Errno(n uint64) string { return name(errnos[:], n) }

// Signal names a signal; a real-time one is its number.
func Signal(n uint32) string { return name(signals[:], uint64(n)) }

// Family names an address family.
func Family(n uint32) string { return name(families[:], uint64(n)) }

// SocketType names a type of socket.
func SocketType(n uint32) string { return name(socketTypes[:], uint64(n)) }

// BPFCommand names a command of bpf(2).
func BPFCommand(n uint64) string { return name(bpfCommands[:], n) }

// noOperation is what stands for add_key(2) and request_key(2), which are calls of their own.
const noOperation = 0xffffffff

// KeyctlOperation names an operation of keyctl(2). Of add_key(2) and request_key(2) it says only that it is one of them.
func KeyctlOperation(n uint64) string {
	if n == noOperation {
		return "ADD_KEY|REQUEST_KEY"
	}
	return name(keyctlOperations[:], n)
}

// IOUringOp names an operation of an io_uring.
func IOUringOp(n uint32) string { return name(ioUringOps[:], uint64(n)) }

// PerfType names a type of event of perf_event_open(2).
func PerfType(n uint64) string { return name(perfTypes[:], n) }

// DNSCode names a response code.
func DNSCode(n uint32) string { return name(dnsCodes[:], uint64(n)) }

// PtraceRequest names a request of ptrace(2).
func PtraceRequest(n uint64) string {
	if s, ok := ptraceRequests[n]; ok {
		return s
	}
	return strconv.FormatUint(n, 10)
}

// DNSType names a type of resource record.
func DNSType(n uint32) string {
	if s, ok := dnsTypes[n]; ok {
		return s
	}
	return strconv.FormatUint(uint64(n), 10)
}

// Bit names one bit of a mask, or several that belong together.
type Bit struct {
	Mask uint64
	Name string
}

// AppendBits appends the names of a mask's bits, with separator between them, then those without a name as one number
// in hexadecimal.
func AppendBits(dst []byte, bits []Bit, mask uint64, separator byte) []byte {
	start, rest := len(dst), mask
	for _, b := range bits {
		if mask&b.Mask != b.Mask {
			continue
		}
		if len(dst) > start {
			dst = append(dst, separator)
		}
		dst = append(dst, b.Name...)
		rest &^= b.Mask
	}
	if rest == 0 {
		return dst
	}
	if len(dst) > start {
		dst = append(dst, separator)
	}
	return strconv.AppendUint(append(dst, "0x"...), rest, 16)
}

//go:build !amd64

package kerneltest

import (
	"testing"

	"golang.org/x/sys/unix"
)

// rawOpen is openat here: newer architectures have no system call open, and no 32-bit twin that we test.
func rawOpen(path string, flags int) (int, error) { return unix.Open(path, flags, 0) }

// rawDup2 is dup3 here, as rawOpen is openat.
func rawDup2(from, to int) error { return unix.Dup3(from, to, 0) }

// x32Operations is the role of calls that only x86-64 has.
func x32Operations([]string) error { return nil }

// compat32 is the 32-bit program; there is none.
func compat32(*testing.T) string { return "" }

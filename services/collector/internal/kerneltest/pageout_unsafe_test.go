package kerneltest

import (
	"encoding/binary"
	"os"
	"unsafe"
)

// writeSwap writes an empty swap file: a header (include/linux/swap.h: union swap_header) and nothing.
func writeSwap(path string, size int) error {
	page := os.Getpagesize()
	raw := make([]byte, size)
	binary.LittleEndian.PutUint32(raw[1024:], 1) // version
	binary.LittleEndian.PutUint32(raw[1028:], uint32(size/page-1))
	copy(raw[page-10:], "SWAPSPACE2")
	return os.WriteFile(path, raw, 0o600)
}

// swapCall is swapon or swapoff.
func swapCall(call uintptr, path string) error {
	raw := append([]byte(path), 0)
	return rawCall(call, uintptr(unsafe.Pointer(&raw[0])), 0, 0)
}

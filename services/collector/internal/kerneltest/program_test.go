package kerneltest

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// machine is how a program ends at once, and what the ELF header calls the processor.
var machine = map[string]struct {
	code   []byte
	number uint16
}{
	"amd64": {number: 62, code: []byte{0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05}},                   // exit(0)
	"arm64": {number: 183, code: []byte{0xa8, 0x0b, 0x80, 0xd2, 0, 0, 0x80, 0xd2, 0x01, 0, 0, 0xd4}}, // exit(0)
}

// program writes the smallest program: it exits. Unlike any that a linker made it opens no library, so that to run it
// is one fork, one exec and one exit, and nothing else.
func program(t *testing.T, path string) {
	t.Helper()
	programOf(t, path, machine[runtime.GOARCH].code)
}

// programOf writes a program that is this machine code.
func programOf(t *testing.T, path string, code []byte) {
	t.Helper()
	const loadAt, headers = 0x400000, 64 + 56
	var elf bytes.Buffer
	write := func(fields ...any) {
		for _, field := range fields {
			if err := binary.Write(&elf, binary.LittleEndian, field); err != nil {
				t.Fatal(err)
			}
		}
	}
	size := uint64(headers + len(code))
	write([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9), uint16(2), machine[runtime.GOARCH].number, uint32(1), uint64(loadAt+headers), uint64(64), uint64(0))
	write(uint32(0), uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0))
	write(uint32(1), uint32(5), uint64(0), uint64(loadAt), uint64(loadAt), size, size, uint64(0x1000), code)
	if err := os.WriteFile(path, elf.Bytes(), 0o700); err != nil { //nolint:gosec // it is executed
		t.Fatal(err)
	}
}

// programIn writes it to a directory of its own.
func programIn(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	program(t, path)
	return path
}

package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os/exec"
)

// Fields of the setup header, where Documentation/arch/x86/boot.rst has them.
const (
	setupSectorsAt  = 0x1f1
	headerMagicAt   = 0x202
	payloadOffsetAt = 0x248
	payloadLengthAt = 0x24c
	setupHeaderEnd  = 0x250
	sectorBytes     = 512
)

var (
	errNotBzImage  = errors.New("not a bzImage with a payload")
	errCompression = errors.New("compressed in a way that is not known here")
	errNotELF      = errors.New("payload is no ELF file")
	elfMagic       = []byte("\x7fELF")
)

// extractVmlinux returns the ELF file inside a bzImage. QEMU boots that by PVH, and the slow part of a boot under TCG,
// the kernel decompressing itself, falls away.
func extractVmlinux(ctx context.Context, image []byte) ([]byte, error) {
	payload, err := findPayload(image)
	if err != nil {
		return nil, err
	}
	elf, err := decompress(ctx, payload)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(elf, elfMagic) {
		return nil, errNotELF
	}
	return elf, nil
}

// findPayload cuts out the compressed kernel.
func findPayload(image []byte) ([]byte, error) {
	if len(image) < setupHeaderEnd || string(image[headerMagicAt:headerMagicAt+4]) != "HdrS" {
		return nil, errNotBzImage
	}
	sectors := uint64(image[setupSectorsAt])
	if sectors == 0 { // as boot.rst says
		sectors = 4
	}
	start := (sectors+1)*sectorBytes + uint64(binary.LittleEndian.Uint32(image[payloadOffsetAt:]))
	end := start + uint64(binary.LittleEndian.Uint32(image[payloadLengthAt:]))
	if start >= end || end > uint64(len(image)) {
		return nil, errNotBzImage
	}
	return image[start:end], nil
}

// compressions are those that Debian has used for kernels and modules, by their first bytes.
var compressions = []struct {
	magic   string
	command []string
}{
	{magic: "\xfd7zXZ\x00", command: []string{"xz", "-dc"}},
	{magic: "\x28\xb5\x2f\xfd", command: []string{"zstd", "-dc"}},
	{magic: "\x02\x21\x4c\x18", command: []string{"lz4", "-dc"}},
}

// decompress undoes one of the compressions or gzip. The kernel's build appends the length to what the commands wrote,
// four bytes that they complain about after having written all: what counts is that length.
func decompress(ctx context.Context, raw []byte) ([]byte, error) {
	if bytes.HasPrefix(raw, []byte("\x1f\x8b")) {
		reader, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return nil, err
		}
		reader.Multistream(false)
		return io.ReadAll(reader)
	}
	for _, c := range compressions {
		if !bytes.HasPrefix(raw, []byte(c.magic)) {
			continue
		}
		cmd := exec.CommandContext(ctx, c.command[0], c.command[1:]...)
		cmd.Stdin = bytes.NewReader(raw)
		out, err := cmd.Output()
		if err != nil && (len(out) == 0 || uint64(len(out)) != appendedLength(raw)) {
			return nil, fmt.Errorf("%s: %w", c.command[0], err)
		}
		return out, nil
	}
	return nil, errCompression
}

func appendedLength(raw []byte) uint64 {
	return uint64(binary.LittleEndian.Uint32(raw[len(raw)-4:]))
}

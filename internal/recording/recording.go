// Package recording is the file of `palisade record`: what a correlator's pipeline took in, to be replayed. Data in and out:
// RecordedEntry messages, in order. A reader trusts nothing in a file.
//
// A file is a header, blocks, and an end. Numbers are little-endian.
//
//	header  "PALISREC", version (4 bytes), CRC-32C of both (4)
//	block   "PBLK", entries (4), raw bytes (4), stored bytes (4), CRC-32C of these and of what is stored (4), what is stored
//	end     a block called "PEND" that has as many entries as there were in all, and nothing stored
//
// What is stored is one zstd frame. Unpacked it is entries in turn, each a protobuf message behind its length as a varint. A file
// without an end was not finished, and is good up to there.
package recording

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Version is that of the files written. A reader takes no other.
const Version = 1

const (
	magic     = "PALISREC"
	blockMark = "PBLK"
	endMark   = "PEND"

	headerSize      = len(magic) + 4 + 4
	blockHeaderSize = len(blockMark) + 4*4

	// maxBlock bounds a block's raw and stored bytes. An entry is at most maxEntry, which is what gRPC takes of a batch.
	maxBlock = 64 << 20
	maxEntry = 32 << 20
	// fullBlock is when a block is written without being asked for.
	fullBlock = 1 << 20
)

// Errors of reading, in a *DamageError but for ErrFormat.
var (
	// ErrFormat: not a recording, or of another version.
	ErrFormat = errors.New("not a recording that this version reads")
	// ErrTruncated: the file ends where it should go on.
	ErrTruncated = errors.New("file is cut off")
	// ErrCorrupt: what is there is not what was written.
	ErrCorrupt = errors.New("file is damaged")
)

// DamageError says where a file cannot be read on, and what could be read before.
type DamageError struct {
	// Offset is the first byte of the block, Block its number from 1.
	Offset int64
	Block  int
	// Entries is how many were read before it.
	Entries uint64
	Err     error
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("block %d at byte %d: %v: the %d entries before it were read", e.Block, e.Offset, e.Err, e.Entries)
}

func (e *DamageError) Unwrap() error { return e.Err }

// blockHeader is the head of a block.
type blockHeader struct {
	mark                 [4]byte
	entries, raw, stored uint32
	sum                  uint32
}

func (h blockHeader) append(dst []byte) []byte {
	dst = append(dst, h.mark[:]...)
	for _, n := range [...]uint32{h.entries, h.raw, h.stored, h.sum} {
		dst = binary.LittleEndian.AppendUint32(dst, n)
	}
	return dst
}

// parseBlockHeader reads a block's head of blockHeaderSize bytes. It checks no sum.
func parseBlockHeader(b []byte) (blockHeader, error) {
	h := blockHeader{
		mark: [4]byte(b), entries: binary.LittleEndian.Uint32(b[4:]), raw: binary.LittleEndian.Uint32(b[8:]),
		stored: binary.LittleEndian.Uint32(b[12:]), sum: binary.LittleEndian.Uint32(b[16:]),
	}
	switch {
	case string(h.mark[:]) != blockMark && string(h.mark[:]) != endMark:
		return h, fmt.Errorf("%w: no block begins here", ErrCorrupt)
	case h.raw > maxBlock || h.stored > maxBlock:
		return h, fmt.Errorf("%w: a block of %d bytes, stored in %d: at most %d", ErrCorrupt, h.raw, h.stored, maxBlock)
	}
	return h, nil
}

// sumOf is the checksum of a block: of its head up to the sum, and of what is stored.
func (h blockHeader) sumOf(stored []byte) uint32 {
	h.sum = 0
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(h.append(nil)[:blockHeaderSize-4], table), table, stored)
}

// header is a file's first bytes.
func header(version uint32) []byte {
	head := binary.LittleEndian.AppendUint32([]byte(magic), version)
	return binary.LittleEndian.AppendUint32(head, crc32.Checksum(head, crc32.MakeTable(crc32.Castagnoli)))
}

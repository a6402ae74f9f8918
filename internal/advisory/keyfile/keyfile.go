// Package keyfile is a file of entries in the order of their keys that is written once and then only read: whoever has it open reads
// the same to the end, whatever is put in its place. Data in and out: keys, values, and metadata in JSON; a reader trusts nothing in a file.
//
// A file is blocks of entries, an index, and a footer. Numbers are little-endian.
//
//	block   one zstd frame of entries: length of the key, key, length of the value, value (lengths as varints)
//	index   one zstd frame of JSON: the metadata, and of each block first key, place, lengths and CRC-32C
//	footer  "PALIKEYS", version (4 bytes), place of the index (8), its stored (4) and raw bytes (4), their CRC-32C (4), CRC-32C of
//	        all this (4)
//
// Several entries may have one key.
package keyfile

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
)

const (
	fileMagic   = "PALIKEYS"
	fileVersion = 1
	footerSize  = len(fileMagic) + 4 + 8 + 4 + 4 + 4 + 4

	// fullBlock is when a block is written. One entry may be larger: maxBlock bounds it, and what is read.
	fullBlock = 64 << 10
	maxBlock  = 32 << 20
)

// index is what says where things are.
type index struct {
	Metadata json.RawMessage `json:"metadata"`
	Blocks   []block         `json:"blocks"`
}

// block is where a block is.
type block struct {
	First  string `json:"f"`
	Offset int64  `json:"o"`
	Stored uint32 `json:"s"`
	Raw    uint32 `json:"r"`
	Sum    uint32 `json:"c"`
}

func sum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// Writer writes a file. It is not safe for concurrent use.
type Writer struct {
	out    io.Writer
	zip    *zstd.Encoder
	raw    []byte
	first  string
	offset int64
	blocks []block
}

// NewWriter writes to out, which it does not close. Its memory is a block's and the index's.
func NewWriter(out io.Writer) (*Writer, error) {
	zip, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("make compressor: %w", err)
	}
	return &Writer{out: out, zip: zip}, nil
}

// Add adds an entry. Keys come in order.
func (w *Writer) Add(key string, value []byte) error {
	if len(w.raw) > 0 && len(w.raw)+len(value) > fullBlock {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if len(w.raw) == 0 {
		w.first = key
	}
	w.raw = append(binary.AppendUvarint(w.raw, uint64(len(key))), key...)
	w.raw = append(binary.AppendUvarint(w.raw, uint64(len(value))), value...)
	if len(w.raw) > maxBlock {
		return fmt.Errorf("an entry of %d bytes, at most %d", len(w.raw), maxBlock)
	}
	return nil
}

func (w *Writer) flush() error {
	if len(w.raw) == 0 {
		return nil
	}
	b, err := w.put(w.raw)
	b.First = w.first
	w.blocks, w.raw = append(w.blocks, b), w.raw[:0]
	return err
}

// put writes a frame and says where it is.
func (w *Writer) put(raw []byte) (block, error) {
	stored := w.zip.EncodeAll(raw, nil)
	b := block{Offset: w.offset, Stored: uint32(len(stored)), Raw: uint32(len(raw)), Sum: sum(stored)} //nolint:gosec // bounded by maxBlock
	n, err := w.out.Write(stored)
	w.offset += int64(n)
	return b, err
}

// Finish writes what waits, the metadata and the end. A file without it cannot be read.
func (w *Writer) Finish(metadata any) error {
	if err := w.flush(); err != nil {
		return err
	}
	m, err := json.Marshal(metadata)
	if err != nil {
		return fmt.Errorf("encode metadata: %w", err)
	}
	raw, err := json.Marshal(index{Metadata: m, Blocks: w.blocks})
	if err != nil {
		return fmt.Errorf("encode index: %w", err)
	}
	b, err := w.put(raw)
	if err != nil {
		return err
	}
	footer := binary.LittleEndian.AppendUint32([]byte(fileMagic), fileVersion)
	footer = binary.LittleEndian.AppendUint64(footer, uint64(b.Offset)) //nolint:gosec // an offset
	for _, n := range []uint32{b.Stored, b.Raw, b.Sum} {
		footer = binary.LittleEndian.AppendUint32(footer, n)
	}
	_, err = w.out.Write(binary.LittleEndian.AppendUint32(footer, sum(footer)))
	return errors.Join(err, w.zip.Close())
}

// File is a file to read. It is safe for concurrent use.
type File struct {
	in    io.ReaderAt
	zip   *zstd.Decoder
	index index
}

// Open reads the footer and the index, and of the metadata what fits metadata. in stays the caller's to close, after Close. The error
// says what is wrong with the file.
func Open(in io.ReaderAt, size int64, metadata any) (*File, error) {
	footer := make([]byte, footerSize)
	if size < int64(footerSize) {
		return nil, fmt.Errorf("%d bytes are too few", size)
	}
	if _, err := in.ReadAt(footer, size-int64(footerSize)); err != nil {
		return nil, fmt.Errorf("read footer: %w", err)
	}
	if string(footer[:len(fileMagic)]) != fileMagic || sum(footer[:footerSize-4]) != binary.LittleEndian.Uint32(footer[footerSize-4:]) {
		return nil, errors.New("it has no footer: it is cut off, or no store")
	}
	rest := footer[len(fileMagic):]
	if version := binary.LittleEndian.Uint32(rest); version != fileVersion {
		return nil, fmt.Errorf("it is of version %d, this is %d", version, fileVersion)
	}
	where := block{
		Offset: int64(binary.LittleEndian.Uint64(rest[4:])), //nolint:gosec // checked by read
		Stored: binary.LittleEndian.Uint32(rest[12:]), Raw: binary.LittleEndian.Uint32(rest[16:]), Sum: binary.LittleEndian.Uint32(rest[20:]),
	}
	zip, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxBlock))
	if err != nil {
		return nil, fmt.Errorf("make decompressor: %w", err)
	}
	f := &File{in: in, zip: zip}
	if err := f.readIndex(where, size, metadata); err != nil {
		zip.Close()
		return nil, err
	}
	return f, nil
}

// Close releases what reading takes.
func (f *File) Close() { f.zip.Close() }

func (f *File) readIndex(where block, size int64, metadata any) error {
	raw, err := f.read(where, size)
	if err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	if err := json.Unmarshal(raw, &f.index); err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	if err := json.Unmarshal(f.index.Metadata, metadata); err != nil {
		return fmt.Errorf("read metadata: %w", err)
	}
	f.index.Metadata = nil
	for i, b := range f.index.Blocks {
		if b.Offset < 0 || b.Offset+int64(b.Stored) > where.Offset || i > 0 && b.First < f.index.Blocks[i-1].First {
			return fmt.Errorf("index: block %d is out of place", i)
		}
	}
	return nil
}

// read returns the entries of a block in a file of that size.
func (f *File) read(b block, size int64) ([]byte, error) {
	if b.Stored > maxBlock || b.Raw > maxBlock || b.Offset < 0 || b.Offset > size-int64(b.Stored) {
		return nil, errors.New("a block is out of bounds")
	}
	stored := make([]byte, b.Stored)
	if _, err := f.in.ReadAt(stored, b.Offset); err != nil {
		return nil, fmt.Errorf("read %d bytes at %d: %w", b.Stored, b.Offset, err)
	}
	if sum(stored) != b.Sum {
		return nil, fmt.Errorf("the %d bytes at %d have another checksum", b.Stored, b.Offset)
	}
	raw, err := f.zip.DecodeAll(stored, make([]byte, 0, b.Raw))
	if err != nil {
		return nil, fmt.Errorf("decompress the %d bytes at %d: %w", b.Stored, b.Offset, err)
	}
	return raw, nil
}

// Cursor looks keys up. It keeps the last block, so keys that are asked for in order cost no block twice. It is not safe for
// concurrent use.
type Cursor struct {
	file *File
	at   int // of the block that raw is
	raw  []byte
}

// Cursor returns one that has read nothing yet.
func (f *File) Cursor() *Cursor { return &Cursor{file: f} }

// Each calls visit with the value of every entry of that key, which it must not keep.
func (c *Cursor) Each(key string, visit func(value []byte) error) error {
	// The key may begin in the block before the first one whose first key is not below it.
	i, _ := slices.BinarySearchFunc(c.file.index.Blocks, key, func(b block, key string) int { return cmp.Compare(b.First, key) })
	for i = max(i-1, 0); i < len(c.file.index.Blocks) && c.file.index.Blocks[i].First <= key; i++ {
		if err := c.load(i); err != nil {
			return err
		}
		err := entries(c.raw, func(k, value []byte) error {
			if string(k) == key {
				return visit(value)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// All calls visit with every entry, in order, which it must not keep.
func (c *Cursor) All(visit func(key, value []byte) error) error {
	for i := range c.file.index.Blocks {
		if err := c.load(i); err != nil {
			return err
		}
		if err := entries(c.raw, visit); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cursor) load(i int) error {
	if c.at == i && c.raw != nil {
		return nil
	}
	b := c.file.index.Blocks[i]
	raw, err := c.file.read(b, b.Offset+int64(b.Stored))
	if err != nil {
		return fmt.Errorf("block %d: %w", i, err)
	}
	c.at, c.raw = i, raw
	return nil
}

// entries takes a block apart.
func entries(raw []byte, visit func(key, value []byte) error) error {
	for len(raw) > 0 {
		var pair [2][]byte
		for i := range pair {
			n, size := binary.Uvarint(raw)
			if size <= 0 || n > uint64(len(raw)-size) { //nolint:gosec // size is at most the length
				return errors.New("an entry is longer than its block")
			}
			pair[i], raw = raw[size:size+int(n)], raw[size+int(n):] //nolint:gosec // not longer than raw
		}
		if err := visit(pair[0], pair[1]); err != nil {
			return err
		}
	}
	return nil
}

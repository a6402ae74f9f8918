package recording

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
)

// Writer writes a recording. It is not safe for concurrent use.
type Writer struct {
	out     io.Writer
	zip     *zstd.Encoder
	shared  bool   // zip is not the writer's own
	raw     []byte // entries of the block that is being filled
	inBlock uint32
	entries uint64
	size    int64
	err     error // the first one: nothing is written after it
}

// NewWriter writes the file's header to out, which it does not close.
func NewWriter(out io.Writer) (*Writer, error) {
	// One goroutine, and a small window: a recording is made beside what it records.
	zip, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return nil, fmt.Errorf("make compressor: %w", err)
	}
	w := &Writer{out: out, zip: zip}
	return w, w.put(header(Version))
}

// Compressor packs blocks for any number of writers, one of which may be used at a time: its memory is several times a block's.
type Compressor struct{ zip *zstd.Encoder }

// NewCompressor returns one that takes less time, and packs less, than a writer's own.
func NewCompressor() (*Compressor, error) {
	zip, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(fullBlock),
		zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("make compressor: %w", err)
	}
	return &Compressor{zip}, nil
}

// NewWriter is as the function NewWriter, with this compressor.
func (c *Compressor) NewWriter(out io.Writer) (*Writer, error) {
	w := &Writer{out: out, zip: c.zip, shared: true}
	return w, w.put(header(Version))
}

// Size is how many bytes the file has; what Pending says is not in it.
func (w *Writer) Size() int64 { return w.size }

// Pending is how many bytes wait, not compressed yet.
func (w *Writer) Pending() int { return len(w.raw) }

// Entries is how many were written.
func (w *Writer) Entries() uint64 { return w.entries }

// Write adds an entry, and the block to the file if it is full.
func (w *Writer) Write(entry *correlatorv1.RecordedEntry) error {
	size := proto.Size(entry)
	if size > maxEntry {
		return fmt.Errorf("write recording: an entry of %d bytes, at most %d", size, maxEntry)
	}
	raw, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(protowire.AppendVarint(w.raw, uint64(size)), entry) //nolint:gosec // a size
	if err != nil {
		return fmt.Errorf("write recording: %w", err)
	}
	w.raw = raw
	w.inBlock++
	w.entries++
	if len(w.raw) >= fullBlock {
		return w.Flush()
	}
	return w.err
}

// Flush writes the entries that wait as a block.
func (w *Writer) Flush() error {
	if w.inBlock == 0 {
		return w.err
	}
	stored := w.zip.EncodeAll(w.raw, nil)
	err := w.block(blockMark, w.inBlock, stored)
	w.raw, w.inBlock = w.raw[:0], 0
	return err
}

// Close writes what waits and the end. A file without it was not finished.
func (w *Writer) Close() error {
	err := w.Flush()
	if err == nil {
		w.raw = nil
		err = w.block(endMark, uint32(w.entries), nil) //nolint:gosec // the count is compared in 32 bits
	}
	if w.shared {
		return err
	}
	return errors.Join(err, w.zip.Close())
}

func (w *Writer) block(mark string, entries uint32, stored []byte) error {
	h := blockHeader{mark: [4]byte([]byte(mark)), entries: entries, raw: uint32(len(w.raw)), stored: uint32(len(stored))} //nolint:gosec // below maxBlock
	h.sum = h.sumOf(stored)
	return w.put(append(h.append(nil), stored...))
}

func (w *Writer) put(b []byte) error {
	if w.err != nil {
		return w.err
	}
	n, err := w.out.Write(b)
	w.size += int64(n)
	if err != nil {
		w.err = fmt.Errorf("write recording: %w", err)
	}
	return w.err
}

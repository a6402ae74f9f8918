package recording

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	"github.com/palisade-sec/palisade/internal/decode"
)

// Reader reads a recording. It is not safe for concurrent use.
type Reader struct {
	in     io.Reader
	unzip  *zstd.Decoder
	stored []byte
	block  []byte // what it unpacked to, for its reuse
	raw    []byte // entries of the block that are not read yet

	left    uint32 // entries that the block should still have
	offset  int64  // of the next block
	blocks  int    // read so far
	entries uint64
	ended   error // what the next read answers, once there is nothing more
}

// NewReader reads the file's header. The error wraps ErrFormat if it is not a recording.
func NewReader(in io.Reader) (*Reader, error) {
	if err := readHeader(in); err != nil {
		return nil, err
	}
	unzip, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBlock), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("make decompressor: %w", err)
	}
	return &Reader{in: in, unzip: unzip, offset: int64(headerSize)}, nil
}

func readHeader(in io.Reader) error {
	head := make([]byte, headerSize)
	if n, err := io.ReadFull(in, head); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: only %d bytes", ErrFormat, n)
		}
		return fmt.Errorf("read recording: %w", err)
	}
	if string(head[:len(magic)]) != magic {
		return fmt.Errorf("read recording: %w: it does not begin like one", ErrFormat)
	}
	if want := header(Version); string(head) != string(want) {
		return fmt.Errorf("read recording: %w: another version, or a damaged header", ErrFormat)
	}
	return nil
}

// Check reads a file's checksums and unpacks nothing: good is how many of its bytes are whole blocks. The error is nil if the file was
// finished, and else as NewReader's or Next's.
func Check(in io.Reader) (good int64, err error) {
	if err := readHeader(in); err != nil {
		return 0, err
	}
	r := &Reader{in: in, offset: int64(headerSize)}
	for {
		h, err := r.nextStored()
		switch {
		case errors.Is(err, io.EOF):
			return r.offset + int64(blockHeaderSize), nil
		case err != nil:
			return r.offset, err
		}
		r.entries += uint64(h.entries)
		r.pass()
	}
}

// Finished says whether a file of that size has its end. What is before it is not looked at.
func Finished(file io.ReaderAt, size int64) bool {
	tail := make([]byte, blockHeaderSize)
	if size < int64(headerSize+blockHeaderSize) {
		return false
	}
	if _, err := file.ReadAt(tail, size-int64(blockHeaderSize)); err != nil {
		return false
	}
	h, err := parseBlockHeader(tail)
	return err == nil && string(h.mark[:]) == endMark && h.stored == 0 && h.sum == h.sumOf(nil)
}

// Close lets go of the reader's memory.
func (r *Reader) Close() { r.unzip.Close() }

// Entries is how many were read.
func (r *Reader) Entries() uint64 { return r.entries }

// Next is the next entry, which is the caller's. It is io.EOF behind the last of a file that was finished, and else a
// *DamageError, now and ever after.
func (r *Reader) Next() (*correlatorv1.RecordedEntry, error) {
	raw, err := r.NextRaw()
	if err != nil {
		return nil, err
	}
	entry := &correlatorv1.RecordedEntry{}
	if err := decode.Message(raw, entry); err != nil {
		r.entries--
		return nil, r.damaged(fmt.Errorf("%w: %w", ErrCorrupt, err))
	}
	return entry, nil
}

// NextRaw is Next without decoding. The bytes are valid until the next call.
func (r *Reader) NextRaw() ([]byte, error) {
	for r.ended == nil && len(r.raw) == 0 {
		if err := r.nextBlock(); err != nil {
			r.ended = err
		}
	}
	if r.ended != nil {
		return nil, r.ended
	}
	entry, n := protowire.ConsumeBytes(r.raw)
	if n < 0 || r.left == 0 {
		return nil, r.damaged(fmt.Errorf("%w: its entries are not what its head says", ErrCorrupt))
	}
	r.raw = r.raw[n:]
	if r.left--; len(r.raw) == 0 && r.left > 0 {
		return nil, r.damaged(fmt.Errorf("%w: %d entries are missing", ErrCorrupt, r.left))
	}
	r.entries++
	return entry, nil
}

// damaged ends the reading within the block that was read last.
func (r *Reader) damaged(err error) error {
	r.ended = &DamageError{Offset: r.offset - int64(len(r.stored)+blockHeaderSize), Block: r.blocks, Entries: r.entries, Err: err}
	r.raw = nil
	return r.ended
}

// nextBlock unpacks one, or returns why there is none.
func (r *Reader) nextBlock() error {
	h, err := r.nextStored()
	if err != nil {
		return err
	}
	if r.block, err = r.unpack(h); err != nil {
		return r.damage(err)
	}
	r.raw, r.left = r.block, h.entries
	r.pass()
	return nil
}

// nextStored reads one as it is stored, whose checksum is right, or returns why there is none: io.EOF at the end of a file that was
// finished.
func (r *Reader) nextStored() (blockHeader, error) {
	head := make([]byte, blockHeaderSize)
	if _, err := io.ReadFull(r.in, head); err != nil {
		return blockHeader{}, r.damage(cut(err))
	}
	h, err := parseBlockHeader(head)
	if err != nil {
		return h, r.damage(err)
	}
	if r.stored, err = readStored(r.in, r.stored, int(h.stored)); err != nil {
		return h, r.damage(cut(err))
	}
	if h.sum != h.sumOf(r.stored) {
		return h, r.damage(fmt.Errorf("%w: its checksum is wrong", ErrCorrupt))
	}
	if string(h.mark[:]) == endMark {
		return h, r.end(h)
	}
	return h, nil
}

// pass goes behind the block that was read.
func (r *Reader) pass() {
	r.offset += int64(blockHeaderSize) + int64(len(r.stored))
	r.blocks++
}

// damage is an error in the block that comes next.
func (r *Reader) damage(err error) error {
	return &DamageError{Offset: r.offset, Block: r.blocks + 1, Entries: r.entries, Err: err}
}

// end compares what was read with what the writer counted.
func (r *Reader) end(h blockHeader) error {
	if h.entries != uint32(r.entries) { //nolint:gosec // compared in 32 bits, as it was written
		return r.damage(fmt.Errorf("%w: its end counts %d entries", ErrCorrupt, h.entries))
	}
	if n, _ := io.ReadFull(r.in, make([]byte, 1)); n > 0 {
		return r.damage(fmt.Errorf("%w: it goes on behind its end", ErrCorrupt))
	}
	return io.EOF
}

func (r *Reader) unpack(h blockHeader) ([]byte, error) {
	into := r.block[:0]
	if cap(into) < int(h.raw) {
		into = make([]byte, 0, h.raw)
	}
	raw, err := r.unzip.DecodeAll(r.stored, into[:0:h.raw]) // grows no further: WithDecodeAllCapLimit
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if len(raw) != int(h.raw) || len(raw) == 0 {
		return nil, fmt.Errorf("%w: it unpacks to %d bytes and not to %d", ErrCorrupt, len(raw), h.raw)
	}
	return raw, nil
}

// readStored reads size bytes into b's memory, which grows as they come: a damaged length must not take memory that the file has
// nothing for.
func readStored(in io.Reader, b []byte, size int) ([]byte, error) {
	const step = 1 << 20
	for b = b[:0]; len(b) < size; {
		begin, want := len(b), min(step, size-len(b))
		if cap(b) < begin+want {
			b = append(b, make([]byte, want)...)
		}
		b = b[:begin+want]
		if n, err := io.ReadFull(in, b[begin:]); err != nil {
			return b[:begin+n], err
		}
	}
	return b, nil
}

// cut turns the end of a file where it should go on into ErrTruncated.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrTruncated
	}
	return err
}

package recording_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/internal/recording"
)

func entry(n int) *correlatorv1.RecordedEntry {
	return &correlatorv1.RecordedEntry{
		Time: timestamppb.New(time.Unix(1_700_000_000, int64(n))),
		Kind: &correlatorv1.RecordedEntry_Batch{Batch: &correlatorv1.RecordedBatch{Batch: &collectorv1.StreamEventsResponse{
			BootId: "boot", Batch: uint64(n), Events: []*eventv1.Event{{Sequence: uint64(n), Comm: fmt.Sprintf("task-%d", n)}},
		}}},
	}
}

// file is a finished recording of so many entries, in blocks of four.
func file(t testing.TB, entries int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := recording.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	for n := range entries {
		if err := w.Write(entry(n)); err != nil {
			t.Fatalf("Write() = %v", err)
		}
		if n%4 == 3 {
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatalf("Close() = %v", err)
	}
	if w.Size() != int64(out.Len()) {
		t.Errorf("Size() = %d, want %d", w.Size(), out.Len())
	}
	return out.Bytes()
}

// read is all that can be read of a file, and why it ended.
func read(t testing.TB, raw []byte) ([]*correlatorv1.RecordedEntry, error) {
	t.Helper()
	r, err := recording.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var entries []*correlatorv1.RecordedEntry
	for {
		e, err := r.Next()
		if err != nil {
			if _, again := r.Next(); !errors.Is(again, err) {
				t.Errorf("Next() after its end = %v, want %v", again, err)
			}
			return entries, err
		}
		entries = append(entries, e)
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for _, count := range []int{0, 1, 4, 11} {
		got, err := read(t, file(t, count))
		if !errors.Is(err, io.EOF) || len(got) != count {
			t.Fatalf("read %d entries and %v, want %d and EOF", len(got), err, count)
		}
		for n, e := range got {
			if !proto.Equal(e, entry(n)) {
				t.Errorf("entry %d = %v, want %v", n, e, entry(n))
			}
		}
	}
}

func TestLargeEntriesAreWritten(t *testing.T) {
	var out bytes.Buffer
	w, err := recording.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	large := entry(1)
	large.GetBatch().GetBatch().BootId = strings.Repeat("x", 20<<20)
	for range 3 {
		if err := w.Write(large); err != nil {
			t.Fatal(err)
		}
	}
	large.GetBatch().GetBatch().BootId = strings.Repeat("x", 33<<20)
	if err := w.Write(large); err == nil {
		t.Error("Write(33 MiB) = nil, want an error")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, out.Bytes()); !errors.Is(err, io.EOF) || len(got) != 3 {
		t.Errorf("read %d entries and %v, want 3 and EOF", len(got), err)
	}
}

// Whatever is cut off, the whole blocks before it are read, and the error says where they end.
func TestAFileThatIsCutOffIsReadUpToThere(t *testing.T) {
	whole := file(t, 11)
	for length := range whole {
		got, err := read(t, whole[:length])
		var damage *recording.DamageError
		switch {
		case length < 16:
			if !errors.Is(err, recording.ErrFormat) {
				t.Errorf("%d bytes: error = %v, want ErrFormat", length, err)
			}
			continue
		case !errors.As(err, &damage) || !errors.Is(err, recording.ErrTruncated):
			t.Fatalf("%d bytes: error = %v, want a DamageError of ErrTruncated", length, err)
		case damage.Offset > int64(length) || damage.Entries != uint64(len(got)) || damage.Block != (len(got)+3)/4+1:
			t.Errorf("%d bytes: %+v after %d entries", length, damage, len(got))
		}
		for n, e := range got {
			if !proto.Equal(e, entry(n)) {
				t.Errorf("%d bytes: entry %d = %v, want %v", length, n, e, entry(n))
			}
		}
	}
}

// Whatever byte is changed, that is noticed, and what is read before it is what was written.
func TestAChangedByteIsNoticed(t *testing.T) {
	whole := file(t, 11)
	for at := range whole {
		changed := bytes.Clone(whole)
		changed[at] ^= 0x55
		got, err := read(t, changed)
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("byte %d of %d: error = %v, want one", at, len(whole), err)
		}
		for n, e := range got {
			if !proto.Equal(e, entry(n)) {
				t.Errorf("byte %d: entry %d = %v, want %v", at, n, e, entry(n))
			}
		}
	}
	if _, err := read(t, append(file(t, 3), 0)); !errors.Is(err, recording.ErrCorrupt) {
		t.Errorf("a byte behind the end: error = %v, want ErrCorrupt", err)
	}
}

// Check and Finished say of every file what reading it says.
func TestCheckSaysWhatReadingSays(t *testing.T) {
	whole := file(t, 11)
	for length := range len(whole) + 1 {
		raw := whole[:length]
		entries, want := read(t, raw)
		good, err := recording.Check(bytes.NewReader(raw))
		if finished := errors.Is(want, io.EOF); finished != (err == nil) || finished != recording.Finished(bytes.NewReader(raw), int64(length)) {
			t.Errorf("%d bytes: Check() = %v, Finished() = %t, want as %v", length, err, !finished, want)
		}
		if again, _ := read(t, raw[:good]); len(again) != len(entries) {
			t.Errorf("%d bytes: the first %d have %d entries, want all %d", length, good, len(again), len(entries))
		}
	}
	for at := range whole {
		changed := bytes.Clone(whole)
		changed[at] ^= 0x55
		if _, err := recording.Check(bytes.NewReader(changed)); err == nil {
			t.Errorf("byte %d of %d is changed: Check() = nil, want an error", at, len(whole))
		}
	}
}

func TestWritersShareACompressor(t *testing.T) {
	compressor, err := recording.NewCompressor()
	if err != nil {
		t.Fatal(err)
	}
	var outs [3]bytes.Buffer
	var writers [3]*recording.Writer
	for i := range writers {
		if writers[i], err = compressor.NewWriter(&outs[i]); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 30 {
		if err := errors.Join(writers[n%3].Write(entry(n)), writers[n%3].Flush()); err != nil {
			t.Fatal(err)
		}
	}
	for i, w := range writers {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := read(t, outs[i].Bytes())
		if !errors.Is(err, io.EOF) || len(got) != 10 || !proto.Equal(got[9], entry(27+i)) {
			t.Errorf("writer %d: read %d entries and %v, want 10 and EOF", i, len(got), err)
		}
	}
}

func FuzzRead(f *testing.F) {
	whole := file(f, 11)
	f.Add(whole)
	f.Add(whole[:100])
	f.Add(file(f, 0))
	f.Add([]byte("PALISREC"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 1<<20 {
			return
		}
		_, err := read(t, raw) // ends, and takes no more memory than a block
		if good, checked := recording.Check(bytes.NewReader(raw)); good > int64(len(raw)) || errors.Is(err, io.EOF) && checked != nil {
			t.Errorf("Check() = %d, %v of %d bytes that are read to %v", good, checked, len(raw), err)
		}
	})
}

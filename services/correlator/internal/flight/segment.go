package flight

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/recording"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// Files are called by a number in 16 hex digits and what they are.
const (
	ringSuffix     = ".events"
	incidentSuffix = ".incident"
	corruptSuffix  = ".corrupt"

	numberDigits = 16
)

// segment is one file. What may change of it is guarded by Recorder.mu, but for the writer.
type segment struct {
	path   string
	number uint64
	// size is how many bytes are whole blocks; what is behind them is not looked at.
	size int64
	// first is when it was begun, last when it was last written to, both by the wall clock.
	first, last time.Time
	// cut says that it was not finished: what was to come next is missing.
	cut bool
	// open says that more is written to it, with writer, which is the writing goroutine's alone.
	open   bool
	writer *recording.Writer
}

// allocated is about what the segment takes on disk.
func (s *segment) allocated() int64 {
	const block = 4096
	return (s.size + block - 1) &^ (block - 1)
}

func fileName(number uint64, suffix string) string {
	return fmt.Sprintf("%0*x%s", numberDigits, number, suffix)
}

// parseName is the number of a file with the suffix.
func parseName(name, suffix string) (uint64, bool) {
	if len(name) != numberDigits+len(suffix) || name[numberDigits:] != suffix {
		return 0, false
	}
	n, err := strconv.ParseUint(name[:numberDigits], 16, 64)
	return n, err == nil && fileName(n, suffix) == name
}

// appender adds to a file that is there, which it holds open no longer than that: there may be thousands.
type appender string

func (a appender) Write(b []byte) (int, error) {
	f, err := os.OpenFile(string(a), os.O_WRONLY|os.O_APPEND|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return 0, err
	}
	n, err := f.Write(b)
	return n, errors.Join(err, f.Close())
}

// create begins a file with whose it is. It leaves none behind if that cannot be written.
func (r *Recorder) create(suffix string, slice *correlatorv1.Slice) (*segment, error) {
	s := &segment{number: r.next, path: filepath.Join(r.directory, fileName(r.next, suffix)), first: r.now(), open: true}
	r.next++
	f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	if s.writer, err = r.zip.NewWriter(appender(s.path)); err == nil {
		err = s.append(s.first, &correlatorv1.RecordedEntry{Kind: &correlatorv1.RecordedEntry_Slice{Slice: slice}})
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(s.path))
	}
	s.size, s.last = s.writer.Size(), s.first
	return s, nil
}

// append writes entries as a block. After an error nothing may be written to the segment any more.
func (s *segment) append(at time.Time, entries ...*correlatorv1.RecordedEntry) error {
	for _, e := range entries {
		e.Time = timestamppb.New(at)
		if err := s.writer.Write(e); err != nil {
			return err
		}
	}
	return s.writer.Flush()
}

// abandon gives a segment up that could not be written: what is not whole goes.
func (s *segment) abandon() error {
	s.writer = nil
	return os.Truncate(s.path, s.size)
}

// entriesOf are what was taken of a ring, as entries: what is missing first, because it was before the rest or among it.
func entriesOf(t taken) []*correlatorv1.RecordedEntry {
	var entries []*correlatorv1.RecordedEntry
	for reason, n := range t.missed {
		if n > 0 {
			missed := &correlatorv1.Missed{Events: n, Reason: correlatorv1.MissedReason(reason)} //nolint:gosec // below numReasons
			entries = append(entries, &correlatorv1.RecordedEntry{Kind: &correlatorv1.RecordedEntry_Missed{Missed: missed}})
		}
	}
	for _, c := range t.chunks {
		entries = append(entries, batchEntry(c))
	}
	return entries
}

func batchEntry(c *collectorv1.StreamEventsResponse) *correlatorv1.RecordedEntry {
	return &correlatorv1.RecordedEntry{Kind: &correlatorv1.RecordedEntry_Batch{Batch: &correlatorv1.RecordedBatch{Batch: c}}}
}

// errNoSlice says that a file does not begin as one of ours.
var errNoSlice = errors.New("it does not say whose events it holds")

// scan reads a segment's entries and hands each but the first, which it returns, to visit; that returns false to end the reading. An
// error is about the file; what is before the damage has been handed over.
func scan(in io.Reader, visit func(*correlatorv1.RecordedEntry) bool) (*correlatorv1.RecordedEntry, error) {
	reader, err := recording.NewReader(in)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	head, err := reader.Next()
	if err != nil {
		return nil, err
	}
	if head.GetSlice().GetWorkload() == nil {
		return nil, errNoSlice
	}
	for {
		entry, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return head, nil
		}
		if err != nil {
			return head, err
		}
		if !visit(entry) {
			return head, nil
		}
	}
}

// read is scan over what is whole of a file, which is deleted if the error wraps fs.ErrNotExist. Of a file that was not finished, which
// the caller knows, the end is no error.
func (s segment) read(visit func(*correlatorv1.RecordedEntry) bool) error {
	f, err := os.OpenFile(s.path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = scan(bufio.NewReaderSize(io.LimitReader(f, s.size), 64<<10), visit)
	var damage *recording.DamageError
	if (s.open || s.cut) && errors.As(err, &damage) && errors.Is(err, recording.ErrTruncated) && damage.Offset == s.size {
		return nil
	}
	return err
}

// sliceOf is a file's first entry.
func sliceOf(id workload.Identity, whose *findingv1.Workload, incident string) *correlatorv1.Slice {
	return &correlatorv1.Slice{Workload: whose, CgroupId: id.Cgroup, Incident: incident}
}

// identityOf is whose a file is, or what is recorded.
func identityOf(m interface {
	GetWorkload() *findingv1.Workload
	GetCgroupId() uint64
}) workload.Identity {
	return workload.IdentityOf(m.GetWorkload(), m.GetCgroupId())
}

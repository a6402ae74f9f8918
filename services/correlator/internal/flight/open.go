package flight

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	"github.com/palisade-sec/palisade/internal/recording"
)

// Open returns a recorder over directory/events, which must be the caller's alone, with what is in it. It reads no event there: of
// files without an end it looks at the checksums. One that does not say whose it is is set aside as *.corrupt; of one that was not
// finished, what is whole is kept. The error is of the directory, never of a file in it.
func Open(cfg Config, directory string, log *slog.Logger, registry *prometheus.Registry) (*Recorder, error) {
	r, err := open(cfg, filepath.Join(directory, "events"), log, registry)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.directory, 0o700); err != nil {
		return nil, fmt.Errorf("flight recorder: %w", err)
	}
	entries, err := os.ReadDir(r.directory)
	if err != nil {
		return nil, fmt.Errorf("flight recorder: %w", err)
	}
	cut := 0
	for _, entry := range entries { // in the order of their numbers
		s := r.load(entry.Name())
		if s != nil && s.cut {
			cut++
		}
	}
	if cut > 0 || len(r.aside) > 0 {
		log.Warn("The flight recorder had not been stopped in order", "cut_off", cut, "set_aside", len(r.aside))
	}
	return r, nil
}

// load takes a file in, and returns nil if it is none of the recorder's, or cannot be read.
func (r *Recorder) load(name string) *segment {
	base := strings.TrimSuffix(name, corruptSuffix)
	number, ring := parseName(base, ringSuffix)
	if !ring {
		var ok bool
		if number, ok = parseName(base, incidentSuffix); !ok {
			return nil
		}
	}
	r.next = max(r.next, number+1)
	s := &segment{path: filepath.Join(r.directory, name), number: number}
	if base != name {
		if info, err := os.Lstat(s.path); err == nil {
			s.size, s.first, s.last = info.Size(), info.ModTime(), info.ModTime()
			r.aside = append(r.aside, s)
		}
		return nil
	}
	head, err := s.inspect()
	if errors.Is(err, errEmpty) { // a crash before anything was in it
		_ = os.Remove(s.path)
		return nil
	}
	slice := head.GetSlice()
	if err == nil && ring != (slice.GetIncident() == "") {
		err = errNoSlice
	}
	if err != nil && slice == nil || errors.Is(err, errNoSlice) {
		r.putAside(s, err)
		return nil
	}
	if err != nil { // behind what is whole
		r.damaged(s.path, err)
	}
	if ring {
		r.adopt(slice, s)
	} else {
		r.adoptPin(slice, s)
	}
	return s
}

// errEmpty says that there is nothing in a file yet.
var errEmpty = errors.New("nothing is in it")

// inspect reads how the file begins and whether it is whole. An error beside a head is of what comes after what is whole.
func (s *segment) inspect() (*correlatorv1.RecordedEntry, error) {
	f, err := os.OpenFile(s.path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("it is not a file but %v", info.Mode().Type())
	}
	const header = 16 // of package recording's file
	s.size, s.last = info.Size(), info.ModTime()
	if s.size <= header {
		return nil, errEmpty
	}
	head, err := scan(f, func(*correlatorv1.RecordedEntry) bool { return false })
	if head == nil {
		return nil, err
	}
	s.first = head.GetTime().AsTime()
	if recording.Finished(f, s.size) {
		return head, nil
	}
	if _, err := f.Seek(0, 0); err != nil {
		return nil, err
	}
	s.cut = true
	if s.size, err = recording.Check(f); errors.Is(err, recording.ErrTruncated) {
		return head, nil // killed, as it happens
	}
	return head, err
}

// putAside keeps a file that cannot be read out of the way, and of the next start's.
func (r *Recorder) putAside(s *segment, err error) {
	r.damaged(s.path, err)
	to := s.path + corruptSuffix
	if renameErr := os.Rename(s.path, to); renameErr != nil {
		r.log.Warn("Could not set a file of the flight recorder aside", "err", renameErr)
		return
	}
	s.path = to
	r.aside = append(r.aside, s)
}

// damaged counts a file that cannot be read, or not to its end.
func (r *Recorder) damaged(path string, err error) {
	r.notes.damaged++
	r.metrics.damaged.Inc()
	r.log.Warn("A file of the flight recorder is damaged", "path", path, "err", err)
}

// adopt puts a segment that is on disk into its ring.
func (r *Recorder) adopt(slice *correlatorv1.Slice, s *segment) {
	id := identityOf(slice)
	g := r.rings[id]
	if g == nil {
		g = newRing(id, slice.GetWorkload(), r.cfg)
		r.rings[id] = g
	}
	g.whose = brief(slice.GetWorkload())
	g.segments = append(g.segments, s)
	g.bytes += s.allocated()
	if s.last.After(g.seen) {
		g.seen = s.last
	}
}

// adoptPin puts a file that is on disk to the others of its incident. What was still to be set aside when the recorder was stopped
// is in the ring alone.
func (r *Recorder) adoptPin(slice *correlatorv1.Slice, s *segment) {
	p := r.pins[slice.GetIncident()]
	if p == nil {
		p = &pin{incident: slice.GetIncident(), id: identityOf(slice), first: s.first}
		r.pins[p.incident] = p
	}
	p.whose = slice.GetWorkload()
	p.add(s)
	p.done, p.want = s.last, s.last
}

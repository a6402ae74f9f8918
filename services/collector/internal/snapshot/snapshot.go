// Package snapshot lists the processes that exist. In: the kernel's task iterator, and /proc for what the iterator
// cannot read (a process's arguments lie in its own memory). Out: one Event.existing a process.
package snapshot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

const (
	// maxArgv is what an exec record holds, too.
	maxArgv = 32 << 10
	// maxWalk bounds the iterator's output: a hundred thousand processes with long paths.
	maxWalk = 256 << 20
	// ticksPerSecond is USER_HZ, which Linux has fixed for user space.
	ticksPerSecond = 100
)

// Snapshot lists processes.
type Snapshot struct {
	// Open starts a walk: records of kind Existing, one after the other.
	Open func() (io.ReadCloser, error)
	// Decoder decodes them.
	Decoder record.Decoder
	// Proc is where procfs is mounted.
	Proc string
}

// Processes returns all thread groups, kernel threads included, in the iterator's order (by pid).
func (s Snapshot) Processes(ctx context.Context) ([]*eventv1.Event, error) {
	walk, err := s.Open()
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(walk, maxWalk))
	if err := errors.Join(err, walk.Close()); err != nil {
		return nil, fmt.Errorf("read task iterator: %w", err)
	}
	var events []*eventv1.Event
	for len(raw) > 0 {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var head []byte
		if head, raw, err = cut(raw); err != nil {
			return nil, err
		}
		event, _, err := s.Decoder.Decode(head)
		if err != nil {
			return nil, fmt.Errorf("decode task: %w", err)
		}
		s.addArgv(event)
		events = append(events, event)
	}
	return events, nil
}

// cut takes the first record off the walk; its first four bytes are its size.
func cut(raw []byte) (head, tail []byte, err error) {
	if len(raw) < 4 {
		return nil, nil, fmt.Errorf("task of %d bytes: %w", len(raw), record.ErrShort)
	}
	size := binary.LittleEndian.Uint32(raw)
	if size < 4 || uint64(size) > uint64(len(raw)) {
		return nil, nil, fmt.Errorf("task of %d bytes in %d: %w", size, len(raw), record.ErrShort)
	}
	return raw[:size], raw[size:], nil
}

// addArgv reads the arguments as they are now; the process may have changed them. They are best effort: what cannot
// be read is marked so.
func (s Snapshot) addArgv(event *eventv1.Event) {
	exec := event.GetExisting()
	if exec.GetExe() == nil {
		return // a kernel thread
	}
	dir := filepath.Join(s.Proc, strconv.FormatUint(uint64(event.GetProcess().GetPid()), 10))
	raw, err := readSome(filepath.Join(dir, "cmdline"), maxArgv+1)
	// The pid may have gone to another process since the iterator saw it: the start time tells. A process that has
	// taken its arguments' memory away reads as having none, which none has: there is at least the NUL of an empty first one.
	if err != nil || len(raw) == 0 || !startedAt(dir, event.GetProcess().GetStartBoottimeNs()) {
		exec.ArgvUnreadable = true
		return
	}
	exec.ArgvBytes = uint32(len(raw)) //nolint:gosec // at most maxArgv+1
	if len(raw) > maxArgv {
		exec.ArgvTruncated = true
		raw = raw[:maxArgv]
	}
	exec.Argv = record.Argv(raw)
}

// startedAt compares field 22 of /proc/<pid>/stat with a start time; it is coarser.
func startedAt(dir string, boottimeNs uint64) bool {
	raw, err := readSome(filepath.Join(dir, "stat"), 4096)
	if err != nil {
		return false
	}
	// The second field is the command in parentheses and may hold anything.
	_, rest, ok := strings.Cut(string(raw[max(0, strings.LastIndexByte(string(raw), ')')):]), ")")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return false
	}
	ticks, err := strconv.ParseUint(fields[19], 10, 64)
	return err == nil && ticks == boottimeNs/(1e9/ticksPerSecond)
}

func readSome(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

package stream

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// whole is an event with all that the decoder fills in.
func whole(n int, kind func(*eventv1.Event)) *eventv1.Event {
	pid := uint32(n) //nolint:gosec // small
	e := &eventv1.Event{
		BoottimeNs: 1 << 50, Time: timestamppb.Now(), Tid: pid, CgroupId: 1 << 40, Comm: fmt.Sprintf("comm-%d", n),
		Process:     &eventv1.ProcessKey{Pid: pid, StartBoottimeNs: 1 << 50},
		Parent:      &eventv1.ProcessKey{Pid: pid, StartBoottimeNs: 1 << 50},
		Namespaces:  &eventv1.Namespaces{Mnt: 1 << 31, Pid: 1 << 31, Net: 1 << 31, User: 1 << 31},
		Credentials: &eventv1.Credentials{Uid: 1000, Gid: 1000, EffectiveCapabilities: 1 << 40},
	}
	kind(e)
	return e
}

func fileOpen(e *eventv1.Event) {
	path := fmt.Sprintf("/usr/lib/x86_64-linux-gnu/library-%d.so", e.GetTid())
	e.Kind = &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{File: &eventv1.File{Path: path, Inode: 1 << 40, Mode: 0o100644}}}
}

func execOfNothing(e *eventv1.Event) {
	argv := make([]string, 32<<10) // empty arguments are a byte each in the record
	e.Kind = &eventv1.Event_Exec{Exec: &eventv1.Exec{Exe: &eventv1.File{Path: "/bin/true"}, Argv: argv}}
}

func connect(e *eventv1.Event) {
	end := func() *eventv1.SocketAddress { return &eventv1.SocketAddress{Ip: make([]byte, 16), Port: 443} }
	e.Kind = &eventv1.Event_Connect{Connect: &eventv1.Connect{Family: 10, Protocol: 6, Local: end(), Remote: end()}}
}

// fill publishes batches of so many events until the stream takes no more, and returns how many it took.
func fill(t *testing.T, s *Stream, events int, kind func(*eventv1.Event)) (taken int) {
	t.Helper()
	for {
		batch := make([]*eventv1.Event, events)
		for i := range batch {
			batch[i] = whole(i, kind)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := s.Publish(ctx, batch, func() {})
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return taken
		}
		if err != nil {
			t.Fatal(err)
		}
		taken++
	}
}

func heap() int {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int(stats.HeapAlloc) //nolint:gosec // far below
}

func TestUnacknowledgedMemoryIsBoundedWhateverTheEvents(t *testing.T) {
	const limit = 32 << 20 // large beside what other tests' connections leave to the garbage collector
	for _, tt := range []struct {
		name   string
		events int
		kind   func(*eventv1.Event)
	}{
		{"opens, one a batch", 1, fileOpen},
		{"opens, full batches", 512, fileOpen},
		{"connects", 64, connect},
		{"execs with thousands of empty arguments", 1, execOfNothing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := New(Config{UnacknowledgedBytes: limit}, Identity{}, []*eventv1.Event{{}}, Kernel{})
			if _, err := s.subscribe(); err != nil {
				t.Fatal(err)
			}
			before := heap()
			taken := fill(t, s, tt.events, tt.kind)
			took := heap() - before
			t.Logf("%d batches took %d KiB, counted %d KiB", taken, took>>10, s.Status().UnacknowledgedBytes>>10)
			if took > limit+limit/4 || took < limit/3 {
				t.Errorf("%d batches of %d took %d KiB, want about %d", taken, tt.events, took>>10, limit>>10)
			}
			if err := s.acknowledge(s.last); err != nil {
				t.Fatal(err)
			}
			if got := s.Status(); got.Unacknowledged != 0 || got.UnacknowledgedBytes != 0 {
				t.Errorf("status = %+v after the last acknowledgement, want nothing unacknowledged", got)
			}
		})
	}
}

// A subscriber that holds an event holds the acknowledgement of all that follow it, for up to a second.
func TestASecondOfBatchesFitsTheDefault(t *testing.T) {
	s := New(Config{UnacknowledgedBytes: 32 << 20}, Identity{}, []*eventv1.Event{{}}, Kernel{})
	if _, err := s.subscribe(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for n := range 1000 { // one a millisecond
		batch := []*eventv1.Event{whole(n, fileOpen), whole(n, connect), whole(n, fileOpen)}
		if err := s.Publish(ctx, batch, func() {}); err != nil {
			t.Fatalf("Publish of batch %d with none acknowledged = %v, want nil", n, err)
		}
	}
}

func TestABatchLargerThanTheBoundGoesAlone(t *testing.T) {
	s := New(Config{UnacknowledgedBytes: 1 << 10}, Identity{}, []*eventv1.Event{{}}, Kernel{})
	if _, err := s.subscribe(); err != nil {
		t.Fatal(err)
	}
	if err := s.acknowledge(1); err != nil {
		t.Fatal(err)
	}
	big := whole(1, fileOpen)
	big.GetFileOpen().GetFile().Path = strings.Repeat("x", 4096)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Publish(ctx, []*eventv1.Event{big}, func() {}); err != nil {
		t.Errorf("Publish = %v, want nil", err)
	}
}

func TestAcknowledgingFindsItsPlace(t *testing.T) {
	s := New(Config{UnacknowledgedBytes: 1 << 20}, Identity{}, []*eventv1.Event{{}}, Kernel{})
	if _, err := s.subscribe(); err != nil {
		t.Fatal(err)
	}
	for n := range 9 { // batches 2 to 10
		if err := s.Publish(t.Context(), []*eventv1.Event{whole(n, connect)}, func() {}); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct{ acknowledge, left, next uint64 }{{0, 10, 1}, {3, 7, 4}, {2, 7, 4}, {9, 1, 10}} {
		if err := s.acknowledge(step.acknowledge); err != nil {
			t.Fatal(err)
		}
		batch, err := s.next(t.Context(), 0)
		if err != nil || batch.GetBatch() != step.next || uint64(s.Status().Unacknowledged) != step.left { //nolint:gosec // small
			t.Errorf("after acknowledging %d: next %d, %d left (%v), want %d, %d",
				step.acknowledge, batch.GetBatch(), s.Status().Unacknowledged, err, step.next, step.left)
		}
	}
}

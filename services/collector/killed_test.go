package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
)

// A collector that is killed again and again, also while it starts, misses no exec and tells of none as lost.
func TestKilledDuringExecsMissesNone(t *testing.T) {
	pins := mountPins(t)
	first, dir := command(t, row(), "probes: {pins: "+pins+"}")
	conn, err := rpc.Dial(filepath.Join(dir, "collector.sock"), uid)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	subscriber := newSubscriber()
	ctx, cancel := context.WithCancel(t.Context())
	subscribed := make(chan error, 1)
	go func() { subscribed <- subscriber.run(ctx, conn) }()
	defer func() { cancel(); <-subscribed }()

	collector := again(t, first)
	subscriber.await(t, "the first event", func() bool { return subscriber.starts == 1 })
	load := startLoad(ctx, nil)
	kills := 4
	if os.Getenv("PALISADE_TEST_FULL") != "" {
		kills = 20
	}
	for n := range kills {
		if seen := subscriber.seen(); n%4 != 3 { // every fourth dies while it starts, or just after
			subscriber.await(t, "an exec from this collector", func() bool { return len(subscriber.runs) > seen })
		}
		time.Sleep(rand.N(200 * time.Millisecond)) //nolint:gosec // when it is killed must not matter
		if err := errors.Join(collector.Process.Kill(), ended(collector.Wait())); err != nil {
			t.Fatal(err)
		}
		collector = again(t, first)
	}
	issued := load.stop(t)
	subscriber.await(t, "all execs", func() bool { return len(subscriber.runs) >= issued })
	subscriber.check(t, issued)
}

// mountPins mounts a BPF file system for one test, which is gone with all that is pinned in it when the test ends.
func mountPins(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a BPF file system")
	}
	directory, err := os.MkdirTemp("/tmp", "palisade-pins-") // every uid may look for it there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(directory, unix.MNT_DETACH), os.Remove(directory)); err != nil {
			t.Errorf("remove pins: %v", err)
		}
	})
	if err := unix.Mount("bpf", directory, "bpf", 0, "mode=0700"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(directory, uid, uid); err != nil {
		t.Fatal(err)
	}
	return directory
}

// again starts the same collector once more.
func again(t *testing.T, first *exec.Cmd) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), first.Path, first.Args[1:]...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr, cmd.Stderr = first.Dir, first.Env, first.SysProcAttr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd
}

// ended makes nothing of an end by a signal.
func ended(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == -1 {
		return nil
	}
	return err
}

// loadMark is the argument that the load's programs are told by; their number follows.
const loadMark = "palisade-load"

// load runs one program after the other at a constant pace, and counts them.
type load struct {
	halt   context.CancelFunc
	issued chan int
	failed error
}

// startLoad starts it; its programs begin as attributes say.
func startLoad(ctx context.Context, attributes *syscall.SysProcAttr) *load {
	ctx, halt := context.WithCancel(ctx)
	l := &load{halt: halt, issued: make(chan int, 1)}
	go func() {
		issued := 0
		pace := time.NewTicker(4 * time.Millisecond)
		defer pace.Stop()
		for ctx.Err() == nil && l.failed == nil {
			<-pace.C
			cmd := exec.Command("/bin/true", loadMark, strconv.Itoa(issued)) //nolint:noctx // what has begun is run to its end and counts
			cmd.SysProcAttr = attributes
			l.failed = cmd.Run()
			issued++
		}
		l.issued <- issued
	}()
	return l
}

func (l *load) stop(t *testing.T) (issued int) {
	t.Helper()
	l.halt()
	issued = <-l.issued
	if l.failed != nil {
		t.Fatal(l.failed)
	}
	return issued
}

// place names an event for ever.
type place struct {
	epoch    string
	ring     uint32
	position uint64
}

// subscriber does as the correlator: it subscribes again whenever the stream ends, acknowledges what it has, and
// tells by its place what comes twice.
type subscriber struct {
	mu       sync.Mutex
	changed  chan struct{}
	starts   int           // collectors that said that they started
	resumed  int           // and of those, that the programs had gone on without
	runs     map[place]int // the load's execs, by number
	repeated int           // execs that came more than once
	altered  []place       // and were another then
	losses   map[place]loss
	retold   int // losses that came more than once
	epochs   []string
	// hold is how long what tells of losses is not acknowledged.
	hold time.Duration
}

// loss is what one event says is missing.
type loss struct {
	class  string
	cgroup uint64
	count  uint64
	reason eventv1.LossReason
}

func newSubscriber() *subscriber {
	return &subscriber{changed: make(chan struct{}), runs: map[place]int{}, losses: map[place]loss{}}
}

func (s *subscriber) run(ctx context.Context, conn *grpc.ClientConn) error {
	for ctx.Err() == nil {
		_ = s.subscribe(ctx, conn) // the collector died; there will be another
	}
	return ctx.Err()
}

func (s *subscriber) subscribe(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := collectorv1.NewEventServiceClient(conn).StreamEvents(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	// Processes alone: execs share their ring with nothing that this machine may do too much of.
	request := &collectorv1.StreamEventsRequest{Interest: &collectorv1.Interest{}}
	for {
		if err := stream.Send(request); err != nil {
			return err
		}
		batch, err := stream.Recv()
		if err != nil {
			return err
		}
		if s.take(batch) {
			select {
			case <-ctx.Done():
			case <-time.After(s.hold):
			}
		}
		request = &collectorv1.StreamEventsRequest{AcknowledgedBatch: batch.GetBatch()}
	}
}

// take returns true if a batch tells of losses.
func (s *subscriber) take(batch *collectorv1.StreamEventsResponse) (losses bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.epochs, batch.GetEpoch()) {
		s.epochs = append(s.epochs, batch.GetEpoch())
	}
	for _, event := range batch.GetEvents() {
		at := place{epoch: batch.GetEpoch(), ring: event.GetRing(), position: event.GetPosition()}
		switch kind := event.GetKind().(type) {
		case *eventv1.Event_Started:
			s.starts++
			if kind.Started.GetResumed() {
				s.resumed++
			}
		case *eventv1.Event_Loss:
			losses = true
			s.takeLoss(at, loss{kind.Loss.GetClass(), event.GetCgroupId(), kind.Loss.GetCount(), kind.Loss.GetReason()})
		case *eventv1.Event_Exec:
			s.takeExec(at, kind.Exec.GetArgv())
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return losses
}

func (s *subscriber) takeLoss(at place, l loss) {
	before, again := s.losses[at]
	if again && before != l {
		s.altered = append(s.altered, at)
	}
	if again {
		s.retold++
	}
	s.losses[at] = l
}

func (s *subscriber) takeExec(at place, argv []string) {
	if len(argv) != 3 || argv[1] != loadMark {
		return
	}
	number, err := strconv.Atoi(argv[2])
	before, again := s.runs[at]
	if err != nil || again && before != number {
		s.altered = append(s.altered, at)
	}
	if again {
		s.repeated++
	}
	s.runs[at] = number
}

func (s *subscriber) seen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.runs)
}

// await waits until something is true, which is asked with mu held.
func (s *subscriber) await(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		s.mu.Lock()
		done, changed := is(), s.changed
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("waited in vain for %s: %d starts, %d execs, losses %v", what, s.starts, len(s.runs), s.losses)
		}
	}
}

// check: each exec that was issued has one place, and nothing was lost.
func (s *subscriber) check(t *testing.T, issued int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	times := make([]int, issued)
	for at, number := range s.runs {
		if number >= issued {
			t.Fatalf("exec %d at %v, of %d issued", number, at, issued)
		}
		times[number]++
	}
	for number, n := range times {
		if n != 1 {
			t.Errorf("exec %d has %d places, want one", number, n)
		}
	}
	if len(s.altered) > 0 {
		t.Errorf("another exec at the same place: %v", s.altered)
	}
	for _, loss := range s.losses {
		if loss.class == "exec" || loss.class == "any" {
			t.Errorf("loss %v, want none", loss)
		}
	}
	if len(s.epochs) != 1 || s.resumed != s.starts-1 {
		t.Errorf("epochs %v, %d starts of which %d resumed, want one epoch and all but the first resumed", s.epochs, s.starts, s.resumed)
	}
	t.Logf("%d execs, %d of them told more than once; %d collectors were heard", issued, s.repeated, s.starts)
}

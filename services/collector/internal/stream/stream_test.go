package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

func event(pid uint32) *eventv1.Event {
	return &eventv1.Event{Process: &eventv1.ProcessKey{Pid: pid}, Kind: &eventv1.Event_Exit{Exit: &eventv1.Exit{}}}
}

// batches is the memory that so many batches of one small event take.
func batches(n int) int {
	return n * (footprint([]*eventv1.Event{event(1)}) + 16) // their numbers take a few bytes, too
}

// serve runs a stream over an in-memory connection. Its snapshot is one process, 1.
func serve(t *testing.T, unacknowledged int) (*Stream, collectorv1.EventServiceClient) {
	t.Helper()
	started := &eventv1.Event{Kind: &eventv1.Event_Started{Started: &eventv1.Started{Tier: "tracepoint"}}}
	s := New(Config{UnacknowledgedBytes: unacknowledged}, Identity{BootID: "boot", Instance: "run", Epoch: "rings"}, []*eventv1.Event{started},
		Kernel{Snapshot: func(context.Context) ([]*eventv1.Event, error) {
			return []*eventv1.Event{{Process: &eventv1.ProcessKey{Pid: 1}, Kind: &eventv1.Event_Existing{}}}, nil
		}})
	s.tracer = trace.NewTracerProvider().Tracer("test")
	server := grpc.NewServer()
	collectorv1.RegisterEventServiceServer(server, s)
	listener := bufconn.Listen(1 << 20)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return s, collectorv1.NewEventServiceClient(conn)
}

type subscription = grpc.BidiStreamingClient[collectorv1.StreamEventsRequest, collectorv1.StreamEventsResponse]

func subscribe(ctx context.Context, t *testing.T, client collectorv1.EventServiceClient) subscription {
	t.Helper()
	sub, err := client.StreamEvents(ctx)
	if err != nil {
		t.Fatal(err)
	}
	acknowledge(t, sub, 0)
	return sub
}

func acknowledge(t *testing.T, sub subscription, batch uint64) {
	t.Helper()
	if err := sub.Send(&collectorv1.StreamEventsRequest{AcknowledgedBatch: batch}); err != nil {
		t.Fatal(err)
	}
}

// expect receives one batch and compares its number and its first event's place.
func expect(t *testing.T, sub subscription, batch, sequence uint64) *collectorv1.StreamEventsResponse {
	t.Helper()
	got, err := sub.Recv()
	if err != nil {
		t.Fatalf("Recv: %v, want batch %d", err, batch)
	}
	if got.GetBatch() != batch || got.GetEvents()[0].GetSequence() != sequence {
		t.Fatalf("batch %d starting with event %d, want %d starting with %d", got.GetBatch(), got.GetEvents()[0].GetSequence(), batch, sequence)
	}
	return got
}

func TestStreamOpensWithSnapshotThenStarted(t *testing.T) {
	s, client := serve(t, batches(4))
	sub := subscribe(t.Context(), t, client)
	if got := expect(t, sub, 0, 0); got.GetEvents()[0].GetProcess().GetPid() != 1 || got.GetInstance() != "run" || got.GetBootId() != "boot" {
		t.Errorf("snapshot = %v, want process 1 of run, boot", got)
	}
	if got := expect(t, sub, 1, 1); got.GetEvents()[0].GetStarted().GetTier() != "tracepoint" {
		t.Errorf("first event = %v, want Started", got.GetEvents()[0])
	}
	if err := s.Publish(t.Context(), []*eventv1.Event{event(7), event(8)}, func() {}); err != nil {
		t.Fatal(err)
	}
	if got := expect(t, sub, 2, 2); len(got.GetEvents()) != 2 || len(got.GetTraceparent()) != 55 {
		t.Errorf("batch = %v, want two events and a trace parent", got)
	}
	if err := s.Publish(t.Context(), []*eventv1.Event{event(9)}, func() {}); err != nil {
		t.Fatal(err)
	}
	expect(t, sub, 3, 4)
}

func TestUnacknowledgedBatchesComeAgain(t *testing.T) {
	s, client := serve(t, batches(8))
	ctx, leave := context.WithCancel(t.Context())
	first := subscribe(ctx, t, client)
	expect(t, first, 0, 0)
	expect(t, first, 1, 1)
	for pid := range uint32(3) {
		if err := s.Publish(t.Context(), []*eventv1.Event{event(pid)}, func() {}); err != nil {
			t.Fatal(err)
		}
		expect(t, first, uint64(pid)+2, uint64(pid)+2)
	}
	acknowledge(t, first, 2)
	waitFor(t, s, func(now Status) bool { return now.Unacknowledged == 2 })
	leave()
	waitFor(t, s, func(now Status) bool { return !now.Subscribed })
	second := subscribe(t.Context(), t, client)
	expect(t, second, 0, 0)
	expect(t, second, 3, 3)
	expect(t, second, 4, 4)
}

// What a batch stands for is given back when it was acknowledged, in order, and not before.
func TestDoneIsCalledWhenABatchIsAcknowledged(t *testing.T) {
	s, client := serve(t, batches(8))
	sub := subscribe(t.Context(), t, client)
	expect(t, sub, 0, 0)
	expect(t, sub, 1, 1)
	var mu sync.Mutex
	var done []uint32
	for pid := range uint32(3) {
		err := s.Publish(t.Context(), []*eventv1.Event{event(pid)}, func() {
			mu.Lock()
			defer mu.Unlock()
			done = append(done, pid)
		})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, sub, uint64(pid)+2, uint64(pid)+2)
	}
	for _, step := range []struct {
		acknowledged uint64
		want         []uint32
	}{{1, nil}, {3, []uint32{0, 1}}, {4, []uint32{0, 1, 2}}} {
		acknowledge(t, sub, step.acknowledged)
		waitFor(t, s, func(now Status) bool { return uint64(now.Unacknowledged) == 4-step.acknowledged })
		waitFor(t, s, func(Status) bool {
			mu.Lock()
			defer mu.Unlock()
			return len(done) == len(step.want)
		})
		if !slices.Equal(done, step.want) {
			t.Errorf("after acknowledging batch %d: done %v, want %v", step.acknowledged, done, step.want)
		}
	}
}

// A subscriber says what it wants, at the start or later; what cannot be served ends the stream.
func TestInterestReachesTheKernel(t *testing.T) {
	s, client := serve(t, batches(4))
	wanted := make(chan *collectorv1.Interest, 2)
	s.kernel.Want = func(i *collectorv1.Interest) error {
		wanted <- i
		if i.GetClasses()[0] == "nonsense" {
			return errors.New(`no class "nonsense"`)
		}
		return nil
	}
	sub, err := client.StreamEvents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, class := range []string{"mount", "nonsense"} {
		if err := sub.Send(&collectorv1.StreamEventsRequest{Interest: &collectorv1.Interest{Classes: []string{class}}}); err != nil {
			t.Fatal(err)
		}
		if got := (<-wanted).GetClasses(); !slices.Equal(got, []string{class}) {
			t.Errorf("wanted %v, want %s", got, class)
		}
	}
	for err == nil {
		_, err = sub.Recv()
	}
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("stream ended with %v, want InvalidArgument that names the class", err)
	}
}

// A subscriber that wants a new snapshot ends its side of the stream and comes back as soon as it hears of the end.
func TestASubscriberMayComeBackAtOnce(t *testing.T) {
	_, client := serve(t, batches(8))
	for range 100 {
		sub := subscribe(t.Context(), t, client)
		expect(t, sub, 0, 0)
		if err := sub.CloseSend(); err != nil {
			t.Fatal(err)
		}
		var err error
		for err == nil {
			_, err = sub.Recv()
		}
		if !errors.Is(err, io.EOF) {
			t.Fatalf("Recv after CloseSend = %v, want EOF", err)
		}
	}
}

// waitFor waits until the stream's status is as wanted.
func waitFor(t *testing.T, s *Stream, want func(Status) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if want(s.Status()) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("status stays %+v", s.Status())
		}
	}
}

func TestPublishWaits(t *testing.T) {
	s, client := serve(t, batches(2))
	published := make(chan error, 2)
	publish := func() { published <- s.Publish(t.Context(), []*eventv1.Event{event(1)}, func() {}) }
	go publish()
	select {
	case err := <-published:
		t.Fatalf("Publish without subscriber = %v, want it to wait", err)
	case <-time.After(20 * time.Millisecond):
	}
	sub := subscribe(t.Context(), t, client)
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	go publish()
	expect(t, sub, 0, 0)
	expect(t, sub, 1, 1)
	expect(t, sub, 2, 2)
	select {
	case err := <-published:
		t.Fatalf("Publish into a full window = %v, want it to wait", err)
	case <-time.After(20 * time.Millisecond):
	}
	acknowledge(t, sub, 1)
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	expect(t, sub, 3, 3)
}

func TestPublishEndsWithItsContext(t *testing.T) {
	s, _ := serve(t, batches(2))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Publish(ctx, []*eventv1.Event{event(1)}, func() {}); !errors.Is(err, context.Canceled) {
		t.Errorf("Publish = %v, want canceled", err)
	}
	if got := s.Status().Sequence; got != 1 {
		t.Errorf("sequence = %d after a publish that failed, want 1", got)
	}
}

func TestRefusals(t *testing.T) {
	_, client := serve(t, batches(2))
	sub := subscribe(t.Context(), t, client)
	expect(t, sub, 0, 0)
	second, err := client.StreamEvents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("second subscriber got %v, want ResourceExhausted", err)
	}
	acknowledge(t, sub, 99)
	for err == nil {
		_, err = sub.Recv()
	}
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("acknowledging what was never sent got %v, want InvalidArgument", err)
	}
}

func TestConfigValidate(t *testing.T) {
	for bytes, ok := range map[int]bool{0: false, 1<<20 - 1: false, 1 << 20: true, 1 << 30: true, 1<<30 + 1: false} {
		err := (Config{UnacknowledgedBytes: bytes}).Validate()
		if (err == nil) != ok || (err != nil && !strings.HasPrefix(err.Error(), "stream.unacknowledged_bytes:")) {
			t.Errorf("Validate(%d) = %v, want ok %v", bytes, err, ok)
		}
	}
}

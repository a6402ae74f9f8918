package registration

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
)

// collector keeps workloads as the real one does, when it is there.
type collector struct {
	collectorv1.UnimplementedWorkloadServiceServer

	mu        sync.Mutex
	away      bool
	workloads map[uint64]bool
	changed   chan struct{}
}

func (c *collector) change(ids []uint64, registered bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { close(c.changed); c.changed = make(chan struct{}) }()
	if c.away {
		return status.Error(codes.Unavailable, "away")
	}
	for _, id := range ids {
		if registered {
			c.workloads[id] = true
		} else {
			delete(c.workloads, id)
		}
	}
	return nil
}

func (c *collector) RegisterWorkloads(_ context.Context, r *collectorv1.RegisterWorkloadsRequest) (*collectorv1.RegisterWorkloadsResponse, error) {
	return &collectorv1.RegisterWorkloadsResponse{}, c.change(r.GetCgroupIds(), true)
}

func (c *collector) ForgetWorkloads(_ context.Context, r *collectorv1.ForgetWorkloadsRequest) (*collectorv1.ForgetWorkloadsResponse, error) {
	return &collectorv1.ForgetWorkloadsResponse{}, c.change(r.GetCgroupIds(), false)
}

// set makes the collector go away, or come back knowing nothing.
func (c *collector) set(away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away, c.workloads = away, map[uint64]bool{}
}

// await waits until just these are registered.
func (c *collector) await(t *testing.T, want ...uint64) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		c.mu.Lock()
		got, changed := slices.Sorted(maps.Keys(c.workloads)), c.changed
		c.mu.Unlock()
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("workloads = %v, want %v", got, want)
		}
	}
}

// refused waits for a call that fails.
func (c *collector) refused(t *testing.T, cause func()) {
	t.Helper()
	c.mu.Lock()
	changed := c.changed
	c.mu.Unlock()
	cause()
	select {
	case <-changed:
	case <-time.After(10 * time.Second):
		t.Fatal("no call")
	}
}

func start(t *testing.T) (*Registrar, *collector) {
	t.Helper()
	c := &collector{workloads: map[uint64]bool{}, changed: make(chan struct{})}
	server := grpc.NewServer()
	collectorv1.RegisterWorkloadServiceServer(server, c)
	listener := bufconn.Listen(1 << 16)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:///collector", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	r := New(conn, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v, want canceled", err)
		}
		_ = conn.Close()
	})
	return r, c
}

func TestTheCollectorKnowsWhatIsBound(t *testing.T) {
	r, c := start(t)
	r.Bind(10, true)
	r.Bind(11, true)
	c.await(t, 10, 11)
	r.Bind(10, false)
	c.await(t, 11)
}

func TestNewRingsAreToldAnew(t *testing.T) {
	r, c := start(t)
	r.Rings("one")
	r.Bind(10, true)
	c.await(t, 10)
	c.set(false)
	r.Rings("one")
	r.Rings("two")
	c.await(t, 10)
}

func TestWhatCouldNotBeToldIsToldLater(t *testing.T) {
	r, c := start(t)
	c.set(true)
	c.refused(t, func() { r.Bind(10, true) })
	r.Bind(11, true)
	r.Bind(10, false)
	c.set(false)
	c.await(t, 11)
}

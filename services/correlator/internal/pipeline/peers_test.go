package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	uplinkv1 "github.com/palisade-sec/palisade/api/palisade/uplink/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/internal/unixsock"
)

// fakeUplink stores findings by id, as the real one does, when it is in the mood.
type fakeUplink struct {
	uplinkv1.UnimplementedQueueServiceServer

	mu     sync.Mutex
	down   bool
	calls  int
	stored map[string]*findingv1.Finding
}

// PushFindings refuses while down. Every fifth time it stores, but the answer is lost.
func (u *fakeUplink) PushFindings(_ context.Context, r *uplinkv1.PushFindingsRequest) (*uplinkv1.PushFindingsResponse, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.down {
		return nil, status.Error(codes.Unavailable, "disk is being checked")
	}
	u.calls++
	answer := &uplinkv1.PushFindingsResponse{}
	for _, f := range r.GetFindings() {
		if f.GetRule() == "poison" {
			return nil, status.Error(codes.InvalidArgument, "poison")
		}
		if u.stored[f.GetId()] == nil {
			answer.Stored++
		}
		u.stored[f.GetId()] = f
	}
	if u.calls%5 == 0 {
		return nil, status.Error(codes.Unavailable, "answer lost")
	}
	return answer, nil
}

func (u *fakeUplink) setDown(down bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.down = down
}

func (u *fakeUplink) get(id string) *findingv1.Finding {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stored[id]
}

func (u *fakeUplink) ids() map[string]bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := map[string]bool{}
	for id := range u.stored {
		out[id] = true
	}
	return out
}

// fakeEnforcer kills each process once; after that it is gone.
type fakeEnforcer struct {
	enforcerv1.UnimplementedActionServiceServer
	uplink *fakeUplink

	mu     sync.Mutex
	killed map[uint32]int
	early  []string // findings that the uplink had before the kill
}

// Kill notes whether the finding was pushed first.
func (f *fakeEnforcer) Kill(_ context.Context, r *enforcerv1.KillRequest) (*enforcerv1.KillResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.uplink.get(r.GetFindingId()) != nil {
		f.early = append(f.early, r.GetFindingId())
	}
	pid := r.GetProcess().GetPid()
	f.killed[pid]++
	outcome := findingv1.ActionOutcome_ACTION_OUTCOME_DONE
	if f.killed[pid] > 1 {
		outcome = findingv1.ActionOutcome_ACTION_OUTCOME_GONE
	}
	return &enforcerv1.KillResponse{Action: &findingv1.Action{Kind: findingv1.ActionKind_ACTION_KIND_KILL, Outcome: outcome}}, nil
}

// fakeCollector keeps batches until they are acknowledged, sends them again on each new stream, and breaks its streams.
type fakeCollector struct {
	collectorv1.UnimplementedEventServiceServer
	instance string
	snapshot []*eventv1.Event
	batches  []*collectorv1.StreamEventsResponse
	// cut is after how many batches a stream breaks, unless that would be the end.
	cut int
	// restarts: each stream is another run's, which has taken the rings over and numbers its batches from 1.
	restarts bool
	// safe says whether all that came of the batch is stored.
	safe func(batch uint64) bool

	mu    sync.Mutex
	runs  int
	acked uint64
	wrong []error
	done  chan struct{}
}

// open is what a new stream sends, and how many batches went before its first.
func (c *fakeCollector) open() (instance string, rest []*collectorv1.StreamEventsResponse, before uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rest = slices.Clone(c.batches[c.acked:])
	if !c.restarts {
		return c.instance, rest, 0
	}
	c.runs++
	instance, before = fmt.Sprintf("%s-%d", c.instance, c.runs), c.acked
	for i, b := range rest {
		rest[i] = &collectorv1.StreamEventsResponse{BootId: b.GetBootId(), Instance: instance, Epoch: b.GetEpoch(), Batch: uint64(i) + 1, Events: b.GetEvents()}
	}
	return instance, rest, before
}

// StreamEvents sends the snapshot and what is not acknowledged.
func (c *fakeCollector) StreamEvents(stream collectorv1.EventService_StreamEventsServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	instance, rest, before := c.open()
	if err := stream.Send(&collectorv1.StreamEventsResponse{BootId: "boot", Instance: instance, Epoch: c.batches[0].GetEpoch(), Events: c.snapshot}); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { // ends when this handler returns, so it cannot be waited for here

		defer close(ended)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			c.ack(before + r.GetAcknowledgedBatch())
		}
	}()
	for i, b := range rest {
		if err := stream.Send(b); err != nil {
			return err
		}
		if c.cut > 0 && i == c.cut {
			return status.Error(codes.Unavailable, "stream cut")
		}
	}
	select {
	case <-stream.Context().Done():
	case <-ended:
	}
	return stream.Context().Err()
}

func (c *fakeCollector) ack(number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if number < c.acked {
		c.wrong = append(c.wrong, fmt.Errorf("acknowledged %d after %d", number, c.acked))
	}
	for n := c.acked + 1; n <= number; n++ {
		if !c.safe(n) {
			c.wrong = append(c.wrong, fmt.Errorf("acknowledged %d, but batch %d is not safe", number, n))
		}
	}
	last := uint64(len(c.batches))
	if c.acked < last && number >= last {
		close(c.done)
	}
	c.acked = max(c.acked, number)
}

func (c *fakeCollector) faults() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.wrong...)
}

// serve serves a fake on a unix socket as this test's uid and returns a connection to it, and a way to stop it.
func serve(t *testing.T, sockets rpc.Sockets, process string, register func(*grpc.Server)) *grpc.ClientConn {
	t.Helper()
	listener, err := sockets.Listen(process)
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	server := grpc.NewServer(grpc.Creds(unixsock.ServerCredentials()))
	register(server)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	conn, err := sockets.Dial(process)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		serving.Wait()
	})
	return conn
}

func testSockets(t *testing.T) rpc.Sockets {
	t.Helper()
	directory, err := os.MkdirTemp("", "pc")
	if err != nil {
		t.Fatalf("make a directory: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	me := uint32(os.Getuid()) //nolint:gosec // never negative
	return rpc.Sockets{Directory: directory, Group: os.Getgid(), UIDs: rpc.UIDs{"collector": me, "uplink": me, "enforcer": me}}
}

// within fails the test if the channel is not closed in time.
func within(t *testing.T, done <-chan struct{}, limit time.Duration, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("%s: not within %v", what, limit)
	}
}

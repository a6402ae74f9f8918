package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	uplinkv1 "github.com/palisade-sec/palisade/api/palisade/uplink/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/services/uplink/internal/queue"
	"github.com/palisade-sec/palisade/services/uplink/internal/server"
)

type client struct {
	uplinkv1.QueueServiceClient
	uplinkv1.FindingServiceClient
}

// serve starts the real server on a real socket; uids says who this process is taken for.
func serve(t *testing.T, uids rpc.UIDs) client {
	t.Helper()
	log, registry := slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	q, err := queue.Open(t.TempDir(), queue.DefaultConfig(), log, registry)
	if err != nil {
		t.Fatal(err)
	}
	calls, err := rpc.NewServer(rpc.ServerConfig{
		Process: "uplink", Callers: server.Callers(), UIDs: uids, Recover: true, Log: log, Metrics: registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	server.New(q, log).Register(calls)
	sockets := rpc.Sockets{Directory: t.TempDir(), Group: os.Getgid(), UIDs: rpc.UIDs{"uplink": self()}}
	listener, err := sockets.Listen("uplink")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := sockets.Dial("uplink")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = q.Run(ctx) })
	tasks.Go(func() { _ = calls.Run(ctx, listener) })
	t.Cleanup(func() { conn.Close(); cancel(); tasks.Wait(); q.Close() })
	return client{uplinkv1.NewQueueServiceClient(conn), uplinkv1.NewFindingServiceClient(conn)}
}

func self() uint32 { return uint32(os.Getuid()) }

func everybody() rpc.UIDs {
	return rpc.UIDs{rpc.Operator: self(), "correlator": self(), "enforcer": self()}
}

func findings(n int) []*findingv1.Finding {
	out := make([]*findingv1.Finding, n)
	for i := range out {
		out[i] = &findingv1.Finding{Id: fmt.Sprintf("%032x", i+1), Rule: "r"}
	}
	return out
}

func TestPushListWatch(t *testing.T) {
	c := serve(t, everybody())
	pushed, err := c.PushFindings(t.Context(), &uplinkv1.PushFindingsRequest{Findings: findings(3)})
	if err != nil || pushed.GetStored() != 3 {
		t.Fatalf("PushFindings = %v, %v, want 3 stored", pushed, err)
	}
	watch, err := c.WatchFindings(t.Context(), &uplinkv1.WatchFindingsRequest{Backlog: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Header(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PushFindings(t.Context(), &uplinkv1.PushFindingsRequest{Findings: findings(4)}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{2, 3, 4} {
		got, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if id := got.GetFinding().GetFinding().GetId(); id != fmt.Sprintf("%032x", want) {
			t.Errorf("WatchFindings sent %s, want %d", id, want)
		}
	}
	list, err := c.ListFindings(t.Context(), &uplinkv1.ListFindingsRequest{Limit: 2})
	if err != nil || len(list.GetFindings()) != 2 || list.GetFindings()[0].GetDelivered() {
		t.Errorf("ListFindings = %v, %v, want 2 pending ones", list, err)
	}
}

func TestBadInputIsRefused(t *testing.T) {
	c := serve(t, everybody())
	huge := findings(1)
	huge[0].Output = strings.Repeat("x", 1<<20)
	bad := findings(1)
	bad[0].Id = "../../etc/passwd"
	for name, batch := range map[string][]*findingv1.Finding{
		"more than 1000": findings(1001), "over 1 MiB": huge, "bad id": bad,
	} {
		_, err := c.PushFindings(t.Context(), &uplinkv1.PushFindingsRequest{Findings: batch})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("PushFindings(%s) error = %v, want InvalidArgument", name, err)
		}
	}
	for _, req := range []*uplinkv1.ListFindingsRequest{
		{Limit: 10_001}, {Since: &timestamppb.Timestamp{Nanos: -1}},
	} {
		if _, err := c.ListFindings(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("ListFindings(%v) error = %v, want InvalidArgument", req, err)
		}
	}
}

func TestSlowWatcherIsCut(t *testing.T) {
	c := serve(t, everybody())
	watch, err := c.WatchFindings(t.Context(), &uplinkv1.WatchFindingsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Header(); err != nil {
		t.Fatal(err)
	}
	batch := findings(12_000)
	for i := range batch {
		batch[i].Output = strings.Repeat("x", 1000)
	}
	for i := 0; i < len(batch); i += 1000 { // nobody reads the watch, and pushes go on
		if _, err := c.PushFindings(t.Context(), &uplinkv1.PushFindingsRequest{Findings: batch[i : i+1000]}); err != nil {
			t.Fatal(err)
		}
	}
	for err == nil {
		_, err = watch.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("WatchFindings error = %v, want ResourceExhausted", err)
	}
}

// A few large findings are as much to hold as many small ones.
func TestSlowWatcherIsCutByBytes(t *testing.T) {
	c := serve(t, everybody())
	watch, err := c.WatchFindings(t.Context(), &uplinkv1.WatchFindingsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Header(); err != nil {
		t.Fatal(err)
	}
	batch := findings(60)
	for i := range batch {
		batch[i].Output = strings.Repeat("x", 900<<10)
	}
	for i := 0; i < len(batch); i += 4 {
		if _, err := c.PushFindings(t.Context(), &uplinkv1.PushFindingsRequest{Findings: batch[i : i+4]}); err != nil {
			t.Fatal(err)
		}
	}
	received := 0
	for ; err == nil && received < len(batch); received++ {
		_, err = watch.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("WatchFindings error after %d findings = %v, want ResourceExhausted", received, err)
	}
}

// nearlyFull is a queue on a disk without room.
type nearlyFull struct{ server.Queue }

func (nearlyFull) Put(context.Context, []*findingv1.Finding) (int, error) {
	return 0, fmt.Errorf("%w: /var/lib/secret has 3 bytes free", queue.ErrNoSpace)
}

func TestNearlyFullDiskIsSaidWithoutPaths(t *testing.T) {
	s := server.New(nearlyFull{}, slog.New(slog.DiscardHandler))
	_, err := s.PushFindings(t.Context(), &uplinkv1.PushFindingsRequest{Findings: findings(1)})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "disk is nearly full") ||
		strings.Contains(err.Error(), "/var") {
		t.Errorf("PushFindings error = %v, want Unavailable that names the disk and no path", err)
	}
}

func TestOnlyTheirOwnCallersMayCall(t *testing.T) {
	c := serve(t, rpc.UIDs{rpc.Operator: self() + 1, "correlator": self() + 2, "enforcer": self() + 3})
	_, push := c.PushFindings(t.Context(), &uplinkv1.PushFindingsRequest{})
	_, list := c.ListFindings(t.Context(), &uplinkv1.ListFindingsRequest{})
	stream, watch := c.WatchFindings(t.Context(), &uplinkv1.WatchFindingsRequest{})
	if watch == nil {
		_, watch = stream.Recv()
	}
	for name, err := range map[string]error{"PushFindings": push, "ListFindings": list, "WatchFindings": watch} {
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s by a stranger error = %v, want PermissionDenied", name, err)
		}
	}
}

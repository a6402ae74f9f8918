package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	uplinkv1 "github.com/palisade-sec/palisade/api/palisade/uplink/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
)

// peer is a correlator and an uplink, as far as the enforcer calls them. It refuses while it is down.
type peer struct {
	correlatorv1.UnimplementedRegistrationServiceServer
	uplinkv1.UnimplementedQueueServiceServer

	mu       sync.Mutex
	down     bool
	instance string
	book     []string
	findings []string
	since    []uint64 // of the reports that were taken
}

var errDown = status.Error(codes.Unavailable, "down")

func (p *peer) RegisterContainer(_ context.Context, r *correlatorv1.RegisterContainerRequest) (*correlatorv1.RegisterContainerResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return nil, errDown
	}
	p.book = append(p.book, r.GetContainerId())
	return &correlatorv1.RegisterContainerResponse{}, nil
}

func (p *peer) ReportShim(_ context.Context, r *correlatorv1.ReportShimRequest) (*correlatorv1.ReportShimResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return nil, errDown
	}
	if r.GetInstance() == p.instance {
		p.since = append(p.since, r.GetSinceBoottimeNs())
	}
	return &correlatorv1.ReportShimResponse{Instance: p.instance}, nil
}

func (p *peer) PushFindings(_ context.Context, r *uplinkv1.PushFindingsRequest) (*uplinkv1.PushFindingsResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return nil, errDown
	}
	for _, f := range r.GetFindings() {
		p.findings = append(p.findings, f.GetId())
	}
	return &uplinkv1.PushFindingsResponse{}, nil
}

// begin is a correlator that has forgotten everything.
func (p *peer) begin(instance string, down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.instance, p.down, p.book, p.since = instance, down, nil, nil
}

// seen is a look at the peer.
func (p *peer) seen(look func() bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return look()
}

// start serves a peer over a real socket and runs an outbox that calls it.
func start(t *testing.T) (*peer, *Outbox) {
	t.Helper()
	p := &peer{instance: "first"}
	directory, err := os.MkdirTemp("", "outbox")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	uid := uint32(os.Getuid()) //nolint:gosec // never negative
	sockets := rpc.Sockets{Directory: directory, Group: os.Getgid(), UIDs: rpc.UIDs{"peer": uid, "enforcer": uid, rpc.Operator: uid}}
	server, err := rpc.NewServer(rpc.ServerConfig{
		Process: "peer", UIDs: sockets.UIDs, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		Callers: rpc.Callers{
			correlatorv1.RegistrationService_RegisterContainer_FullMethodName: {"enforcer"},
			correlatorv1.RegistrationService_ReportShim_FullMethodName:        {"enforcer"},
			uplinkv1.QueueService_PushFindings_FullMethodName:                 {"enforcer"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	correlatorv1.RegisterRegistrationServiceServer(server, p)
	uplinkv1.RegisterQueueServiceServer(server, p)
	listener, err := sockets.Listen("peer")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := rpc.Dial(filepath.Join(directory, "peer.sock"), uid)
	if err != nil {
		t.Fatal(err)
	}
	o, err := New(Peers{Correlator: conn, Uplink: conn}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = server.Run(ctx, listener) })
	running.Go(func() {
		if err := o.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v, want %v", err, context.Canceled)
		}
	})
	t.Cleanup(func() { stop(); running.Wait(); _ = conn.Close() })
	return p, o
}

func eventually(t *testing.T, p *peer, what string, look func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !p.seen(look); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func registration(id string) *correlatorv1.RegisterContainerRequest {
	return &correlatorv1.RegisterContainerRequest{ContainerId: id, Event: enforcerv1.AdmissionEvent_ADMISSION_EVENT_CREATE}
}

func TestWhatWaitsIsSentWhenThePeersAreBack(t *testing.T) {
	p, o := start(t)
	p.begin("first", true)
	const findings = 3 * batch / 2
	for i := range findings {
		o.Tell(&findingv1.Finding{Id: fmt.Sprint(i), Output: fmt.Sprint(i)})
	}
	o.Register(registration("a"))
	o.RegisterNow(t.Context(), registration("b"))
	eventually(t, p, "the outbox notices", func() bool { o.mu.Lock(); defer o.mu.Unlock(); return o.errs[correlator] != nil })
	p.begin("first", false)
	o.nudge()
	eventually(t, p, "all findings and registrations", func() bool { return len(p.findings) == findings && len(p.book) >= 2 }) // the registrations twice, if the correlator was met in between
	if !p.seen(func() bool {
		return p.findings[0] == "0" && p.findings[findings-1] == fmt.Sprint(findings-1) && p.book[0] == "a"
	}) {
		t.Errorf("findings = %v, book = %v, want them in their order", p.findings, p.book)
	}
}

// The container's first instruction comes after RegisterNow.
func TestRegisterNowReturnsWhenTheCorrelatorHasIt(t *testing.T) {
	p, o := start(t)
	o.RegisterNow(t.Context(), registration("warm"))
	eventually(t, p, "a connection", func() bool { return len(p.book) > 0 })
	for i := range 50 {
		id := fmt.Sprint(i)
		o.RegisterNow(t.Context(), registration(id))
		if !p.seen(func() bool { return slices.Contains(p.book, id) }) {
			t.Fatalf("container %s is not in the correlator's book", id)
		}
	}
}

// A correlator that has begun anew knows no container: nothing may be judged before it has been told.
func TestACorrelatorThatBeginsAnewIsToldEverythingFirst(t *testing.T) {
	p, o := start(t)
	o.boottime = func() uint64 { return 42 }
	o.Register(registration("a"))
	o.ReportShim(true, nil)
	eventually(t, p, "a report", func() bool { return len(p.since) > 0 })
	p.begin("second", false)
	o.Register(registration("b"))
	eventually(t, p, "a report to the second", func() bool { return len(p.since) > 0 })
	if !p.seen(func() bool {
		known := map[string]bool{}
		for _, id := range p.book {
			known[id] = true
		}
		return known["a"] && known["b"] && p.since[0] == 42
	}) {
		t.Errorf("book = %v, since = %v, want a and b before the report", p.book, p.since)
	}
	o.ReportShim(false, nil)
	eventually(t, p, "word that the shim is gone", func() bool { return p.since[len(p.since)-1] == 0 })
}

func TestTheBookForgetsTheOldestAndSaysSo(t *testing.T) {
	var b book
	for i := range maxRegistrations {
		if b.add(entry{boottime: uint64(i + 1)}) { //nolint:gosec // small
			t.Fatalf("entry %d is lost from a book that is not full", i)
		}
	}
	if !b.add(entry{boottime: 1 << 40}) || b.floor != 1 || len(b.entries) != maxRegistrations {
		t.Errorf("floor = %d, %d entries, want 1 and %d, and one lost", b.floor, len(b.entries), maxRegistrations)
	}
	b.told = 5
	if b.add(entry{boottime: 1 << 41}) || b.told != 4 || b.floor != 2 {
		t.Errorf("told = %d, floor = %d, want 4 and 2: who was told is not lost", b.told, b.floor)
	}
}

// An engine that tries again and again makes two findings of it a minute, and none is lost from the count.
func TestFindingsThatSayTheSameAreCounted(t *testing.T) {
	o, err := New(Peers{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	clock := time.Unix(1_800_000_000, 0)
	o.now = func() time.Time { return clock }
	tell := func(id, image string) {
		clock = clock.Add(time.Second)
		o.Tell(&findingv1.Finding{
			Id: id, Rule: "r", Output: "refused", Time: timestamppb.New(clock), Workload: &findingv1.Workload{ContainerId: id, Image: image},
		})
	}
	for i := range 5 {
		tell(fmt.Sprint(i), "shop:1")
	}
	tell("other", "shop:2")
	if len(o.findings) != 2 || o.findings[0].GetId() != "0" || o.findings[1].GetId() != "other" {
		t.Fatalf("findings = %v, want the first of each", o.findings)
	}
	clock = clock.Add(foldFor)
	o.unfold(clock, false)
	if len(o.findings) != 3 {
		t.Fatalf("findings = %v, want one more", o.findings)
	}
	f := o.findings[2]
	if r := f.GetRepeats(); f.GetId() != "4" || r.GetOf() != "0" || r.GetCount() != 4 || r.GetLast().AsTime().Sub(r.GetFirst().AsTime()) != 3*time.Second {
		t.Errorf("finding = %v, want 4 that repeat the first, in 3 s", f)
	}
	tell("5", "shop:1")
	if len(o.findings) != 4 {
		t.Errorf("findings = %v, want the next one told at once", o.findings)
	}
}

func TestTooManyFindingsLoseTheOldest(t *testing.T) {
	o, err := New(Peers{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxFindings + 3 {
		o.Tell(&findingv1.Finding{Id: fmt.Sprint(i), Output: fmt.Sprint(i)})
	}
	if len(o.findings) != maxFindings || o.findings[0].GetId() != "3" || o.Lost() != 3 {
		t.Errorf("%d findings from %s on, %d lost, want %d from 3 on, 3 lost", len(o.findings), o.findings[0].GetId(), o.Lost(), maxFindings)
	}
}

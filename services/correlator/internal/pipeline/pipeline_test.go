package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	uplinkv1 "github.com/palisade-sec/palisade/api/palisade/uplink/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/delivery"
	"github.com/palisade-sec/palisade/services/correlator/internal/subscription"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

const (
	numBatches = 400
	evilBatch  = 200
)

// script is what the fake collector will send: a finding of the host in each batch, and in one a container that does
// what it must not.
func script(epoch string) (batches []*collectorv1.StreamEventsResponse, ids map[uint64][]string) {
	ids = map[uint64][]string{}
	sequence := uint64(0)
	for n := range uint64(numBatches) {
		number := n + 1
		events := []*eventv1.Event{open(50, 1, hostNS, 9, "/tmp/a"), open(50, 1, hostNS, 9, "/etc/shadow"), open(50, 1, hostNS, 9, "/tmp/b")}
		rules := []string{"", "shadow", ""}
		if number == evilBatch {
			events = append(events, exec(40, 20, ctrNS, 1001, "/bin/evil"), open(40, 20, ctrNS, 1001, "/etc/shadow"))
			rules = append(rules, "evil", "shadow")
		}
		b := &collectorv1.StreamEventsResponse{BootId: "boot", Instance: "one", Epoch: epoch, Batch: number, Events: events}
		for i, e := range events {
			sequence++
			e.Sequence, e.Time = sequence, timestamppb.Now()
			e.Ring, e.Position = 2, sequence*64
			if rules[i] != "" {
				ids[number] = append(ids[number], findingID(subscription.NewBatch(b), e, rules[i]))
			}
		}
		batches = append(batches, b)
	}
	return batches, ids
}

// world is a correlator's inside between fake peers, over unix sockets.
type world struct {
	collector *fakeCollector
	uplink    *fakeUplink
	enforcer  *fakeEnforcer
	runtime   *fakeRuntime
	delivery  *delivery.Delivery
	ids       map[uint64][]string
}

func newWorld(t *testing.T, epoch string) *world {
	t.Helper()
	batches, ids := script(epoch)
	w := &world{ids: ids, uplink: &fakeUplink{stored: map[string]*findingv1.Finding{}}, runtime: &fakeRuntime{updates: make(chan workload.Update)}}
	w.enforcer = &fakeEnforcer{uplink: w.uplink, killed: map[uint32]int{}}
	w.collector = &fakeCollector{
		instance: "one", batches: batches, cut: 37, done: make(chan struct{}),
		snapshot: []*eventv1.Event{exec(1, 0, hostNS, 1, "/init"), exec(20, 1, hostNS, 5, "/bin/shim")},
		safe: func(batch uint64) bool {
			for _, id := range ids[batch] {
				if w.uplink.get(id) == nil {
					return false
				}
			}
			return true
		},
	}
	return w
}

// run runs a correlator in the world until the returned function is called.
func (w *world) run(t *testing.T) (stop func()) {
	t.Helper()
	sockets := testSockets(t)
	log, registry := slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	collector := serve(t, sockets, "collector", func(s *grpc.Server) { collectorv1.RegisterEventServiceServer(s, w.collector) })
	peers := delivery.Peers{
		Uplink:   serve(t, sockets, "uplink", func(s *grpc.Server) { uplinkv1.RegisterQueueServiceServer(s, w.uplink) }),
		Enforcer: serve(t, sockets, "enforcer", func(s *grpc.Server) { enforcerv1.RegisterActionServiceServer(s, w.enforcer) }),
	}
	out := delivery.DefaultUplinkConfig()
	out.Queue = 16 // so that a silent uplink is felt by the collector
	d, err := delivery.New(delivery.DefaultEnforcerConfig(), out, peers, log, registry)
	if err != nil {
		t.Fatalf("delivery.New() error = %v", err)
	}
	w.delivery = d
	events := subscription.New(collector, nil, log)
	engine, err := New(DefaultConfig(), Deps{Rules: load(t), Batches: events.Batches(), Runtime: w.runtime, Sink: d, Log: log, Metrics: registry})
	if err != nil {
		t.Fatalf("New() error = %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, task := range []func(context.Context) error{d.RunKills, d.RunPushes, engine.Run, events.Run} {
		running.Go(func() { _ = task(ctx) })
	}
	return func() {
		cancel()
		running.Wait()
	}
}

func TestEveryFindingOnceAndNoAcknowledgementTooEarly(t *testing.T) {
	w := newWorld(t, "")
	w.uplink.setDown(true)
	stop := w.run(t)
	defer stop()
	select {
	case w.runtime.updates <- running("c1", 40):
	case <-time.After(10 * time.Second):
		t.Fatal("the engine takes no news of the runtime")
	}
	for _, err := w.delivery.Errs(); err == nil; _, err = w.delivery.Errs() {
		time.Sleep(time.Millisecond) // until the outage was felt
	}
	w.collector.mu.Lock()
	acked := w.collector.acked
	w.collector.mu.Unlock()
	if acked != 0 {
		t.Errorf("acknowledged %d while the uplink was down, want 0", acked)
	}
	w.uplink.setDown(false)
	within(t, w.collector.done, 30*time.Second, "the last acknowledgement")
	if err := w.collector.faults(); err != nil {
		t.Errorf("acknowledgements: %v", err)
	}
	want := map[string]bool{}
	for _, ids := range w.ids {
		for _, id := range ids {
			want[id] = true
		}
	}
	if diff := cmp.Diff(want, w.uplink.ids()); diff != "" {
		t.Errorf("finding ids (-want +got):\n%s", diff)
	}
	w.checkKill(t)
}

// checkKill: the process was killed once, before its finding was pushed, and the finding says so.
func (w *world) checkKill(t *testing.T) {
	t.Helper()
	w.enforcer.mu.Lock()
	defer w.enforcer.mu.Unlock()
	if diff := cmp.Diff(map[uint32]int{40: 1}, w.enforcer.killed); diff != "" {
		t.Errorf("killed (-want +got):\n%s", diff)
	}
	if len(w.enforcer.early) > 0 {
		t.Errorf("pushed before the kill: %q", w.enforcer.early)
	}
	f := w.uplink.get(w.ids[evilBatch][1])
	action := f.GetAction()
	if action.GetOutcome() != findingv1.ActionOutcome_ACTION_OUTCOME_DONE || action.GetDetail() != "prevent: degraded to kill (tier unknown)" {
		t.Errorf("action = %v, want done, degraded to kill", action)
	}
	if got := f.GetWorkload().GetContainerId(); got != "c1" {
		t.Errorf("container = %q, want c1", got)
	}
}

// The collector is killed again and again, and each time the next one takes its rings over.
func TestACollectorThatIsKilledOverAndOverLosesAndRepeatsNothing(t *testing.T) {
	w := newWorld(t, "rings")
	w.collector.restarts = true
	stop := w.run(t)
	defer stop()
	select {
	case w.runtime.updates <- running("c1", 40):
	case <-time.After(10 * time.Second):
		t.Fatal("the engine takes no news of the runtime")
	}
	within(t, w.collector.done, 30*time.Second, "the last acknowledgement")
	if err := w.collector.faults(); err != nil {
		t.Errorf("acknowledgements: %v", err)
	}
	want := map[string]bool{}
	for _, ids := range w.ids {
		for _, id := range ids {
			want[id] = true
		}
	}
	if diff := cmp.Diff(want, w.uplink.ids()); diff != "" {
		t.Errorf("finding ids (-want +got):\n%s", diff)
	}
	if w.collector.runs < 5 {
		t.Errorf("%d runs of the collector, want several", w.collector.runs)
	}
	w.checkKill(t)
}

func TestARestartedCorrelatorMakesTheSameFindings(t *testing.T) {
	w := newWorld(t, "")
	w.uplink.setDown(true)
	stop := w.run(t)
	for _, err := w.delivery.Errs(); err == nil; _, err = w.delivery.Errs() {
		time.Sleep(time.Millisecond)
	}
	stop() // with findings in its hands
	w.uplink.setDown(false)
	stop = w.run(t)
	defer stop()
	select {
	case w.runtime.updates <- running("c1", 40):
	case <-time.After(10 * time.Second):
		t.Fatal("the engine takes no news of the runtime")
	}
	within(t, w.collector.done, 30*time.Second, "the last acknowledgement")
	if err := w.collector.faults(); err != nil {
		t.Errorf("acknowledgements: %v", err)
	}
	want := 0
	for _, ids := range w.ids {
		want += len(ids)
	}
	if got := len(w.uplink.ids()); got != want {
		t.Errorf("%d different findings, want %d", got, want)
	}
}

func TestAPoisonousFindingDoesNotBlockTheOthers(t *testing.T) {
	w := newWorld(t, "")
	stop := w.run(t)
	defer stop()
	var all sync.WaitGroup
	for i := range 50 {
		f := &findingv1.Finding{Id: fmt.Sprintf("id%d", i), Rule: "good"}
		if i%10 == 3 {
			f.Rule = "poison"
		}
		if i%10 == 4 {
			f.Output = "not \xff UTF-8"
		}
		all.Add(1)
		if err := w.delivery.Put(t.Context(), delivery.Item{Finding: f, Done: all.Done}); err != nil {
			t.Fatalf("Put() error = %v", err)
		}
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	within(t, done, 20*time.Second, "every finding done")
	for i := range 50 {
		stored := w.uplink.get(fmt.Sprintf("id%d", i)) != nil
		if want := i%10 != 3 && i%10 != 4; stored != want {
			t.Errorf("finding %d stored = %v, want %v", i, stored, want)
		}
	}
}

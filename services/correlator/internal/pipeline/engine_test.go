package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/delivery"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/subscription"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

const testRules = `
- rule: shadow
  desc: d
  condition: evt.type = openat and fd.name = /etc/shadow
  output: read of %fd.name by %proc.name
  priority: warning
- rule: evil
  desc: d
  condition: evt.type in (execve, execveat) and proc.name = evil
  output: "%proc.cmdline"
  priority: critical
  effect: prevent
`

// fakeRuntime is a runtime that is told what to say.
type fakeRuntime struct {
	updates chan workload.Update
	asked   int
}

func (f *fakeRuntime) Updates() <-chan workload.Update { return f.updates }
func (f *fakeRuntime) Ask()                            { f.asked++ }

// fakeSink keeps what it is given.
type fakeSink struct{ items []delivery.Item }

func (f *fakeSink) Put(_ context.Context, item delivery.Item) error {
	f.items = append(f.items, item)
	return nil
}

// bench is an engine without its goroutine, on a clock that the test moves.
type bench struct {
	*Engine
	t        *testing.T
	sink     *fakeSink
	runtime  *fakeRuntime
	reopened int
	clock    time.Time
	sequence uint64
	number   uint64
}

func load(t testing.TB) *rule.Set {
	t.Helper()
	set, _, err := rule.Load(rule.Source{Name: "test.yaml", Data: []byte(testRules)})
	if err != nil {
		t.Fatalf("rule.Load() error = %v", err)
	}
	return set
}

func newBench(t *testing.T, cfg Config) *bench {
	t.Helper()
	b := &bench{t: t, sink: &fakeSink{}, runtime: &fakeRuntime{updates: make(chan workload.Update)}, clock: time.Unix(1_700_000_000, 0)}
	engine, err := New(cfg, Deps{
		Rules: load(t), Runtime: b.runtime, Sink: b.sink, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		Reopen: func() { b.reopened++ },
	})
	if err != nil {
		t.Fatalf("New() error = %v", err)
	}
	b.Engine = engine
	b.now = func() time.Time { return b.clock }
	return b
}

// feed gives the engine a batch of one instance, with sequence numbers filled in.
func (b *bench) feed(instance string, events ...*eventv1.Event) {
	b.t.Helper()
	b.number++
	for _, e := range events {
		b.sequence++
		e.Sequence = b.sequence
		e.Time = timestamppb.New(b.clock)
	}
	batch := subscription.NewBatch(&collectorv1.StreamEventsResponse{BootId: "boot", Instance: instance, Batch: b.number, Events: events})
	if err := b.batch(b.t.Context(), batch); err != nil {
		b.t.Fatalf("batch() error = %v", err)
	}
}

func (b *bench) pass(d time.Duration) {
	b.t.Helper()
	b.clock = b.clock.Add(d)
	if err := b.expire(b.t.Context()); err != nil {
		b.t.Fatalf("expire() error = %v", err)
	}
}

func (b *bench) tell(u workload.Update) {
	b.t.Helper()
	if b.index.Apply(u) {
		if err := b.retry(b.t.Context()); err != nil {
			b.t.Fatalf("retry() error = %v", err)
		}
	}
}

// got is "rule@container" of each finding so far, in order.
func (b *bench) got() []string {
	var out []string
	for _, item := range b.sink.items {
		w := item.Finding.GetWorkload()
		whose := w.GetContainerId()
		if whose == "" {
			whose = strings.ToLower(strings.TrimPrefix(w.GetMetadata().String(), "METADATA_STATE_"))
		}
		out = append(out, item.Finding.GetRule()+"@"+whose)
	}
	return out
}

func (b *bench) want(want ...string) {
	b.t.Helper()
	if got := b.got(); !slices.Equal(got, want) {
		b.t.Errorf("findings = %q, want %q", got, want)
	}
}

const (
	hostNS = 100
	ctrNS  = 200
)

func key(pid uint32) *eventv1.ProcessKey {
	return &eventv1.ProcessKey{Pid: pid, StartBoottimeNs: uint64(pid) * 10}
}

func base(pid, parent, ns uint32, cgroup uint64) *eventv1.Event {
	return &eventv1.Event{
		BoottimeNs: uint64(pid)*10 + 1, Process: key(pid), Parent: key(parent), CgroupId: cgroup,
		Namespaces: &eventv1.Namespaces{Mnt: ns, Pid: ns}, Credentials: &eventv1.Credentials{},
	}
}

func exec(pid, parent, ns uint32, cgroup uint64, argv ...string) *eventv1.Event {
	e := base(pid, parent, ns, cgroup)
	e.Kind = &eventv1.Event_Exec{Exec: &eventv1.Exec{Exe: &eventv1.File{Path: argv[0]}, Argv: argv, Cwd: "/"}}
	return e
}

func open(pid, parent, ns uint32, cgroup uint64, path string) *eventv1.Event {
	e := base(pid, parent, ns, cgroup)
	e.Kind = &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{File: &eventv1.File{Path: path, Mode: 0o100644}}}
	return e
}

func running(id string, pid uint32) workload.Update {
	return workload.Update{Running: []workload.Task{{
		Ref: workload.Ref{Namespace: "ns", ID: id}, PID: pid,
		Workload: &findingv1.Workload{ContainerId: id, Image: "img", Metadata: findingv1.MetadataState_METADATA_STATE_KNOWN},
	}}}
}

// host is pid 1 and a shim, as a snapshot tells.
func (b *bench) host() {
	b.feed("one", exec(1, 0, hostNS, 1, "/init"), exec(20, 1, hostNS, 5, "/bin/shim"))
}

func TestB18LateMetadataIsWaitedForInOrder(t *testing.T) {
	b := newBench(t, DefaultConfig())
	b.host()
	b.feed("one", exec(40, 20, ctrNS, 1001, "/bin/cat"), open(40, 20, ctrNS, 1001, "/etc/shadow"))
	b.feed("one", exec(41, 40, ctrNS, 1001, "/bin/evil", "x"))
	b.want()
	if b.runtime.asked != 1 {
		t.Errorf("asked %d times, want once for the cgroup", b.runtime.asked)
	}
	b.pass(900 * time.Millisecond)
	b.want()
	// The process goes on to another program before its container is known; the findings keep what it was.
	later := exec(40, 20, ctrNS, 1001, "/bin/harmless")
	later.BoottimeNs = key(41).GetStartBoottimeNs() + 5
	b.feed("one", later)
	b.tell(running("c1", 40))
	b.want("shadow@c1", "evil@c1")
	if got, want := b.sink.items[0].Finding.GetOutput(), "read of /etc/shadow by cat"; got != want {
		t.Errorf("output = %q, want %q", got, want)
	}
	f := b.sink.items[1].Finding
	if got := f.GetAncestry(); len(got) != 3 || got[0].GetName() != "cat" || got[1].GetName() != "shim" || got[2].GetName() != "init" {
		t.Errorf("ancestry = %v, want cat, shim, init", got)
	}
	if kill := b.sink.items[1].Kill; kill.GetContainerId() != "c1" || kill.GetProcess().GetPid() != 41 || kill.GetEffect() != "prevent" {
		t.Errorf("kill = %v, want pid 41 of c1", kill)
	}
}

func TestUnclaimedGoesOnAsPendingAndIsNotKilled(t *testing.T) {
	b := newBench(t, DefaultConfig())
	b.host()
	b.feed("one", exec(40, 20, ctrNS, 1001, "/bin/evil"))
	b.pass(time.Second)
	b.want("evil@pending")
	item := b.sink.items[0]
	if action := item.Finding.GetAction(); item.Kill != nil || action.GetOutcome() != findingv1.ActionOutcome_ACTION_OUTCOME_REFUSED {
		t.Errorf("kill = %v, action = %v, want none and refused", item.Kill, action)
	}
	b.feed("one", open(40, 20, ctrNS, 1001, "/etc/shadow")) // not waited for again
	b.want("evil@pending", "shadow@pending")
	b.tell(running("late", 40))
	b.feed("one", open(40, 20, ctrNS, 1001, "/etc/shadow"))
	b.want("evil@pending", "shadow@pending", "shadow@late")
}

func TestHostIsJudgedAtOnceAndNeverKilled(t *testing.T) {
	b := newBench(t, DefaultConfig())
	b.host()
	b.feed("one", exec(50, 1, hostNS, 9, "/bin/evil"))
	b.want("evil@host")
	action := b.sink.items[0].Finding.GetAction()
	if got, want := action.GetDetail(), "prevent: host processes are never killed"; b.sink.items[0].Kill != nil || got != want {
		t.Errorf("detail = %q, want %q and no kill", got, want)
	}
}

func TestHoldIsBounded(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Hold.Events = 10
	b := newBench(t, cfg)
	b.host()
	for i := range uint32(100) {
		b.feed("one", open(100+i, 20, ctrNS, uint64(2000+i), "/etc/shadow"))
	}
	if got := len(b.sink.items); got != 90 || b.held.count != 10 {
		t.Errorf("judged %d and held %d, want 90 and 10", got, b.held.count)
	}
	for range 100 { // one cgroup alone fills the hold
		b.feed("one", open(300, 20, ctrNS, 3000, "/etc/shadow"))
	}
	b.pass(time.Second)
	if got := len(b.sink.items); got != 200 || b.held.count != 0 {
		t.Errorf("judged %d and held %d, want 200 and 0", got, b.held.count)
	}
}

func TestCollectorRestartIsAFinding(t *testing.T) {
	b := newBench(t, DefaultConfig())
	started := func() *eventv1.Event {
		return &eventv1.Event{Kind: &eventv1.Event_Started{Started: &eventv1.Started{Tier: "tracepoint"}}}
	}
	b.feed("one", started())
	b.host()
	b.want()
	last := b.clock
	b.clock = b.clock.Add(3 * time.Second)
	b.number = 0
	b.feed("two", started(), exec(60, 1, hostNS, 9, "/bin/true"))
	b.want(RuleRestarted + "@host")
	f := b.sink.items[0].Finding
	for _, want := range []string{last.UTC().Format(time.RFC3339), b.clock.UTC().Format(time.RFC3339), "(3s)"} {
		if !strings.Contains(f.GetOutput(), want) {
			t.Errorf("output = %q, want it to contain %q", f.GetOutput(), want)
		}
	}
	if got := b.stream.tierName(); got != "tracepoint" {
		t.Errorf("tier = %q, want tracepoint", got)
	}
}

func TestFindingIDsAreTheSameEachTime(t *testing.T) {
	ids := map[string]int{}
	for range 2 {
		b := newBench(t, DefaultConfig())
		b.host()
		b.feed("one", exec(50, 1, hostNS, 9, "/bin/evil"), open(50, 1, hostNS, 9, "/etc/shadow"), open(50, 1, hostNS, 9, "/etc/shadow"))
		for _, item := range b.sink.items {
			ids[item.Finding.GetId()]++
		}
	}
	if len(ids) != 3 {
		t.Errorf("ids = %v, want 3 different ones", ids)
	}
	for id, n := range ids {
		if n != 2 || len(id) != 32 {
			t.Errorf("id %q came %d times, want 32 hex digits twice", id, n)
		}
	}
}

func TestAnEventThatMatchesNothingDoesNotAllocate(t *testing.T) {
	b := newBench(t, DefaultConfig())
	b.host()
	b.feed("one", exec(40, 20, ctrNS, 1001, "/bin/cat"))
	b.tell(running("c1", 40))
	batch := subscription.NewBatch(&collectorv1.StreamEventsResponse{Instance: "one", Batch: 99})
	s := subject{event: open(40, 20, ctrNS, 1001, "/tmp/x"), batch: batch}
	got := testing.AllocsPerRun(1000, func() {
		if err := b.event(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	})
	if got != 0 {
		t.Errorf("event() allocates %v times, want 0", got)
	}
}

func BenchmarkEvents(b *testing.B) {
	engine, err := New(DefaultConfig(), Deps{
		Rules: load(b), Runtime: &fakeRuntime{}, Sink: &fakeSink{}, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		b.Fatal(err)
	}
	events := make([]*eventv1.Event, 512)
	for i := range events {
		events[i] = open(uint32(100+i%50), 1, hostNS, 9, fmt.Sprintf("/usr/lib/file%d", i))
	}
	events[0] = exec(1, 0, hostNS, 1, "/init")
	for b.Loop() {
		batch := subscription.NewBatch(&collectorv1.StreamEventsResponse{Instance: "one", Batch: 1, Events: events})
		if err := engine.batch(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*len(events))/b.Elapsed().Seconds(), "events/s")
}

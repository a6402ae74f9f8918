package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/subscription"
)

// run is what a run of the collector sends: batches numbered from 1, of events with their places on the rings.
type run struct{ instance, epoch string }

func (r run) send(t *testing.T, b *bench, number uint64, events ...*eventv1.Event) {
	t.Helper()
	for i, e := range events {
		e.Sequence = number*100 + uint64(i) // another one in each run
	}
	batch := subscription.NewBatch(&collectorv1.StreamEventsResponse{BootId: "boot", Instance: r.instance, Epoch: r.epoch, Batch: number, Events: events})
	if err := b.batch(t.Context(), batch); err != nil {
		t.Fatalf("batch() error = %v", err)
	}
}

// at is a read of the password hashes, which the rules match, with its place on a ring.
func at(ring uint32, position uint64) *eventv1.Event {
	e := open(50, 1, hostNS, 9, "/etc/shadow")
	e.Ring, e.Position = ring, position
	return e
}

func startedAgain() *eventv1.Event {
	return &eventv1.Event{Kind: &eventv1.Event_Started{Started: &eventv1.Started{Tier: "lsm", Resumed: true}}}
}

func (b *bench) ids() map[string]int {
	out := map[string]int{}
	for _, item := range b.sink.items {
		out[item.Finding.GetId()]++
	}
	return out
}

func TestWhatAKilledCollectorHadSentIsPassedOver(t *testing.T) {
	b := newBench(t, DefaultConfig())
	b.host()
	first, second := run{"one", "rings"}, run{"two", "rings"}
	first.send(t, b, 1, at(2, 0), at(2, 64), at(1, 64))
	first.send(t, b, 2, at(2, 128))
	// Killed before anything was acknowledged. The next one begins where the last acknowledgement was.
	second.send(t, b, 1, startedAgain(), at(2, 0), at(2, 64))
	second.send(t, b, 2, at(1, 64), at(2, 128))
	if got := len(b.sink.items); got != 4 {
		t.Fatalf("%d findings after redelivery, want the 4 from before: %q", got, b.got())
	}
	second.send(t, b, 3, at(2, 192), at(1, 128))
	if got, ids := len(b.sink.items), b.ids(); got != 6 || len(ids) != 6 {
		t.Errorf("%d findings with %d ids, want 6 each: %q", got, len(ids), b.got())
	}
}

// The collector sorts a batch by time; two CPUs may have written in another order.
func TestABatchNeedNotBeInTheOrderOfPositions(t *testing.T) {
	b := newBench(t, DefaultConfig())
	b.host()
	first, second := run{"one", "rings"}, run{"two", "rings"}
	first.send(t, b, 1, at(2, 128), at(1, 64), at(2, 0), at(1, 0), at(2, 64))
	first.send(t, b, 2, at(2, 256), at(2, 192))
	if got := len(b.sink.items); got != 7 {
		t.Fatalf("%d findings, want 7", got)
	}
	second.send(t, b, 1, startedAgain(), at(2, 320), at(2, 256), at(2, 0), at(2, 384), at(1, 0), at(2, 192), at(2, 128), at(1, 64), at(2, 64))
	if got, ids := len(b.sink.items), b.ids(); got != 9 || len(ids) != 9 {
		t.Errorf("%d findings with %d ids, want the 7 and 2 new ones", got, len(ids))
	}
}

func TestNewRingsBeginAnew(t *testing.T) {
	b := newBench(t, DefaultConfig())
	b.host()
	run{"one", "old"}.send(t, b, 1, at(2, 0), at(2, 64))
	run{"two", "new"}.send(t, b, 1, at(2, 0), at(2, 64))
	run{"three", ""}.send(t, b, 1, at(2, 0), at(2, 64)) // says nothing of rings: nothing can be known again
	run{"four", ""}.send(t, b, 1, at(2, 0), at(7, 0))
	shadow := slices.DeleteFunc(b.got(), func(s string) bool { return s != "shadow@host" })
	if len(shadow) != 8 {
		t.Errorf("%d findings, want 8: %q", len(shadow), b.got())
	}
	if ids := b.ids(); len(ids) != len(b.sink.items) {
		t.Errorf("%d ids of %d findings, want one each", len(ids), len(b.sink.items))
	}
}

// A correlator that is started again has no memory of positions, and must see again what was not acknowledged.
func TestAnyRestartGivesTheSameIDs(t *testing.T) {
	var want map[string]int
	for _, r := range []run{{"one", "rings"}, {"two", "rings"}} {
		b := newBench(t, DefaultConfig())
		r.send(t, b, 0, exec(1, 0, hostNS, 1, "/init"))
		r.send(t, b, 7, at(2, 64), at(1, 64))
		if want == nil {
			want = b.ids()
		}
		if got := b.ids(); !maps.Equal(got, want) || len(got) != 2 {
			t.Errorf("ids after a restart = %v, want %v", got, want)
		}
	}
	b := newBench(t, DefaultConfig())
	run{"one", "other"}.send(t, b, 0, exec(1, 0, hostNS, 1, "/init"))
	run{"one", "other"}.send(t, b, 7, at(2, 64))
	for id := range b.ids() {
		if want[id] != 0 {
			t.Error("another epoch gives the same id")
		}
	}
}

func TestAGapIsToldOnlyIfSomethingWasMissed(t *testing.T) {
	started := func(resumed bool) *eventv1.Event {
		e := startedAgain()
		e.GetStarted().Resumed = resumed
		return e
	}
	tests := []struct {
		name          string
		before, after string // epochs
		first         *eventv1.Event
		want          bool
	}{
		{"took over", "rings", "rings", started(true), false},
		{"took over, epochs not told", "", "", started(true), false},
		{"took over from one that we know no epoch of", "", "rings", started(true), false},
		{"took over from one that we never saw", "rings", "other", started(true), true},
		{"new rings", "rings", "other", started(false), true},
		{"rings taken over, programs not", "rings", "rings", started(false), true},
		{"epochs not told", "", "", started(false), true},
		{"its start was acknowledged before", "rings", "rings", at(2, 640), false},
		{"its start was acknowledged before, new rings", "rings", "other", at(2, 640), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, DefaultConfig())
			b.host()
			run{"one", tt.before}.send(t, b, 3, at(2, 0))
			tt.first.Time = b.sink.items[0].Finding.GetTime()
			run{"two", tt.after}.send(t, b, 0, exec(1, 0, hostNS, 1, "/init")) // of the snapshot
			run{"two", tt.after}.send(t, b, 1, tt.first, open(50, 1, hostNS, 9, "/tmp/a"))
			if got := slices.Contains(b.got(), RuleRestarted+"@host"); got != tt.want {
				t.Errorf("gap told = %t, want %t", got, tt.want)
			}
			if !b.stream.before.IsZero() {
				t.Error("the gap is still open")
			}
		})
	}
}

func TestTheBookmarkKnowsTheRings(t *testing.T) {
	book := &memoryBook{}
	seen := func(r run, events ...*eventv1.Event) *bench {
		b := newRun(t, book)
		r.send(t, b, 0, exec(1, 0, hostNS, 1, "/init"))
		for _, e := range events {
			e.Time = timestamppb.New(b.clock)
		}
		r.send(t, b, 1, events...)
		b.remember(t.Context())
		return b
	}
	seen(run{"one", "rings"}, at(2, 0)).want("shadow@host")
	seen(run{"two", "rings"}, startedAgain(), at(2, 0)).want("shadow@host") // nobody acknowledged it, and nothing was missed
	seen(run{"three", "other"}, startedAgain()).want(RuleRestarted + "@host")
}

// A datagram that waited goes out on behalf of the kernel.
func TestAnEventOfNoProcessIsJudged(t *testing.T) {
	b := newBench(t, DefaultConfig())
	b.host()
	e := open(0, 0, hostNS, 1, "/etc/shadow")
	e.Process, e.Comm = &eventv1.ProcessKey{}, "swapper/0"
	b.feed("one", e, &eventv1.Event{Kind: &eventv1.Event_Privilege{Privilege: &eventv1.Privilege{Operation: 1000}}})
	b.want("shadow@host")
	if got, want := b.sink.items[0].Finding.GetOutput(), "read of /etc/shadow by swapper/0"; got != want {
		t.Errorf("output = %q, want %q", got, want)
	}
	for cgroup, want := range map[uint64]string{1001: "shadow@c1", 5005: "shadow@pending"} {
		t.Run(fmt.Sprint(cgroup), func(t *testing.T) {
			b := newBench(t, DefaultConfig())
			b.host()
			b.feed("one", exec(40, 20, ctrNS, 1001, "/app"))
			b.tell(running("c1", 40))
			e := open(0, 0, 0, cgroup, "/etc/shadow")
			e.Process = &eventv1.ProcessKey{}
			b.feed("one", e)
			b.pass(DefaultConfig().Hold.For)
			b.want(want)
		})
	}
}

func TestNobodyIsKilledForWhatNoProcessDid(t *testing.T) {
	b := newBench(t, DefaultConfig())
	set, _, err := rule.Load(rule.Source{Name: "dns.yaml", Data: []byte(`
- rule: asked
  desc: d
  condition: evt.type = dns_question and dns.question = evil.example
  output: "%dns.question"
  priority: critical
  effect: prevent
`)})
	if err != nil {
		t.Fatal(err)
	}
	b.deps.Rules, b.matches = set, newMatches(set)
	b.host()
	b.feed("one", exec(40, 20, ctrNS, 1001, "/app"))
	b.tell(running("c1", 40))
	for _, pid := range []uint32{0, 40} {
		e := base(pid, 0, ctrNS, 1001)
		e.Process = &eventv1.ProcessKey{Pid: pid, StartBoottimeNs: uint64(pid) * 10}
		e.Kind = &eventv1.Event_Dns{Dns: &eventv1.Dns{Questions: []*eventv1.DnsQuestion{{Name: "evil.example"}}}}
		b.feed("one", e)
	}
	b.want("asked@c1", "asked@c1")
	if item := b.sink.items[0]; item.Kill != nil || item.Finding.GetAction().GetOutcome() != findingv1.ActionOutcome_ACTION_OUTCOME_REFUSED {
		t.Errorf("kill = %v, action = %v, want none and refused", item.Kill, item.Finding.GetAction())
	}
	if got := b.sink.items[1].Kill.GetProcess().GetPid(); got != 40 {
		t.Errorf("kill = %d, want who asked", got)
	}
}

package repeat

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/delivery"
)

var start = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// bench is a folder at a sink that keeps what it gets, and a clock.
type bench struct {
	t      *testing.T
	folder *Folder
	clock  time.Time
	put    int
	done   map[string]int // by the id of what was put in
	got    []delivery.Item
	full   bool
}

var errFull = errors.New("full")

func (b *bench) Put(_ context.Context, item delivery.Item) error {
	if b.full {
		return errFull
	}
	b.got = append(b.got, item)
	return nil
}

func newBench(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	b := &bench{t: t, clock: start, done: map[string]int{}}
	cfg := DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	folder, err := New(cfg, b, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	folder.now = func() time.Time { return b.clock }
	b.folder = folder
	return b
}

// find puts a finding in and returns its id.
func (b *bench) find(change ...func(*delivery.Item)) string {
	b.t.Helper()
	b.put++
	id := fmt.Sprintf("id-%d", b.put)
	item := delivery.Item{
		Alike: true, Done: func() { b.done[id]++ },
		Finding: &findingv1.Finding{
			Id: id, Rule: "Shell", Time: timestamppb.New(b.clock), Output: "a shell", Event: &eventv1.Event{CgroupId: 7},
			Process:  &findingv1.Process{Exe: "/bin/sh"},
			Workload: &findingv1.Workload{ContainerId: "c1", Metadata: findingv1.MetadataState_METADATA_STATE_KNOWN},
		},
	}
	for _, c := range change {
		c(&item)
	}
	if err := b.folder.Put(b.t.Context(), item); err != nil {
		b.t.Fatal(err)
	}
	return id
}

// tell is one turn of Run; what comes out is forgotten here and, as by delivery, done.
func (b *bench) tell() []*findingv1.Finding {
	b.t.Helper()
	if err := b.folder.Tell(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return b.taken()
}

func (b *bench) taken() []*findingv1.Finding {
	var findings []*findingv1.Finding
	for _, item := range b.got {
		item.Done()
		findings = append(findings, item.Finding)
	}
	b.got = nil
	return findings
}

func output(text string) func(*delivery.Item) {
	return func(i *delivery.Item) { i.Finding.Output = text }
}

func TestRepeatsAreToldAsOne(t *testing.T) {
	b := newBench(t, nil)
	first := b.find()
	if got := b.taken(); len(got) != 1 || got[0].GetId() != first || got[0].Repeats != nil {
		t.Fatalf("the first went on as %v", got)
	}
	for range 57 {
		b.clock = b.clock.Add(100 * time.Millisecond)
		b.find()
	}
	if len(b.got) != 0 || len(b.done) != 1 {
		t.Fatalf("%d of 57 repeats went on, %d are done, before they were told", len(b.got), len(b.done)-1)
	}
	got := b.tell()
	if len(got) != 1 {
		t.Fatalf("57 repeats are told in %d findings, want 1", len(got))
	}
	r := got[0].GetRepeats()
	if r.GetCount() != 57 || r.GetOf() != first || r.GetDiffer() {
		t.Errorf("told as %v, want 57 of %s", r, first)
	}
	if from, to := r.GetFirst().AsTime().Sub(start), r.GetLast().AsTime().Sub(start); from != 100*time.Millisecond || to != 5700*time.Millisecond {
		t.Errorf("from %v to %v after the first, want 100ms and 5.7s", from, to)
	}
	if want := "a shell (repeated 57 times from 12:00:00 to 12:00:05 UTC)"; got[0].GetOutput() != want {
		t.Errorf("output %q, want %q", got[0].GetOutput(), want)
	}
	for i := range b.put {
		if id := fmt.Sprintf("id-%d", i+1); b.done[id] != 1 {
			t.Errorf("%s is done %d times", id, b.done[id])
		}
	}
	if again := b.tell(); len(again) != 0 {
		t.Errorf("told again: %v", again)
	}
	b.find()
	if got := b.tell(); len(got) != 1 || !strings.HasSuffix(got[0].GetOutput(), "(repeated once, 58 times since the first)") {
		t.Errorf("one more is told as %v", got)
	}
}

func TestWhatDiffersGoesOnUpToABound(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Distinct = 3 })
	for i := range 10 {
		b.find(output(fmt.Sprintf("port %d", i)))
	}
	if got := b.taken(); len(got) != 4 { // three, and the first of the rest
		t.Fatalf("%d of 10 that differ went on, want 4", len(got))
	}
	got := b.tell()
	if len(got) != 1 || got[0].GetRepeats().GetCount() != 6 || !got[0].GetRepeats().GetDiffer() {
		t.Fatalf("the rest is told as %v", got)
	}
	if want := "port 9 (the last of those by this program that differ, in all 6 times from 12:00:00 to 12:00:00 UTC)"; got[0].GetOutput() != want {
		t.Errorf("output %q, want %q", got[0].GetOutput(), want)
	}
}

func TestWhatIsNotFolded(t *testing.T) {
	others := map[string]func(*delivery.Item){
		"another rule":      func(i *delivery.Item) { i.Finding.Rule = "Miner" },
		"another program":   func(i *delivery.Item) { i.Finding.Process.Exe = "/bin/bash" },
		"another container": func(i *delivery.Item) { i.Finding.Workload.ContainerId = "c2" },
		"the host": func(i *delivery.Item) {
			i.Finding.Workload = &findingv1.Workload{Metadata: findingv1.MetadataState_METADATA_STATE_HOST}
		},
		"one that is acted on": func(i *delivery.Item) { i.Alike = false },
	}
	for name, change := range others {
		b := newBench(t, nil)
		b.find()
		b.find(change)
		if got := b.taken(); len(got) != 2 {
			t.Errorf("%s: %d went on, want 2", name, len(got))
		}
	}
}

// Two containers that nobody has claimed have no id.
func TestUnclaimedContainersAreToldApart(t *testing.T) {
	b := newBench(t, nil)
	for _, cgroup := range []uint64{7, 7, 8} {
		b.find(func(i *delivery.Item) {
			i.Finding.Workload = &findingv1.Workload{Metadata: findingv1.MetadataState_METADATA_STATE_PENDING}
			i.Finding.Event.CgroupId = cgroup
		})
	}
	if got := b.taken(); len(got) != 2 {
		t.Errorf("%d went on, want one of each cgroup", len(got))
	}
}

func TestAWindowEnds(t *testing.T) {
	b := newBench(t, nil)
	b.find()
	b.find()
	b.clock = b.clock.Add(b.folder.cfg.Window)
	if got := b.tell(); len(got) != 2 {
		t.Fatalf("%d told at the window's end, want the first and its repeat", len(got))
	}
	b.find()
	if got := b.taken(); len(got) != 1 || got[0].Repeats != nil {
		t.Errorf("after the window it is told as %v, want a finding of its own", got)
	}
}

func TestBounds(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Groups = 1 })
	b.find()
	for range 2 {
		b.find(func(i *delivery.Item) { i.Finding.Rule = "Miner" })
	}
	if got := b.taken(); len(got) != 3 {
		t.Errorf("%d went on, want all: there is no room to compare", len(got))
	}
	b.folder.waiting = maxWaiting
	b.find()
	if got := b.taken(); len(got) != 1 {
		t.Error("folded, though as many wait as may")
	}
	off := newBench(t, func(c *Config) { c.Window = 0 })
	off.find()
	off.find()
	if got := off.taken(); len(got) != 2 {
		t.Errorf("%d went on, want both: it is switched off", len(got))
	}
}

// What could not be handed on is not done: its batch comes again.
func TestASinkThatRefuses(t *testing.T) {
	b := newBench(t, nil)
	b.find()
	b.taken()
	id := b.find()
	b.full = true
	if err := b.folder.Tell(t.Context()); !errors.Is(err, errFull) {
		t.Errorf("tell() = %v, want %v", err, errFull)
	}
	if b.done[id] != 0 {
		t.Error("done, though nobody took it")
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	err := Config{Window: -1, Every: time.Hour}.Validate()
	for _, key := range []string{"repeats.window", "repeats.every", "repeats.distinct", "repeats.groups"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%v does not name %s", err, key)
		}
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
}

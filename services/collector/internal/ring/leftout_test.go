package ring

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

func TestLossesOfProgramsThatWereLeftOut(t *testing.T) {
	exit := probe.Program{Hook: probe.Hook{Name: "sched_process_exit", Kind: record.Exit}, Place: "sched_process_exit"}
	calls := probe.Program{Hook: probe.Hook{Name: "sys_exit"}, Place: "sys_exit"}
	of := func(p probe.Program, id uint32, count uint64) probe.LeftOut {
		return probe.LeftOut{Program: p, ID: id, Count: count}
	}
	const out = eventv1.LossReason_LOSS_REASON_LEFT_OUT
	steps := []struct {
		name string
		out  []probe.LeftOut
		want map[told]bool
	}{
		{name: "none"},
		{name: "of one kind and of several", out: []probe.LeftOut{of(exit, 7, 2), of(calls, 8, 5)},
			want: map[told]bool{{0, "exit", 2, out, -1}: true, {0, "any", 5, out, -1}: true}},
		{name: "the same counts", out: []probe.LeftOut{of(exit, 7, 2), of(calls, 8, 5)}},
		{name: "one grows", out: []probe.LeftOut{of(exit, 7, 3), of(calls, 8, 5)}, want: map[told]bool{{0, "exit", 1, out, -1}: true}},
		{name: "a new version's program begins at 0", out: []probe.LeftOut{of(exit, 9, 1)}, want: map[told]bool{{0, "exit", 1, out, -1}: true}},
	}
	ledger := &fakeLedger{toldOut: map[uint32]uint64{}}
	for _, step := range steps {
		ledger.out = step.out
		got := reported(t, ledger)
		if !cmp.Equal(got, step.want, cmp.AllowUnexported(told{})) {
			t.Errorf("%s: reported %v, want %v", step.name, got, step.want)
		}
	}
}

// reported is what a reporter of its own, as after a restart, reports first.
func reported(t *testing.T, ledger *fakeLedger) map[told]bool {
	t.Helper()
	var got map[told]bool
	l, err := NewLosses(ledger, record.NewDecoder(time.Unix(0, 0)), func(_ context.Context, events []*eventv1.Event, done func()) error {
		got = map[told]bool{}
		for _, e := range events {
			loss := e.GetLoss()
			got[told{e.GetCgroupId(), loss.GetClass(), loss.GetCount(), loss.GetReason(), loss.GetCpu()}] = true
		}
		done()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.report(t.Context()); err != nil {
		t.Fatal(err)
	}
	return got
}

// Thousands of counters are read once, and then only when one of them may have changed.
func TestLossesLookAtTheCountersOnlyIfThereIsNews(t *testing.T) {
	ledger := &fakeLedger{told: map[probe.Account]probe.Shortfall{}}
	l, err := NewLosses(ledger, record.NewDecoder(time.Unix(0, 0)), func(context.Context, []*eventv1.Event, func()) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		news bool
		want int
	}{{false, 1}, {false, 1}, {true, 2}, {false, 2}} {
		ledger.news = step.news
		if err := l.report(t.Context()); err != nil {
			t.Fatal(err)
		}
		if ledger.looks != step.want {
			t.Errorf("report %d: looked %d times, want %d", i, ledger.looks, step.want)
		}
	}
}

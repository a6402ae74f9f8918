package ring

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// fakeLedger counts in memory.
type fakeLedger struct {
	short, told map[probe.Account]probe.Shortfall
	out         []probe.LeftOut
	toldOut     map[uint32]uint64
	news        bool
	looks       int // at the shortfalls
}

func (l *fakeLedger) NewShortfalls() (bool, error)      { return l.news, nil }
func (l *fakeLedger) LeftOut() ([]probe.LeftOut, error) { return l.out, nil }
func (l *fakeLedger) ToldLeftOut() (map[uint32]uint64, error) {
	return maps.Clone(l.toldOut), nil
}
func (l *fakeLedger) SetToldLeftOut(told map[uint32]uint64) error {
	maps.Copy(l.toldOut, told)
	return nil
}

func (l *fakeLedger) Shortfalls() (map[probe.Account]probe.Shortfall, error) {
	l.looks++
	return l.short, nil
}
func (l *fakeLedger) Told() (map[probe.Account]probe.Shortfall, error) {
	return maps.Clone(l.told), nil
}
func (l *fakeLedger) SetTold(told map[probe.Account]probe.Shortfall) error {
	maps.Copy(l.told, told)
	return nil
}

// told is a Loss event in short.
type told struct {
	cgroup uint64
	class  string
	count  uint64
	reason eventv1.LossReason
	cpu    int32
}

func TestLossesReportWhatIsNew(t *testing.T) {
	const full, rate = eventv1.LossReason_LOSS_REASON_RING_FULL, eventv1.LossReason_LOSS_REASON_RATE
	exec, open := probe.Account{CgroupID: 7, Kind: record.Exec, CPU: 1}, probe.Account{CgroupID: 8, Kind: record.FileOpen}
	refuse := errors.New("no room")
	steps := []struct {
		name   string
		exec   probe.Shortfall
		open   probe.Shortfall
		answer error
		want   map[told]bool
	}{
		{name: "nothing is missing"},
		{name: "two workloads, two reasons", exec: probe.Shortfall{Lost: 1}, open: probe.Shortfall{Lost: 10, Dropped: 3},
			want: map[told]bool{{7, "exec", 1, full, 1}: true, {8, "file_open", 10, full, 0}: true, {8, "file_open", 3, rate, 0}: true}},
		{name: "the same totals", exec: probe.Shortfall{Lost: 1}, open: probe.Shortfall{Lost: 10, Dropped: 3}},
		{name: "one grows, not published", exec: probe.Shortfall{Lost: 1}, open: probe.Shortfall{Lost: 15, Dropped: 3}, answer: refuse,
			want: map[told]bool{{8, "file_open", 5, full, 0}: true}},
		{name: "it is reported again", exec: probe.Shortfall{Lost: 1}, open: probe.Shortfall{Lost: 16, Dropped: 3},
			want: map[told]bool{{8, "file_open", 6, full, 0}: true}},
	}
	ledger := &fakeLedger{told: map[probe.Account]probe.Shortfall{}}
	var got map[told]bool
	var answer error
	publish := func(_ context.Context, events []*eventv1.Event, done func()) error {
		got = map[told]bool{}
		for _, e := range events {
			if e.GetBoottimeNs() == 0 || e.GetTime() == nil {
				t.Errorf("loss without time: %v", e)
			}
			loss := e.GetLoss()
			got[told{e.GetCgroupId(), loss.GetClass(), loss.GetCount(), loss.GetReason(), loss.GetCpu()}] = true
		}
		if answer == nil {
			done()
		}
		return answer
	}
	for _, step := range steps {
		// Each step is a reporter of its own, as after a restart: what was told is in the ledger.
		l, err := NewLosses(ledger, record.NewDecoder(time.Unix(0, 0)), publish)
		if err != nil {
			t.Fatal(err)
		}
		got, answer = nil, step.answer
		ledger.short = map[probe.Account]probe.Shortfall{exec: step.exec, open: step.open}
		if err := l.report(t.Context()); !errors.Is(err, step.answer) {
			t.Fatalf("%s: report = %v, want %v", step.name, err, step.answer)
		}
		if !cmp.Equal(got, step.want, cmp.AllowUnexported(told{})) {
			t.Errorf("%s: reported %v, want %v", step.name, got, step.want)
		}
	}
}

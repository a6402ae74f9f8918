package ring

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

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
	notices     map[uint64]probe.Notice
	last        uint64
	room        int // for notices, if it is not 0
}

func (l *fakeLedger) Notices() ([]probe.Notice, uint64, error) {
	kept := slices.SortedFunc(maps.Values(l.notices), func(a, b probe.Notice) int { return cmp.Compare(a.Number, b.Number) })
	return kept, l.last, nil
}

func (l *fakeLedger) KeepNotices(notices []probe.Notice) error {
	for _, notice := range notices {
		if l.room != 0 && len(l.notices) == l.room {
			return errKilled
		}
		if l.notices == nil {
			l.notices = map[uint64]probe.Notice{}
		}
		l.notices[notice.Number] = notice
		l.last = max(l.last, notice.Number)
	}
	return nil
}

func (l *fakeLedger) DropNotices(notices []probe.Notice) error {
	for _, notice := range notices {
		delete(l.notices, notice.Number)
	}
	return nil
}

var errKilled = errors.New("killed")

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
		{name: "it is reported again, as it was", exec: probe.Shortfall{Lost: 1}, open: probe.Shortfall{Lost: 16, Dropped: 3},
			want: map[told]bool{{8, "file_open", 5, full, 0}: true, {8, "file_open", 1, full, 0}: true}},
	}
	ledger := &fakeLedger{told: map[probe.Account]probe.Shortfall{}}
	var got map[told]bool
	var answer error
	publish := func(_ context.Context, events []*eventv1.Event, done func()) error {
		if got == nil {
			got = map[told]bool{}
		}
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
		if !gocmp.Equal(got, step.want, gocmp.AllowUnexported(told{})) {
			t.Errorf("%s: reported %v, want %v", step.name, got, step.want)
		}
	}
}

// A reporter that dies at any moment is followed by one that says what it may not have got said, under the same names: whoever
// counts each name once has counted everything once.
func TestLossesAreNamedAcrossDeaths(t *testing.T) {
	const cgroup = 7
	account := probe.Account{CgroupID: cgroup, Kind: record.FileOpen}
	ledger := &fakeLedger{told: map[probe.Account]probe.Shortfall{}, short: map[probe.Account]probe.Shortfall{}, toldOut: map[uint32]uint64{}}
	heard := map[uint64]uint64{} // by name
	var sum, said uint64
	deaths := []string{"after all", "unheard", "unacknowledged", "unacknowledged", "after all", "unacknowledged", "half kept", "half kept", "after all"}
	for n, death := range deaths {
		ledger.short[account] = probe.Shortfall{Lost: uint64(10 * (n + 1)), Dropped: uint64(n)}
		ledger.room = 0
		if death == "half kept" {
			ledger.room = len(ledger.notices) + 1
		}
		l, err := NewLosses(ledger, record.NewDecoder(time.Unix(0, 0)), func(_ context.Context, events []*eventv1.Event, done func()) error {
			if death == "unheard" {
				return errKilled
			}
			for _, event := range events {
				if event.GetRing() != probe.LossRing || event.GetPosition() == 0 {
					t.Errorf("a loss has no name: %v", event)
				}
				count, again := heard[event.GetPosition()]
				if again && count != event.GetLoss().GetCount() {
					t.Errorf("loss %d was of %d records and is of %d", event.GetPosition(), count, event.GetLoss().GetCount())
				}
				heard[event.GetPosition()] = event.GetLoss().GetCount()
				said += event.GetLoss().GetCount()
			}
			if death == "after all" {
				done()
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.report(t.Context()); err != nil && !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
	}
	for _, count := range heard {
		sum += count
	}
	want := ledger.short[account].Lost + ledger.short[account].Dropped
	if sum != want || said <= want {
		t.Errorf("heard of %d records missing, and with what was said twice of %d; want %d, and more", sum, said, want)
	}
	if len(ledger.notices) != 0 || ledger.told[account] != ledger.short[account] {
		t.Errorf("kept at the end: notices %v, told %v, want none and %v", ledger.notices, ledger.told, ledger.short)
	}
}

// What there is no room for is told when something has been acknowledged.
func TestLossesWaitForRoom(t *testing.T) {
	ledger := &fakeLedger{told: map[probe.Account]probe.Shortfall{}, short: map[probe.Account]probe.Shortfall{}}
	const accounts = probe.MaxNotices + 10
	for cgroup := range uint64(accounts) {
		ledger.short[probe.Account{CgroupID: cgroup + 1, Kind: record.FileOpen}] = probe.Shortfall{Lost: 1}
	}
	var sum uint64
	var acknowledge []func()
	l, err := NewLosses(ledger, record.NewDecoder(time.Unix(0, 0)), func(_ context.Context, events []*eventv1.Event, done func()) error {
		for _, event := range events {
			sum += event.GetLoss().GetCount()
		}
		acknowledge = append(acknowledge, done)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for round, want := range []uint64{probe.MaxNotices, probe.MaxNotices, accounts} {
		if err := l.report(t.Context()); err != nil {
			t.Fatal(err)
		}
		if sum != want || len(ledger.notices) > probe.MaxNotices {
			t.Errorf("round %d: told of %d records with %d notices, want %d and at most %d", round, sum, len(ledger.notices), want, probe.MaxNotices)
		}
		if round == 1 {
			acknowledge[0]()
		}
	}
}

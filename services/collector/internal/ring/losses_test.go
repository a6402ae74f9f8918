package ring

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

func TestLossesReportWhatIsNew(t *testing.T) {
	var lost [record.Kinds]uint64
	var got map[string]uint64
	refuse := errors.New("no room")
	var answer error
	l := NewLosses(
		func() ([record.Kinds]uint64, error) { return lost, nil },
		record.NewDecoder(time.Unix(0, 0)),
		func(_ context.Context, events []*eventv1.Event) error {
			got = map[string]uint64{}
			for _, e := range events {
				if e.GetBoottimeNs() == 0 || e.GetTime() == nil {
					t.Errorf("loss without time: %v", e)
				}
				got[e.GetLoss().GetClass()] = e.GetLoss().GetCount()
			}
			return answer
		})
	steps := []struct {
		name   string
		exec   uint64
		open   uint64
		answer error
		want   map[string]uint64
	}{
		{name: "nothing lost"},
		{name: "two classes", exec: 1, open: 10, want: map[string]uint64{"exec": 1, "file_open": 10}},
		{name: "the same totals", exec: 1, open: 10},
		{name: "one grows, not published", exec: 1, open: 15, answer: refuse, want: map[string]uint64{"file_open": 5}},
		{name: "it is reported again", exec: 1, open: 16, want: map[string]uint64{"file_open": 6}},
	}
	for _, step := range steps {
		got, answer = nil, step.answer
		lost[record.Exec], lost[record.FileOpen] = step.exec, step.open
		if err := l.report(t.Context()); !errors.Is(err, step.answer) {
			t.Fatalf("%s: report = %v, want %v", step.name, err, step.answer)
		}
		if !cmp.Equal(got, step.want) {
			t.Errorf("%s: reported %v, want %v", step.name, got, step.want)
		}
	}
}

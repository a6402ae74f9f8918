package show

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

func TestIncidents(t *testing.T) {
	start := time.Date(2026, 11, 25, 12, 0, 0, 0, time.Local)
	finding := func(id, rule string, after time.Duration, priority findingv1.Priority) *findingv1.Finding {
		return &findingv1.Finding{
			Rule: rule, Time: timestamppb.New(start.Add(after)), Priority: priority, Workload: &findingv1.Workload{ContainerId: "c1", ContainerName: "web"},
			Incident: &findingv1.Incident{Id: id, Origin: &findingv1.Process{Argv: []string{"nginx", "\x1b[31m"}, Key: &eventv1.ProcessKey{Pid: 7}}},
		}
	}
	repeats := finding("a", "Shell", 2*time.Second, findingv1.Priority_PRIORITY_NOTICE)
	repeats.Repeats = &findingv1.Repeats{Count: 57}
	killed := finding("a", "Miner", time.Second, findingv1.Priority_PRIORITY_CRITICAL)
	killed.Incident.Kind = "miner"
	killed.Action = &findingv1.Action{Outcome: findingv1.ActionOutcome_ACTION_OUTCOME_DONE, Detail: "prevent: degraded to kill"}
	got := Incidents([]*findingv1.Finding{
		finding("b", "Shell", time.Minute, findingv1.Priority_PRIORITY_NOTICE), killed, repeats,
		finding("a", "Shell", 0, findingv1.Priority_PRIORITY_NOTICE),
		finding("a", "Shell", 2*time.Hour, findingv1.Priority_PRIORITY_NOTICE), // after a pause
		{Rule: "Events lost"},
	})
	if len(got) != 3 || got[0].ID != "a" || got[0].Findings != 59 || got[1].Findings != 1 || got[2].ID != "b" {
		t.Fatalf("Incidents() = %v", got)
	}
	var out bytes.Buffer
	if err := WriteIncident(&out, got[0], false); err != nil {
		t.Fatal(err)
	}
	want := "12:00:00 to 12:00:02  CRITICAL  a  web c1  miner  began with nginx \\x1b[31m (pid 7)\n       1  Miner\n      58  Shell\n       1  KILLED\n"
	if out.String() != want {
		t.Errorf("WriteIncident() = %q, want %q", out.String(), want)
	}
}

package pipeline

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

func loss(class string, cgroup uint64, reason eventv1.LossReason) *eventv1.Event {
	return &eventv1.Event{CgroupId: cgroup, Kind: &eventv1.Event_Loss{Loss: &eventv1.Loss{Class: class, Count: 42, Reason: reason}}}
}

func TestLossSaysWhatWasLostWhyAndWhose(t *testing.T) {
	const full, rate, killed = eventv1.LossReason_LOSS_REASON_RING_FULL, eventv1.LossReason_LOSS_REASON_RATE, eventv1.LossReason_LOSS_REASON_KILLED
	tests := []struct {
		name             string
		event            *eventv1.Event
		want, wantOutput string
	}{
		{"ring full", loss("file_open", 0, full), RuleLost + "@host", "Events lost | class=file_open count=42 reason=ring full container=unknown"},
		{"no reason", loss("exec", 0, 0), RuleLost + "@host", "Events lost | class=exec count=42 reason=unknown container=unknown"},
		{"a reason to come", loss("dns_answer", 0, 99), RuleLost + "@host", "Events lost | class=dns_answer count=42 reason=unknown container=unknown"},
		{"a class to come", loss("telepathy", 0, full), RuleLost + "@host", "Events lost | class=other count=42 reason=ring full container=unknown"},
		{"no class", loss("", 0, killed), RuleLost + "@host", "Events lost | class=other count=42 reason=collector killed container=unknown"},
		{"a container over its rate", loss("unlink", 1001, rate), RuleLost + "@c1", "Events dropped | class=unlink count=42 reason=over its rate container=web"},
		{"a cgroup below a container's", loss("unlink", 1002, rate), RuleLost + "@c1", "Events dropped | class=unlink count=42 reason=over its rate container=web"},
		{"a service of the host", loss("file_open", 9, rate), RuleLost + "@host", "Events dropped | class=file_open count=42 reason=over its rate container=host"},
		{"a cgroup that nobody claimed", loss("file_open", 3003, rate), RuleLost + "@pending", "Events dropped | class=file_open count=42 reason=over its rate container=pending"},
		{"a cgroup that nothing is known of", loss("file_open", 4004, rate), RuleLost + "@host", "Events dropped | class=file_open count=42 reason=over its rate container=unknown"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, DefaultConfig())
			b.host()
			b.feed("one", exec(40, 20, ctrNS, 1001, "/app"), exec(41, 40, ctrNS, 1002, "/app"), exec(50, 1, hostNS, 9, "/bin/a"))
			update := running("c1", 40)
			update.Running[0].Workload.ContainerName = "web"
			b.tell(update)
			b.feed("one", exec(60, 1, ctrNS+1, 3003, "/app"))
			b.pass(DefaultConfig().Hold.For)
			b.feed("one", tt.event)
			b.want(tt.want)
			if got := b.sink.items[0].Finding.GetOutput(); got != tt.wantOutput {
				t.Errorf("output = %q, want %q", got, tt.wantOutput)
			}
		})
	}
}

func TestALossThatBreaksTheTreeAsksForASnapshot(t *testing.T) {
	for _, class := range field.AllKinds.Classes() {
		want := 0
		if class == "exec" || class == "fork" || class == "exit" {
			want = 1
		}
		for reason := range eventv1.LossReason_name {
			b := newBench(t, DefaultConfig())
			b.feed("one", loss(class, 0, eventv1.LossReason(reason)))
			if b.reopened != want {
				t.Errorf("%s: asked %d times for a snapshot, want %d", class, b.reopened, want)
			}
		}
	}
}

// Every class has its label from the start, and what is in none shares one.
func TestEventsAreCountedByAClosedSetOfClasses(t *testing.T) {
	registry := prometheus.NewRegistry()
	m, err := newMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	unlink := &eventv1.Event{Kind: &eventv1.Event_FileChange{FileChange: &eventv1.FileChange{Operation: eventv1.FileOperation_FILE_OPERATION_UNLINK}}}
	unknown := &eventv1.Event{Kind: &eventv1.Event_Memory{Memory: &eventv1.Memory{Operation: 77}}}
	for _, e := range []*eventv1.Event{unlink, unlink, unknown, loss("exec", 0, 0), {Kind: &eventv1.Event_Started{}}} {
		m.event(e)
	}
	counts := map[string]float64{}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "palisade_correlator_events_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			counts[metric.GetLabel()[0].GetValue()] = metric.GetCounter().GetValue()
		}
	}
	for class, want := range map[string]float64{"unlink": 2, "other": 1, "loss": 1, "started": 1, "dns_question": 0} {
		if got, ok := counts[class]; got != want || !ok {
			t.Errorf("events of class %s = %v, want %v", class, got, want)
		}
	}
	if got, want := len(counts), field.NumKinds+3; got != want {
		t.Errorf("%d classes counted, want %d", got, want)
	}
}

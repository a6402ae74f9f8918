package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/subscription"
)

func weight(argv []string) (n int) {
	for _, arg := range argv {
		n += len(arg) + 1
	}
	return n
}

func TestHead(t *testing.T) {
	tests := []struct {
		name string
		argv []string
		want []string
	}{
		{"fits", []string{"sh", "-c", "0123456789abc"}, []string{"sh", "-c", "0123456789abc"}},
		{"one byte more", []string{"sh", "-c", "0123456789abcd"}, []string{"sh", "-c", "0123456", cutMark}},
		{"within a rune", []string{"sh", "-c", "012345ä789abcdef"}, []string{"sh", "-c", "012345", cutMark}},
		{"empty arguments", make([]string, 21), append(make([]string, 14), cutMark)},
		{"nothing", nil, nil},
	}
	for _, tt := range tests {
		got := head(tt.argv, 20)
		if !slices.Equal(got, tt.want) || weight(got) > 20 {
			t.Errorf("%s: head() = %q, want %q in at most 20 bytes", tt.name, got, tt.want)
		}
	}
}

// boundRules match what happens below; the first shows all it can.
var boundRules = `
- rule: wordy
  desc: d
  condition: evt.type in (execve, existing) and proc.exepath contains evil
  output: "` + strings.Repeat("%proc.cmdline ", 40) + `"
  priority: critical
`

func TestAFindingIsBoundedWhateverTheProcessDoes(t *testing.T) {
	b := newBench(t, DefaultConfig())
	set, _, err := rule.Load(rule.Source{Name: "bound.yaml", Data: []byte(boundRules)})
	if err != nil {
		t.Fatal(err)
	}
	b.deps.Rules, b.matches = set, newMatches(set)
	b.host()
	path := "/evil" + strings.Repeat("/directory", 400)
	argv := []string{"/bin/sh", "-c", strings.Repeat("\uFFFD", 32<<10)} // what decoding makes of 32 KiB of 0xff
	update := running("c1", 40)
	update.Running[0].Workload.Labels = map[string]string{}
	for i := range 2000 {
		update.Running[0].Workload.Labels[fmt.Sprintf("label-%04d", i)] = strings.Repeat("x", 4000)
	}
	parent := uint32(20)
	update.Running[0].Workload.PodLabels = update.Running[0].Workload.GetLabels()
	update.Running[0].Workload.PodName = strings.Repeat("p", 1<<20)
	for i := range 512 {
		m := &findingv1.Mount{Source: fmt.Sprintf("/srv/%d%s", i, path), Destination: path}
		update.Running[0].Workload.Mounts = append(update.Running[0].Workload.Mounts, m)
	}
	for pid := uint32(40); pid < 80; pid++ {
		e := exec(pid, parent, ctrNS, 1001, argv...)
		e.GetExec().Exe.Path = path
		b.feed("one", e)
		parent = pid
	}
	b.tell(update)
	if len(b.sink.items) != 40 {
		t.Fatalf("%d findings, want 40", len(b.sink.items))
	}
	f := b.sink.items[39].Finding
	if got := proto.Size(f); got > 400<<10 {
		t.Errorf("finding of %d bytes, want at most 400 KiB", got)
	}
	if got := f.GetOutput(); len(got) > 16<<10 || !strings.HasSuffix(got, cutMark) || !utf8.ValidString(got) {
		t.Errorf("output of %d bytes, want at most 16 KiB with the mark at its end", len(got))
	}
	for _, tt := range []struct {
		name  string
		argv  []string
		limit int
	}{
		{"process", f.GetProcess().GetArgv(), 4 << 10},
		{"ancestor", f.GetAncestry()[0].GetArgv(), 512},
		{"event", f.GetEvent().GetExec().GetArgv(), 32 << 10},
	} {
		if got := weight(tt.argv); got > tt.limit || got < tt.limit-16 || tt.argv[len(tt.argv)-1] != cutMark || tt.argv[1] != "-c" {
			t.Errorf("%s: arguments of %d bytes, want %d with the mark as the last", tt.name, got, tt.limit)
		}
	}
	if got := f.GetAncestry()[0].GetExe(); len(got) > 512 || !strings.HasSuffix(got, cutMark) {
		t.Errorf("ancestor's exe = %q, want 512 bytes with the mark", got)
	}
	if !f.GetEvent().GetExec().GetArgvTruncated() {
		t.Error("the event does not say that its arguments were cut")
	}
	if _, marked := f.GetWorkload().GetLabels()[cutMark]; !marked || f.GetWorkload().GetLabels()["label-0000"] == "" {
		t.Error("labels: want the first and the mark")
	}
	if _, marked := f.GetWorkload().GetPodLabels()[cutMark]; !marked {
		t.Error("the pod's labels: want the mark")
	}
	mounts := f.GetWorkload().GetMounts()
	if n := len(mounts); n < 3 || mounts[0].GetDestination() != path || mounts[n-1].GetSource() != cutMark {
		t.Errorf("%d mounts, want the first and the mark", n)
	}
	whole := update.Running[0].Workload
	if len(argv[2]) != 3*32<<10 || len(whole.GetLabels()) != 2000 || len(whole.GetMounts()) != 512 || len(whole.GetPodName()) != 1<<20 {
		t.Error("the event or the workload itself was cut")
	}
}

// A snapshot's events have no number.
func TestExistingProcessesHaveFindingsOfTheirOwn(t *testing.T) {
	event := func(pid uint32, start uint64, exe string) *eventv1.Event {
		e := exec(pid, 1, hostNS, 9, exe)
		e.Process.StartBoottimeNs = start
		e.Kind = &eventv1.Event_Existing{Existing: e.GetExec()}
		return e
	}
	id := func(e *eventv1.Event, rule string) string {
		return findingID(subscription.NewBatch(&collectorv1.StreamEventsResponse{BootId: "boot", Instance: "one"}), e, rule)
	}
	first := id(event(7, 70, "/a"), "r")
	if again := id(event(7, 70, "/a"), "r"); again != first {
		t.Errorf("id = %s and %s for the same process in two snapshots, want one", first, again)
	}
	for name, other := range map[string]string{
		"pid": id(event(8, 70, "/a"), "r"), "start": id(event(7, 71, "/a"), "r"),
		"program": id(event(7, 70, "/b"), "r"), "rule": id(event(7, 70, "/a"), "s"),
	} {
		if other == first {
			t.Errorf("another %s gives the same id, want another", name)
		}
	}
}

// A lost exit is made up for by the next snapshot: the process is not alive any more, and its container can end.
func TestASnapshotEndsWhatItDoesNotName(t *testing.T) {
	b := newBench(t, DefaultConfig())
	b.host()
	b.feed("one", exec(50, 1, hostNS, 9, "/bin/true"), exec(51, 1, hostNS, 9, "/bin/sleep"))
	alive := func(e *eventv1.Event) *eventv1.Event {
		e.Kind = &eventv1.Event_Existing{Existing: e.GetExec()}
		return e
	}
	snapshot := subscription.NewBatch(&collectorv1.StreamEventsResponse{BootId: "boot", Instance: "one", Events: []*eventv1.Event{
		alive(exec(1, 0, hostNS, 1, "/init")), alive(exec(20, 1, hostNS, 5, "/bin/shim")), alive(exec(51, 1, hostNS, 9, "/bin/sleep")),
	}})
	snapshot.Opens = true
	if err := b.batch(t.Context(), snapshot); err != nil {
		t.Fatal(err)
	}
	b.feed("one", open(51, 1, hostNS, 9, "/tmp/a"))
	if b.tree.Live(50) != nil || b.tree.Live(51) == nil {
		t.Errorf("live: 50 %v, 51 %v, want only 51", b.tree.Live(50) != nil, b.tree.Live(51) != nil)
	}
}

package show

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

func TestFinding(t *testing.T) {
	f := &findingv1.Finding{
		Time: timestamppb.New(time.Unix(0, 0)), Rule: "Dropped binary executed", Priority: findingv1.Priority_PRIORITY_CRITICAL,
		Workload: &findingv1.Workload{
			ContainerId: strings.Repeat("ab", 32), ContainerName: "web", Image: "shop/web:1",
			Metadata: findingv1.MetadataState_METADATA_STATE_KNOWN,
		},
		Process:  &findingv1.Process{Argv: []string{"/tmp/x", "-q"}},
		Ancestry: []*findingv1.Process{{Name: "sh"}, {Exe: "/usr/bin/containerd-shim"}},
		Action: &findingv1.Action{
			Outcome: findingv1.ActionOutcome_ACTION_OUTCOME_DONE, Detail: "prevent: degraded to kill (tier tracepoint)",
		},
	}
	var out strings.Builder
	if err := Finding(&out, f, false); err != nil {
		t.Fatal(err)
	}
	want := "CRITICAL  Dropped binary executed  web abababababab (shop/web:1)  /tmp/x -q ← sh ← containerd-shim  " +
		"KILLED: prevent: degraded to kill (tier tracepoint)\n"
	if got := out.String(); !strings.HasSuffix(got, want) {
		t.Errorf("Finding() = %q, want it to end in %q", got, want)
	}
}

func TestActionText(t *testing.T) {
	for want, a := range map[string]*findingv1.Action{
		"KILLED":                {Kind: findingv1.ActionKind_ACTION_KIND_KILL, Outcome: findingv1.ActionOutcome_ACTION_OUTCOME_DONE},
		"NOT KILLED (refused)":  {Kind: findingv1.ActionKind_ACTION_KIND_KILL, Outcome: findingv1.ActionOutcome_ACTION_OUTCOME_REFUSED},
		"CONTAINER REFUSED: x":  {Kind: findingv1.ActionKind_ACTION_KIND_REFUSE, Outcome: findingv1.ActionOutcome_ACTION_OUTCOME_DONE, Detail: "x"},
		"CONTAINER NOT REFUSED": {Kind: findingv1.ActionKind_ACTION_KIND_REFUSE, Outcome: findingv1.ActionOutcome_ACTION_OUTCOME_REFUSED},
	} {
		if got := ActionText(a); got != want {
			t.Errorf("ActionText(%v) = %q, want %q", a, got, want)
		}
	}
}

func TestB23NothingAContainerChoseDrivesTheTerminal(t *testing.T) {
	evil := "\x1b]0;owned\x07\x1b[2J\r\n\u202e\u009b31m"
	f := &findingv1.Finding{
		Rule: evil, Workload: &findingv1.Workload{ContainerId: evil, ContainerName: evil, Image: evil},
		Process: &findingv1.Process{Argv: []string{evil}}, Ancestry: []*findingv1.Process{{Name: evil}},
		Action: &findingv1.Action{Detail: evil},
	}
	var out strings.Builder
	if err := Finding(&out, f, false); err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSuffix(out.String(), "\n")
	if i := strings.IndexFunc(line, func(r rune) bool { return r < ' ' || (r >= 0x7f && r < 0xa0) || r == '\u202e' }); i >= 0 {
		t.Errorf("control character at byte %d of %q", i, line)
	}
}

func TestSafeKeepsWhatPeopleWrite(t *testing.T) {
	for _, text := range []string{`sh -c "echo 'a\b'"`, "naïve café ← 东京", ""} {
		if got := Safe(text); got != text {
			t.Errorf("Safe(%q) = %q, want it unchanged", text, got)
		}
	}
}

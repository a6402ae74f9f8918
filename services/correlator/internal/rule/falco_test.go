package rule_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
)

// falcoPath is beside the repository, not in it: the file is Falco's.
var falcoPath = filepath.Join("..", "..", "..", "..", "..", "shared", "falco", "falco_rules.yaml")

// falcoRules is Falco's own rule file, or skips the test where it is not at hand.
func falcoRules(t testing.TB) rule.Source {
	t.Helper()
	data, err := os.ReadFile(falcoPath)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("Falco's rules are not at %s", falcoPath)
	}
	if err != nil {
		t.Fatal(err)
	}
	return rule.Source{Name: "falco_rules.yaml", Data: data}
}

func TestFalcoRulesLoad(t *testing.T) {
	set, warnings, err := rule.Load(falcoRules(t))
	if err != nil {
		t.Fatalf("Load = %v", err)
	}
	if got, want := len(set.Rules()), 25; got != want {
		t.Errorf("rules = %d, want %d", got, want)
	}
	live := 0
	for _, r := range set.Rules() {
		if r.Enabled && r.Kinds != 0 {
			live++
		}
		t.Logf("%-55s %s", r.Name, r.Kinds)
	}
	if live != len(set.Rules()) {
		t.Errorf("%d of %d rules can match, want all", live, len(set.Rules()))
	}
	if !set.Interest().GivenPaths || !set.Kinds().Has(field.KindDuplicate) {
		t.Errorf("interest: %s, want duplicates, and paths as given", set.Interest())
	}
	t.Logf("interest: %s", set.Interest())
	fields := map[string]int{}
	for _, w := range warnings {
		t.Log(w)
		if w.Field != "" {
			fields[w.Field]++
		}
	}
	t.Logf("%d warnings, fields: %v", len(warnings), fields)
}

// The two rules whose facts no other rule asks for, on events as the collector decodes them.
func TestFalcoRulesOnSocketsAndPathsAsGiven(t *testing.T) {
	set, _, err := rule.Load(falcoRules(t))
	if err != nil {
		t.Fatal(err)
	}
	remote := &eventv1.SocketAddress{Ip: []byte{192, 0, 2, 1}, Port: 4444}
	duplicate := func(family uint32, remote *eventv1.SocketAddress) *eventv1.Event {
		return &eventv1.Event{ResultKnown: true, Kind: &eventv1.Event_Duplicate{Duplicate: &eventv1.Duplicate{
			Call: eventv1.DuplicateCall_DUPLICATE_CALL_FCNTL, Source: 5, Family: family, Type: 1, Protocol: 6, Remote: remote,
		}}}
	}
	open := func(given string, unreadable bool) *eventv1.Event {
		return &eventv1.Event{Kind: &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{
			File: &eventv1.File{Path: "/etc/passwd", Mode: 0o100644}, GivenPath: given,
			GivenPathSource: eventv1.PathSource_PATH_SOURCE_ARGUMENT, GivenPathUnreadable: unreadable,
		}}}
	}
	const redirect, traversal = "Redirect STDOUT/STDIN to Network Connection in Container", "Directory traversal monitored file read"
	for _, tt := range []struct {
		name, want string
		event      *eventv1.Event
	}{
		{"a connection as input", redirect, duplicate(2, remote)},
		{"one of another family as input", "", duplicate(40, nil)},
		{"from below the root", traversal, open("../../../etc/passwd", false)},
		{"straight", "", open("/etc/passwd", false)},
		{"by a path that is gone", "", open("", true)},
	} {
		tt.event.Sequence = 1 // Falco's way to say never is evt.num=0
		c := &field.Context{
			Event: tt.event, Workload: &findingv1.Workload{ContainerId: "3ad7b26ded6d"},
			Process: &field.Process{Name: "app", Exe: "/app", Parent: &field.Process{Name: "init"}},
		}
		var got []string
		set.Match(c, func(r *rule.Rule) {
			if r.Name == redirect || r.Name == traversal {
				got = append(got, r.Name)
			}
		})
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%s: %q matched, want %q", tt.name, got, tt.want)
		}
	}
}

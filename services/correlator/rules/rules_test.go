package rules_test

import (
	"slices"
	"strings"
	"testing"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/sample"
	"github.com/palisade-sec/palisade/services/correlator/rules"
)

// pack is the built-in files, and more behind them.
func pack(t *testing.T, more ...rule.Source) []rule.Source {
	t.Helper()
	sources, err := rules.Sources()
	if err != nil {
		t.Fatal(err)
	}
	return append(sources, more...)
}

func load(t *testing.T) *rule.Set {
	t.Helper()
	set, warnings, err := rule.LoadDetailed(pack(t)...)
	if err != nil {
		t.Fatalf("LoadDetailed(the pack) = %v", err)
	}
	for _, w := range warnings {
		t.Errorf("warning: %s", w)
	}
	return set
}

// Every rule's samples, each of which also must be of the interest that the kernel is told.
func TestSamples(t *testing.T) {
	set := load(t)
	for _, r := range set.Rules() {
		if len(r.Detail.Match) == 0 || len(r.Detail.Differ) == 0 {
			t.Errorf("rule %q has %d samples that match and %d that differ, want some of each", r.Name, len(r.Detail.Match), len(r.Detail.Differ))
		}
	}
	for _, result := range sample.Run(set) {
		if result.Failure != nil {
			t.Error(result.Failure)
		}
	}
}

// An output that shows nothing of a sample that its rule matches is one with a field that its events lack.
func TestOutputsShowWhatHappened(t *testing.T) {
	for _, r := range load(t).Rules() {
		shown := map[string]bool{}
		for _, s := range r.Detail.Match {
			d, errs := sample.Decode(s)
			if len(errs) > 0 {
				t.Fatal(errs[0])
			}
			for word := range strings.FieldsSeq(r.Output(d.Context)) {
				if name, value, ok := strings.Cut(word, "="); ok && value != "<NA>" {
					shown[name] = true
				}
			}
		}
		if !shown["exe"] || len(shown) < 6 {
			t.Errorf("output of rule %q shows %v only", r.Name, shown)
		}
	}
}

func TestPackIsComplete(t *testing.T) {
	set := load(t)
	if got := len(set.Rules()); got < 60 {
		t.Errorf("%d rules, want 60 or more", got)
	}
	for _, r := range set.Rules() {
		tactic := slices.ContainsFunc(r.Tags, func(tag string) bool { return len(tag) > 6 && tag[:6] == "mitre_" })
		technique := slices.ContainsFunc(r.Tags, func(tag string) bool { return len(tag) >= 5 && tag[0] == 'T' && tag[1] >= '0' && tag[1] <= '9' })
		if len(r.Description) < 150 || !tactic || !technique || r.Kinds == 0 || r.Kinds == field.AllKinds || !r.Enabled {
			t.Errorf("rule %q: description %q, tags %v, kinds %s, enabled %t", r.Name, r.Description, r.Tags, r.Kinds, r.Enabled)
		}
		want := findingv1.Effect_EFFECT_ALERT
		if r.Name == "Dropped binary executed" {
			want = findingv1.Effect_EFFECT_PREVENT
		}
		if r.Effect != want {
			t.Errorf("rule %q: effect = %s, want %s", r.Name, r.Effect, want)
		}
	}
}

// What the demo and the end-to-end tests wait for.
func TestNamesThatOthersKnow(t *testing.T) {
	set := load(t)
	for _, name := range []string{
		"Terminal shell in container", "Sensitive file read", "Dropped binary executed", "Write below a binary directory", "Cloud metadata service contacted",
	} {
		if !slices.ContainsFunc(set.Rules(), func(r *rule.Rule) bool { return r.Name == name }) {
			t.Errorf("there is no rule %q", name)
		}
	}
}

// What the pack asks of the kernel: few files, so that a node that runs it alone is not slowed down by the others.
func TestThePackIsInterestedInFewFiles(t *testing.T) {
	got := load(t).Interest()
	if got.Reads.All || got.Writes.All {
		t.Errorf("interest = %s, want some files only", got)
	}
	for _, path := range []string{"/usr/lib/libc.so.6", "/tmp/out", "/srv/data/a", "/proc/4711/stat", "/home/ann/work/main.go"} {
		if got.Reads.Has(path) {
			t.Errorf("reads of %s are recorded", path)
		}
	}
	for _, path := range []string{"/tmp/out", "/srv/data/a", "/var/lib/postgresql/base/1", "/proc/4711/oom_score_adj", "/dev/null"} {
		if got.Writes.Has(path) {
			t.Errorf("writes of %s are recorded", path)
		}
	}
}

// Nothing that the pack calls its own is redefined by Falco's rules, or the other way round, but for the one rule of the same
// name.
func TestAPackOfOurOwnWords(t *testing.T) {
	for _, src := range pack(t) {
		for _, word := range []string{"spawned_process", "shell_binaries", "(open_write", "sensitive_files", "never_true"} {
			if strings.Contains(string(src.Data), word) {
				t.Errorf("%s uses Falco's %s", src.Name, word)
			}
		}
	}
}

package rule_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

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

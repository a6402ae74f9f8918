package rules_test

import (
	"os"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/sample"
)

// TestTheDocumentedRuleLoads takes the example out of docs/rules.md.
func TestTheDocumentedRuleLoads(t *testing.T) {
	raw, err := os.ReadFile("../../../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	var example strings.Builder
	for line := range strings.Lines(string(raw)) {
		if code, ok := strings.CutPrefix(line, "    "); ok && (strings.HasPrefix(code, "- rule:") || example.Len() > 0) {
			example.WriteString(code)
		}
	}
	set, warnings, err := rule.LoadDetailed(pack(t, rule.Source{Name: "rules.md", Data: []byte(example.String())})...)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("the rule in docs/rules.md: %v, %v\n%s", err, warnings, example.String())
	}
	for _, result := range sample.Run(set) {
		if result.Failure != nil {
			t.Error(result.Failure)
		}
	}
}

package admission

import (
	"strings"
	"testing"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/document"
)

func TestFaultsOfAPolicy(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"no version", "rules: [{name: r}]", "policy.yaml:1:1: the policy has no version"},
		{"another version", "version: 2\nrules: [{name: r}]", `policy.yaml:1:10: version: "2" is not one of 1`},
		{"an unknown key", "version: 1\nrule: []\nrules: [{name: r}]", `policy.yaml:2:1: unknown key "rule" in the policy`},
		{"no rules", "version: 1", "policy.yaml:1:1: the policy has no rules"},
		{"empty rules", "version: 1\nrules: []", "policy.yaml:2:8: rules has no items"},
		{"a rule without a name", "version: 1\nrules:\n  - message: x", "policy.yaml:3:5: a rule has no name"},
		{"a name twice", "version: 1\nrules:\n  - name: r\n  - name: r", "policy.yaml:4:11: there is another rule of this name"},
		{"an effect", "version: 1\nrules: [{name: r, trusted: {effect: kill, images: [a]}}]", `effect: "kill" is not one of ignore, alert, block`},
		{"a severity", "version: 1\nrules: [{name: r, vulnerability: {block: worst}}]", `block: "worst" is not one of low, medium, high, critical`},
		{"a check that is none", "version: 1\nrules: [{name: r, compliance: {checks: {privilege: block}}}]", `there is no check "privilege"`},
		{"grace of a word", "version: 1\nrules: [{name: r, vulnerability: {grace_days: {high: soon}}}]", `high: "soon" is not a whole number`},
		{"an exception without an end", "version: 1\nrules: [{name: r, vulnerability: {exceptions: [{id: CVE-1}]}}]", "an exception has no until"},
		{"an exception of nothing", "version: 1\nrules: [{name: r, vulnerability: {exceptions: [{until: 2027-01-01}]}}]", "an exception needs an id or a package"},
		{"a short digest", "version: 1\nrules: [{name: r, trusted: {digests: [sha256:abc]}}]", `"sha256:abc" is no digest`},
		{"an empty not", "version: 1\nrules: [{name: r, match: {not: {}}}]", "not is empty"},
		{"not within not", "version: 1\nrules: [{name: r, match: {not: {images: [a], not: {images: [b]}}}}]", `unknown key "not" in not`},
		{"a factor", "version: 1\nrules: [{name: r, vulnerability: {no_grace_for: [rce]}}]", `"rce" is not one of exploited`},
		{"on_error", "version: 1\nrules: [{name: r, on_error: maybe}]", `on_error: "maybe" is not one of allow, deny`},
		{"a negative serial", "version: 1\nserial: -1\nrules: [{name: r}]", "serial:"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("policy.yaml", []byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Parse = %v, want %q", err, tt.want)
			}
			for _, fault := range document.Faults(err) {
				if fault.Position.Line < 1 || fault.Position.Column < 1 {
					t.Errorf("%v has no place", fault)
				}
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"version: 1\nserial: 3\ndry_run: true\nrules: [{name: r, match: {images: [a], labels: {a: b}, not: {hosts: [x]}}, on_error: deny, vulnerability: {block: low}}]",
		"version: 1\nrules: [{name: r, compliance: {block: high, checks: {privileged: alert}}, trusted: {images: ['[']}}]",
		"version: 1\nrules: [{name: r, vulnerability: {exceptions: [{id: a, until: 2027-01-01}], grace_days: {low: 1}}}]",
	} {
		f.Add([]byte(seed))
	}
	q := &Question{Image: "a", Report: &scannerv1.Report{Vulnerabilities: []*scannerv1.Vulnerability{found("A", high, 3)}}, Spec: []byte("{}")}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := Parse("fuzz", raw)
		if err != nil {
			_ = err.Error()
			return
		}
		d := p.Decide(q, now)
		if d.Denied && d.Text(q) == "" {
			t.Error("a refusal without a reason")
		}
	})
}

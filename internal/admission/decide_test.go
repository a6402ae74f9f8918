package admission

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
)

// now is when tests decide.
var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func parse(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := Parse("policy.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// found is a vulnerability whose fix is so many days old, or that has none.
func found(id string, severity scannerv1.Severity, days int, factors ...string) *scannerv1.Vulnerability {
	v := &scannerv1.Vulnerability{Id: id, Severity: severity, Package: "lib" + strings.ToLower(id), Version: "1.0", RiskFactors: factors, Aliases: []string{"GHSA-" + id}}
	if days >= 0 {
		v.FixedVersion, v.FixedAt = "1.1", timestamppb.New(now.AddDate(0, 0, -days))
	}
	return v
}

const (
	noFix    = -1
	low      = scannerv1.Severity_SEVERITY_LOW
	medium   = scannerv1.Severity_SEVERITY_MEDIUM
	high     = scannerv1.Severity_SEVERITY_HIGH
	critical = scannerv1.Severity_SEVERITY_CRITICAL
	unrated  = scannerv1.Severity_SEVERITY_UNSPECIFIED
)

func TestVulnerabilities(t *testing.T) {
	tests := []struct {
		name, rule string // rule is what stands under vulnerability
		found      []*scannerv1.Vulnerability
		want       Effect
		reasons    []string
	}{
		{name: "below every threshold", rule: "{alert: high, block: critical}", found: []*scannerv1.Vulnerability{found("A", medium, 9)}, want: Ignore},
		{name: "alert", rule: "{alert: medium, block: critical}", found: []*scannerv1.Vulnerability{found("A", high, 9)}, want: Alert, reasons: []string{"A"}},
		{name: "block at the threshold itself", rule: "{block: high}", found: []*scannerv1.Vulnerability{found("A", high, 9)}, want: Block, reasons: []string{"A"}},
		{name: "nothing asked", rule: "{only_fixed: true}", found: []*scannerv1.Vulnerability{found("A", critical, 9)}, want: Ignore},
		{name: "worst first", rule: "{alert: low, block: critical}", want: Block, reasons: []string{"C", "B", "A"},
			found: []*scannerv1.Vulnerability{found("A", low, 9), found("B", high, 9), found("C", critical, 9)}},
		{name: "only fixed leaves out what has no fix", rule: "{block: low, only_fixed: true}", found: []*scannerv1.Vulnerability{found("A", critical, noFix)}, want: Ignore},
		{name: "without only_fixed it blocks", rule: "{block: low}", found: []*scannerv1.Vulnerability{found("A", critical, noFix)}, want: Block, reasons: []string{"A"}},
		{name: "in its grace it alerts", rule: "{block: high, grace_days: {high: 10}}", found: []*scannerv1.Vulnerability{found("A", high, 9)}, want: Alert, reasons: []string{"A"}},
		{name: "at the end of its grace it blocks", rule: "{block: high, grace_days: {high: 10}}", found: []*scannerv1.Vulnerability{found("A", high, 10)}, want: Block, reasons: []string{"A"}},
		{name: "grace is of a severity", rule: "{block: high, grace_days: {high: 10}}", found: []*scannerv1.Vulnerability{found("A", critical, 1)}, want: Block, reasons: []string{"A"}},
		{name: "no grace without a fix", rule: "{block: high, grace_days: {high: 10}}", found: []*scannerv1.Vulnerability{found("A", high, noFix)}, want: Block, reasons: []string{"A"}},
		{name: "a risk factor cancels the grace", rule: "{block: high, grace_days: {high: 10}, no_grace_for: [exploited]}",
			found: []*scannerv1.Vulnerability{found("A", high, 1, "exploited")}, want: Block, reasons: []string{"A"}},
		{name: "another factor does not", rule: "{block: high, grace_days: {high: 10}, no_grace_for: [exploited]}",
			found: []*scannerv1.Vulnerability{found("A", high, 1, "network")}, want: Alert, reasons: []string{"A"}},
		{name: "an exception", rule: "{block: low, exceptions: [{id: A, until: 2026-11-26}]}", found: []*scannerv1.Vulnerability{found("A", high, 9)}, want: Ignore},
		{name: "an exception by alias", rule: "{block: low, exceptions: [{id: GHSA-A, until: 2026-12-01}]}", found: []*scannerv1.Vulnerability{found("A", high, 9)}, want: Ignore},
		{name: "an exception that is over", rule: "{block: low, exceptions: [{id: A, until: 2026-11-25}]}", found: []*scannerv1.Vulnerability{found("A", high, 9)}, want: Block, reasons: []string{"A"}},
		{name: "an exception for another", rule: "{block: low, exceptions: [{id: B, until: 2027-01-01}]}", found: []*scannerv1.Vulnerability{found("A", high, 9)}, want: Block, reasons: []string{"A"}},
		{name: "an exception for packages", rule: `{block: low, exceptions: [{package: "lib*", until: 2027-01-01}]}`, found: []*scannerv1.Vulnerability{found("A", high, 9)}, want: Ignore},
		{name: "an exception for both", rule: `{block: low, exceptions: [{id: A, package: other, until: 2027-01-01}]}`, found: []*scannerv1.Vulnerability{found("A", high, 9)}, want: Block, reasons: []string{"A"}},
		{name: "what nobody rated reaches no threshold", rule: "{block: low}", found: []*scannerv1.Vulnerability{found("A", unrated, 9)}, want: Ignore},
		{name: "unless the rule rates it", rule: "{block: high, unrated: high}", found: []*scannerv1.Vulnerability{found("A", unrated, 9)}, want: Block, reasons: []string{"A"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := parse(t, "version: 1\nrules:\n  - name: r\n    vulnerability: "+tt.rule+"\n")
			d := p.Decide(&Question{Image: "app", Report: &scannerv1.Report{Vulnerabilities: tt.found}}, now)
			var reasons []string
			for _, reason := range d.Vulnerabilities {
				reasons = append(reasons, reason.GetId())
			}
			if d.Effect != tt.want || d.Denied != (tt.want == Block) || !cmp.Equal(reasons, tt.reasons) {
				t.Errorf("Decide = %s, denied %v, for %v; want %s for %v", d.Effect, d.Denied, reasons, tt.want, tt.reasons)
			}
		})
	}
}

func TestTheFirstRuleThatMatchesCounts(t *testing.T) {
	const rules = `version: 1
rules:
  - name: tools
    match: {images: ["registry.example/tools/*"], labels: {team: "sec*"}}
    trusted: {effect: ignore, images: ["*"]}
  - name: production
    match: {namespaces: [prod, "prod-*"], hosts: ["node-*"], not: {images: ["*/pause:*"]}}
    trusted: {images: ["registry.example/*"]}
  - name: rest
    trusted: {effect: alert, images: ["registry.example/*"]}
`
	tests := []struct {
		name string
		q    Question
		rule string
		want Effect
	}{
		{"all parts of a selector must match", Question{Image: "registry.example/tools/x", Namespace: "prod", Host: "node-1"}, "production", Ignore},
		{"with the label the first", Question{Image: "registry.example/tools/x", Namespace: "prod", Host: "node-1", Labels: map[string]string{"team": "sec-ops"}}, "tools", Ignore},
		{"refused", Question{Image: "evil/x", Namespace: "prod-2", Host: "node-1"}, "production", Block},
		{"not undoes", Question{Image: "evil/pause:3", Namespace: "prod-2", Host: "node-1"}, "rest", Alert},
		{"another host", Question{Image: "evil/x", Namespace: "prod", Host: "other"}, "rest", Alert},
	}
	p := parse(t, rules)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d := p.Decide(&tt.q, now); d.Rule != tt.rule || d.Effect != tt.want {
				t.Errorf("Decide(%+v) = rule %q, %s; want %q, %s", tt.q, d.Rule, d.Effect, tt.rule, tt.want)
			}
		})
	}
	if d := parse(t, "version: 1\nrules: [{name: r, match: {images: [x]}, trusted: {images: [y]}}]").Decide(&Question{Image: "z"}, now); d.Rule != "" || d.Denied {
		t.Errorf("no rule matches: %+v, want the container created", d)
	}
}

func TestWhatIsNotKnown(t *testing.T) {
	tests := []struct {
		name, rules string
		q           Question
		denied      bool
		unknown     string
	}{
		{"no report, allowed", "{name: r, vulnerability: {block: low}}", Question{Image: "x"}, false, "it has not been scanned"},
		{"no report, denied", "{name: r, on_error: deny, vulnerability: {block: low}}", Question{Image: "x", NoReport: "the scan broke off"}, true, "the scan broke off"},
		{"a report with faults", "{name: r, on_error: deny, vulnerability: {block: low}}", Question{Image: "x", Report: &scannerv1.Report{Faults: []string{"rpm is damaged"}}}, true, "rpm is damaged"},
		{"an unknown image is no trusted one", "{name: r, on_error: deny, trusted: {images: [a]}}", Question{}, true, "which image this is"},
		{"unknown layers", "{name: r, on_error: deny, trusted: {base_layers: [[sha256:" + strings.Repeat("a", 64) + "]]}}", Question{Image: "x"}, true, "which layers"},
		{"a selector that cannot be answered, denied", "{name: r, on_error: deny, match: {labels: {a: b}}, trusted: {images: ['*']}}", Question{Image: "x", Unsure: []Part{PartLabels}}, true, "the container's labels"},
		{"a selector that cannot be answered, allowed", "{name: r, match: {labels: {a: b}}, trusted: {images: [a]}}", Question{Image: "x", Unsure: []Part{PartLabels}}, false, ""},
		{"a selector that does not match anyway", "{name: r, on_error: deny, match: {labels: {a: b}, hosts: [other]}, trusted: {images: [a]}}", Question{Image: "x", Unsure: []Part{PartLabels}}, false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := parse(t, "version: 1\nrules: ["+tt.rules+"]").Decide(&tt.q, now)
			if d.Denied != tt.denied || !strings.Contains(strings.Join(d.Unknown, "; "), tt.unknown) {
				t.Errorf("Decide = denied %v, unknown %q; want %v and %q", d.Denied, d.Unknown, tt.denied, tt.unknown)
			}
		})
	}
}

func TestTrusted(t *testing.T) {
	a, b, c := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64), "sha256:"+strings.Repeat("c", 64)
	p := parse(t, "version: 1\nrules: [{name: r, trusted: {images: ['registry.example/*'], digests: ["+c+"], base_layers: [["+a+", "+b+"]]}}]")
	for _, tt := range []struct {
		q    Question
		want bool
	}{
		{Question{Image: "registry.example/x"}, true},
		{Question{Image: "evil/x", Digest: c, Layers: []string{b}}, true},
		{Question{Image: "evil/x", Layers: []string{a, b, c}}, true},
		{Question{Image: "evil/x", Layers: []string{a, c}}, false},
		{Question{Image: "evil/x", Layers: []string{b, a}}, false},
		{Question{Image: "evil/x", Layers: []string{a}}, false},
		{Question{Image: "evil/registry.example/x", Layers: []string{}}, false},
	} {
		if d := p.Decide(&tt.q, now); d.Denied == tt.want {
			t.Errorf("Decide(%+v) = denied %v, want trusted %v", tt.q, d.Denied, tt.want)
		}
	}
}

func TestADryRunDeniesNothing(t *testing.T) {
	p := parse(t, "version: 1\ndry_run: true\nrules: [{name: r, trusted: {images: [a]}}]")
	q := &Question{Image: "evil/x"}
	d := p.Decide(q, now)
	if d.Denied || d.Effect != Block || !strings.Contains(d.Text(q), "would refuse this container (dry run)") {
		t.Errorf("Decide = denied %v, %s, %q", d.Denied, d.Effect, d.Text(q))
	}
}

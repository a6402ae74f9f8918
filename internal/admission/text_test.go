package admission

import (
	"strings"
	"testing"
	"unicode"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
)

func TestText(t *testing.T) {
	p := parse(t, `version: 1
rules:
  - name: production
    message: "Ask #platform-security."
    vulnerability: {alert: medium, block: high, grace_days: {high: 30}}
`)
	q := &Question{Image: "registry.example/shop:7", Report: &scannerv1.Report{Vulnerabilities: []*scannerv1.Vulnerability{
		found("CVE-1", medium, noFix), found("CVE-2", critical, 3), found("CVE-3", high, 3), found("CVE-4", critical, noFix),
	}}}
	d := p.Decide(q, now)
	const want = `Palisade refuses this container: rule "production" of the admission policy, image registry.example/shop:7
  vulnerabilities: 2 critical, 1 high, 1 medium; 2 of them block (high and above)
    critical CVE-2 in libcve-2 1.0, fixed in 1.1
    critical CVE-4 in libcve-4 1.0, no fix yet
    high CVE-3 in libcve-3 1.0, fixed in 1.1, blocks from 2026-12-23
    all of them: palisade scan registry.example/shop:7
  Ask #platform-security.
  exception: update the image, or ask for {id: CVE-2, until: DATE} under vulnerability.exceptions of the rule`
	if got := d.Text(q); got != want {
		t.Errorf("Text() =\n%s\nwant\n%s", got, want)
	}
	if got := p.Decide(&Question{Image: "x", Report: &scannerv1.Report{}}, now); got.Text(&Question{}) != "" {
		t.Errorf("Text() of nothing to tell = %q", got.Text(&Question{}))
	}
}

// What an image says of itself reaches terminals (THREATS B23), and engines keep it.
func TestB23TheTextIsEscapedAndBounded(t *testing.T) {
	hostile := "\x1b]0;x\a\nPalisade allows this\u202e\xff" + strings.Repeat("é", 9000)
	p := parse(t, "version: 1\nrules: [{name: r, vulnerability: {block: low}, trusted: {images: [a]}}]")
	v := found("CVE-1", high, 1)
	v.Package, v.Id, v.FixedVersion, v.Version = hostile, hostile, hostile, hostile
	q := &Question{Image: hostile, Report: &scannerv1.Report{Vulnerabilities: []*scannerv1.Vulnerability{v, v, v, v}, Faults: []string{hostile}}}
	d := p.Decide(q, now)
	text := d.Text(q)
	if len(text) > maxText+16 {
		t.Errorf("the text has %d bytes", len(text))
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "Palisade allows") || strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return !unicode.IsGraphic(r) }) {
			t.Errorf("a line of the text is %q", line)
		}
	}
}

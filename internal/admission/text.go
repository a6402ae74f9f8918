package admission

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/escape"
)

const (
	// worst is how many vulnerabilities a text names.
	worst = 3
	// most is how many failures and unknowns it names.
	most = 8
	// maxText bounds a text in bytes: engines keep it in their own messages.
	maxText = 4096
)

// Text tells people what was decided and what they can do. It is several lines, without a newline at the end; "" if there is nothing to tell.
// Words that come from images and configurations are escaped and cut, so they cannot steer a terminal or make up lines.
func (d *Decision) Text(q *Question) string {
	if d.Effect == Ignore {
		return ""
	}
	var w writer
	switch {
	case d.Denied:
		w.line("Palisade refuses this container: rule %q of the admission policy, image %s", d.Rule, nameOf(q))
	case d.DryRun && d.Effect == Block:
		w.line("Palisade would refuse this container (dry run): rule %q of the admission policy, image %s", d.Rule, nameOf(q))
	default:
		w.line("Palisade allows this container with a warning: rule %q of the admission policy, image %s", d.Rule, nameOf(q))
	}
	if d.Untrusted != "" {
		w.line("  not trusted: %s", d.Untrusted)
	}
	d.tellVulnerabilities(&w, q)
	for i, failure := range d.Failures {
		if i == most {
			w.line("  and %d more checks of the configuration", len(d.Failures)-most)
			break
		}
		w.line("  %s: %s", checkName(&failure), strings.TrimSpace(failure.Check.Title+" "+bracketed(failure.Detail)))
		w.line("    remedy: %s", failure.Check.Remedy)
	}
	for _, unknown := range d.Unknown[:min(len(d.Unknown), most)] {
		w.line("  unknown: %s", unknown)
	}
	if d.Message != "" {
		w.line("  %s", d.Message)
	}
	if d.Effect == Block {
		w.line("  exception: %s", d.wayOut(q))
	}
	return w.text()
}

// tellVulnerabilities gives the counts by severity, the worst ones, and how to see all.
func (d *Decision) tellVulnerabilities(w *writer, q *Question) {
	if len(d.Vulnerabilities) == 0 {
		return
	}
	w.line("  vulnerabilities: %s", d.counts())
	for _, found := range d.Vulnerabilities[:min(len(d.Vulnerabilities), worst)] {
		fix := "no fix yet"
		if found.GetFixedVersion() != "" {
			fix = "fixed in " + found.GetFixedVersion()
		}
		if !found.GraceUntil.IsZero() {
			fix += ", blocks from " + found.GraceUntil.UTC().Format(time.DateOnly)
		}
		w.line("    %s %s in %s %s, %s", SeverityWord(found.GetSeverity()), found.GetId(), found.GetPackage(), found.GetVersion(), fix)
	}
	w.line("    all of them: palisade scan %s", nameOf(q))
}

// counts is "2 critical, 1 high (blocked from high on), 4 medium" and the like, worst first.
func (d *Decision) counts() string {
	number := map[scannerv1.Severity]int{}
	blocking := 0
	for _, found := range d.Vulnerabilities {
		number[found.GetSeverity()]++
		if found.Effect == Block {
			blocking++
		}
	}
	var parts []string
	for severity := scannerv1.Severity_SEVERITY_CRITICAL; severity >= scannerv1.Severity_SEVERITY_UNSPECIFIED; severity-- {
		if number[severity] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", number[severity], SeverityWord(severity)))
		}
	}
	text := strings.Join(parts, ", ")
	if blocking > 0 {
		text += fmt.Sprintf("; %d of them block (%s and above)", blocking, SeverityWord(d.Vulnerability.Block))
	}
	return text
}

// wayOut is what to ask for.
func (d *Decision) wayOut(q *Question) string {
	i := slices.IndexFunc(d.Vulnerabilities, func(w Weighed) bool { return w.Effect == Block })
	switch {
	case i >= 0:
		return fmt.Sprintf("update the image, or ask for {id: %s, until: DATE} under vulnerability.exceptions of the rule", d.Vulnerabilities[i].GetId())
	case len(d.Failures) > 0:
		return fmt.Sprintf("change how the container is started, or ask for {%s: ignore} under compliance.checks of the rule", d.Failures[0].Check.ID)
	case d.Untrusted != "":
		return fmt.Sprintf("ask for %s under trusted of the rule", cmp.Or(q.Digest, nameOf(q)))
	}
	return "palisade scan " + nameOf(q) + " first, or ask for on_error: allow in the rule"
}

// checkName is a check as people know it.
func checkName(failure *Failure) string {
	if failure.Check.CIS == "" {
		return failure.Check.ID
	}
	return "CIS " + failure.Check.CIS + " " + failure.Check.ID
}

func bracketed(detail string) string {
	if detail == "" {
		return ""
	}
	return "(" + detail + ")"
}

// SeverityWord is a severity in small letters; one that nobody has rated is unrated.
func SeverityWord(severity scannerv1.Severity) string {
	if severity == scannerv1.Severity_SEVERITY_UNSPECIFIED {
		return "unrated"
	}
	return strings.ToLower(strings.TrimPrefix(severity.String(), "SEVERITY_"))
}

// writer collects lines, each of which stays one.
type writer struct{ out []byte }

func (w *writer) line(format string, args ...any) {
	if len(w.out) > maxText {
		return
	}
	if len(w.out) > 0 {
		w.out = append(w.out, '\n')
	}
	w.out = escape.Append(w.out, fmt.Sprintf(format, args...))
}

// text is what was written, cut to its bound at the end of a line.
func (w *writer) text() string {
	if len(w.out) <= maxText {
		return string(w.out)
	}
	cut := w.out[:maxText]
	if end := strings.LastIndexByte(string(cut), '\n'); end > 0 {
		cut = cut[:end]
	}
	return string(cut) + "\n  (cut)"
}

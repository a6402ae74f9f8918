// Package compliance checks the OCI spec of a container before it starts. A check is an expression in CEL that is true if the spec
// is in order; those of the CIS Docker Benchmark 1.6.0 are built in (checks.yaml), people write their own. Data in: checks, and the
// bytes of a config.json, which nobody is trusted to have written; data out: the checks that failed, with evidence. It opens no file.
package compliance

import (
	_ "embed" // the built-in checks
	"fmt"
	"regexp"
	"slices"

	"cel.dev/cel-go/cel"

	"github.com/palisade-sec/palisade/internal/document"
)

// builtin is the file of the built-in checks.
//
//go:embed checks.yaml
var builtin []byte

// maxChecks bounds the checks of one file.
const maxChecks = 200

// Check is one demand on an OCI spec.
type Check struct {
	// ID is a few words joined by hyphens: docker-socket.
	ID string `json:"id"`
	// CIS is the section of the CIS Docker Benchmark 1.6.0, as in 5.32; empty if there is none.
	CIS   string `json:"cis,omitempty"`
	Title string `json:"title"`
	// Severity is low, medium, high or critical.
	Severity string `json:"severity"`
	// Remedy says why it matters and what to do.
	Remedy string `json:"remedy"`
	// Expression is CEL: true if the spec is in order.
	Expression string `json:"expression"`
	// Evidence is CEL that gives a text or a list of texts when the check has failed; may be empty.
	Evidence string `json:"evidence,omitempty"`
}

// Severities are the words for one, the least first.
func Severities() []string { return []string{"low", "medium", "high", "critical"} }

// Builtin returns the built-in checks, in order of their CIS numbers. Nothing is compiled.
func Builtin() ([]Check, error) {
	file, root := document.Parse("checks.yaml", builtin)
	root.Only("file", "checks")
	var checks []Check
	for _, item := range root.Require("file", "checks").Items() {
		checks = append(checks, read(item.Mapping()))
	}
	return checks, file.Err()
}

// Parse reads people's own checks from the key checks of a mapping, and compiles each to tell what is wrong with its expressions.
// Faults go to the mapping's file. Absent gives none.
func Parse(m document.Mapping) []Check {
	if !m.Has("checks") {
		return nil
	}
	taken := map[string]bool{}
	known, err := Builtin()
	if err != nil {
		m.Fail("%v", err)
	}
	for _, check := range known {
		taken[check.ID] = true
	}
	env, err := newEnv()
	if err != nil {
		m.Fail("%v", err)
		return nil
	}
	items := m.Value("checks").Items()
	if len(items) > maxChecks {
		m.Value("checks").Fail("checks: more than %d", maxChecks)
		items = items[:maxChecks]
	}
	var checks []Check
	for _, item := range items {
		mapping := item.Mapping()
		check := read(mapping)
		if check.ID != "" && taken[check.ID] {
			mapping.Value("id").Fail("id: there is a check %q already", check.ID)
		}
		taken[check.ID] = true
		tell(env, mapping.Value("expression"), check.Expression, cel.BoolType)
		tell(env, mapping.Value("evidence"), check.Evidence, evidenceTypes()...)
		checks = append(checks, check)
	}
	return checks
}

// tell reports what is wrong with an expression, where it is.
func tell(env *cel.Env, value document.Value, expression string, results ...*cel.Type) {
	if expression == "" {
		return
	}
	_, faults := program(env, expression, results...)
	for _, f := range faults {
		value.FailAt(f.offset, "%s", f.msg)
	}
}

func read(m document.Mapping) Check {
	const what = "check"
	m.Only(what, "id", "cis", "title", "severity", "remedy", "expression", "evidence")
	check := Check{
		ID: m.Require(what, "id").Text(), CIS: text(m, "cis"), Title: m.Require(what, "title").Text(),
		Severity: m.Require(what, "severity").Word(Severities()...), Remedy: m.Require(what, "remedy").Text(),
		Expression: m.Require(what, "expression").Text(), Evidence: text(m, "evidence"),
	}
	if check.ID != "" && !regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`).MatchString(check.ID) {
		m.Value("id").Fail("id: %.64q is not small letters and digits joined by hyphens", check.ID)
	}
	return check
}

// text is an optional text.
func text(m document.Mapping, key string) string {
	if !m.Has(key) {
		return ""
	}
	return m.Value(key).Text()
}

// Select returns the checks of these ids, in their order.
func Select(checks []Check, ids []string) ([]Check, error) {
	selected := make([]Check, 0, len(ids))
	for _, id := range ids {
		i := slices.IndexFunc(checks, func(c Check) bool { return c.ID == id })
		if i < 0 {
			return nil, fmt.Errorf("no check %.64q: palisade compliance lists them", id)
		}
		selected = append(selected, checks[i])
	}
	return selected, nil
}

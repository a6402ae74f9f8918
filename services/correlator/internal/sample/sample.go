// Package sample runs the samples that rules carry: events written in YAML that a rule must match, or must not. Data in: a compiled
// set with details; data out: for each sample whether it came out as the rule says. docs/rules.md has the keys. A sample is read
// strictly: a key that its class of event does not have is an error with its place.
package sample

import (
	"fmt"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
)

// Result is what came of a sample.
type Result struct {
	Rule string
	Name string
	// Want says whether the rule must match.
	Want bool
	// Failure is nil if all is well. Its place is the sample's.
	Failure *rule.Error
	// Others are the other rules that match the event.
	Others []string
}

// Run reads and runs all samples of the set, in the order of its rules. A rule that is not enabled is judged too.
func Run(set *rule.Set) []Result {
	var results []Result
	for _, r := range set.Rules() {
		if r.Detail == nil {
			continue
		}
		for _, s := range r.Detail.Match {
			results = append(results, run(set, r, s, true))
		}
		for _, s := range r.Detail.Differ {
			results = append(results, run(set, r, s, false))
		}
	}
	return results
}

// Check reads all samples and runs none. It returns what is wrong with them.
func Check(set *rule.Set) []*rule.Error {
	var faults []*rule.Error
	for _, r := range set.Rules() {
		if r.Detail == nil {
			continue
		}
		for _, s := range slices.Concat(r.Detail.Match, r.Detail.Differ) {
			_, errs := Decode(s)
			faults = append(faults, errs...)
		}
	}
	return faults
}

func run(set *rule.Set, r *rule.Rule, s rule.Sample, want bool) Result {
	d, errs := Decode(s)
	out := Result{Rule: r.Name, Name: d.Name, Want: want}
	if len(errs) > 0 {
		out.Failure = errs[0]
		return out
	}
	got := false
	set.Match(d.Context, func(m *rule.Rule) {
		if m == r {
			got = true
			return
		}
		out.Others = append(out.Others, m.Name)
	})
	switch {
	case !r.Enabled:
	case got && !set.Interest().Admits(d.Context.Event):
		out.Failure = s.Errorf(s.Node, "%s matches, but the kernel would not record the event: this is a fault of Palisade", r.Name)
	case got != want:
		out.Failure = s.Errorf(s.Node, "%s", why(r, d, want))
	}
	return out
}

// why says what the rule did, and what the fields that it compares hold.
func why(r *rule.Rule, d Decoded, want bool) string {
	verb := "matches"
	if want {
		verb = "does not match"
	}
	var values []string
	for _, name := range r.Detail.Fields {
		f, err := field.Lookup(name, "", false)
		if err != nil || name == "evt.num" {
			continue
		}
		if text, ok := f.AppendText(nil, d.Context); ok {
			values = append(values, fmt.Sprintf("%s=%q", name, text))
		}
	}
	return fmt.Sprintf("rule %q %s this sample, where %s", r.Name, verb, strings.Join(values, " "))
}

// sortedWords is for messages.
func sortedWords(words []string) string {
	slices.Sort(words)
	return strings.Join(slices.Compact(words), ", ")
}

package rulecommand

import (
	"fmt"

	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/sample"
)

// tested is a sample's result, for programs.
type tested struct {
	Rule    string   `json:"rule"`
	Sample  string   `json:"sample"`
	Want    string   `json:"want"`
	Passed  bool     `json:"passed"`
	Failure *fault   `json:"failure,omitempty"`
	Others  []string `json:"other_rules,omitempty"`
}

// test runs the samples of the rules that stand in the files asked for, or of the built-in ones.
func (c *command) test() error {
	set, err := c.mustLoad(c.args)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	bare := []string{}
	for _, r := range set.Rules() {
		if len(c.args) > 0 && !c.ours(r.Position.File) {
			continue
		}
		wanted[r.Name] = true
		if count(r) == 0 {
			bare = append(bare, r.Name)
		}
	}
	results := []tested{}
	var failures []*rule.Error
	for _, r := range sample.Run(set) {
		if !wanted[r.Rule] {
			continue
		}
		out := tested{Rule: r.Rule, Sample: r.Name, Want: "differ", Passed: r.Failure == nil, Others: r.Others}
		if r.Want {
			out.Want = "match"
		}
		if r.Failure != nil {
			failures = append(failures, r.Failure)
			out.Failure = &shown([]*rule.Error{r.Failure})[0]
		}
		results = append(results, out)
	}
	if c.json {
		err = c.encode(map[string]any{"samples": results, "rules_without_samples": bare})
	} else {
		err = c.printTests(len(wanted), len(results), failures, bare)
	}
	if err == nil && len(failures) > 0 {
		err = fmt.Errorf("%d of %s came out otherwise: %w", len(failures), plural(len(results), "sample"), errFailed)
	}
	return err
}

func (c *command) printTests(rules, samples int, failures []*rule.Error, bare []string) error {
	for _, f := range failures {
		fmt.Fprintln(c.out, "failed:", f)
	}
	for _, name := range bare {
		fmt.Fprintf(c.out, "no samples: %s\n", name)
	}
	if len(failures) > 0 {
		return nil
	}
	_, err := fmt.Fprintf(c.out, "ok: %s of %s\n", plural(samples, "sample"), plural(rules, "rule"))
	return err
}

package rulecommand

import (
	"errors"
	"fmt"

	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/sample"
)

// fileCount is a file and what stands in it, for programs.
type fileCount struct {
	File   string `json:"file"`
	Rules  int    `json:"rules"`
	Macros int    `json:"macros"`
	Lists  int    `json:"lists"`
}

// checked is what check has to say.
type checked struct {
	Files    []fileCount `json:"files"`
	Total    int         `json:"rules_in_force"`
	Unknown  int         `json:"unknown_fields"`
	NoSource int         `json:"fields_without_source"`
	Warnings []fault     `json:"warnings"`
	Errors   []fault     `json:"errors"`
}

// check loads files and says what is wrong with them.
func (c *command) check() error {
	if len(c.args) == 0 {
		return errors.New("check: name a rule file, or a directory of them")
	}
	set, warnings, err := c.load(c.args)
	faults := faultsOf(err)
	if err != nil && len(faults) == 0 {
		return err
	}
	if err == nil {
		faults = sample.Check(set)
	}
	out := checked{Files: []fileCount{}, Warnings: []fault{}, Errors: shown(faults)}
	c.count(&out, set)
	kept := c.warnings(&out, warnings)
	if c.json {
		err = c.encode(out)
	} else {
		err = c.print(out, faults, kept)
	}
	switch {
	case err != nil:
		return err
	case len(faults) > 0:
		return countError(len(faults))
	case c.strict && len(kept) > 0:
		return fmt.Errorf("%s: %w", plural(len(kept), "warning"), errFailed)
	}
	return nil
}

func (c *command) count(out *checked, set *rule.Set) {
	if set == nil {
		return
	}
	for _, f := range set.Files() {
		if c.ours(f.Name) {
			out.Files = append(out.Files, fileCount{f.Name, f.Rules, f.Macros, f.Lists})
		}
	}
	for _, r := range set.Rules() {
		if r.Enabled && r.Kinds != 0 {
			out.Total++
		}
	}
}

// warnings keeps those about the files that were asked for, and counts the fields that they are about.
func (c *command) warnings(out *checked, all []rule.Warning) []rule.Warning {
	var kept []rule.Warning
	unknown, noSource := map[string]bool{}, map[string]bool{}
	for _, w := range all {
		if !c.ours(w.Position.File) {
			continue
		}
		kept = append(kept, w)
		f := fault{File: w.Position.File, Line: w.Position.Line, Column: w.Position.Column, Message: w.Msg, Rule: w.Rule, Field: w.Field}
		switch w.Lacks {
		case rule.UnknownField:
			f.Lacks, unknown[w.Field] = "name", true
		case rule.FieldWithoutSource:
			f.Lacks, noSource[w.Field] = "source", true
		case rule.Nothing:
		}
		out.Warnings = append(out.Warnings, f)
	}
	out.Unknown, out.NoSource = len(unknown), len(noSource)
	return kept
}

func (c *command) print(out checked, faults []*rule.Error, warnings []rule.Warning) error {
	for _, w := range warnings {
		fmt.Fprintln(c.out, "warning:", w)
	}
	for _, f := range faults {
		fmt.Fprintln(c.out, "error:", f)
	}
	for _, f := range out.Files {
		fmt.Fprintf(c.out, "%s: %s, %s, %s\n", f.File, plural(f.Rules, "rule"), plural(f.Macros, "macro"), plural(f.Lists, "list"))
	}
	if len(faults) > 0 {
		_, err := fmt.Fprintln(c.out, "not loaded: a node goes on with the rules it has")
		return err
	}
	builtin := " with the built-in ones"
	if c.noBuiltin {
		builtin = ""
	}
	_, err := fmt.Fprintf(c.out, "ok: %s in force%s, %s, %s, %s\n", plural(out.Total, "rule"), builtin,
		plural(out.Unknown, "unknown field"), plural(out.NoSource, "field")+" without a source", plural(len(warnings), "warning"))
	return err
}

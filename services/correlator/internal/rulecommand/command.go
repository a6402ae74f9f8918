// Package rulecommand is `palisade-correlator rules`: what the rule engine of this very binary makes of rule files. Data in: words
// of a command line and rule files; data out: text or JSON. It speaks to no other process and needs no privilege. `palisade rules`
// runs it, so that the words and files mean the same there.
package rulecommand

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/rulefile"
)

// errFailed ends a command that has said on its output what is wrong.
var errFailed = errors.New("see above")

const usage = `usage: rules check   [-o json] [-no-builtin] [-strict] FILE...
       rules list    [-o json] [-no-builtin] [FILE...]
       rules explain [-o json] [-no-builtin] RULE [FILE...]
       rules test    [-o json] [-no-builtin] [FILE...]

A FILE is a rule file, or a directory of *.yaml files. They are read after the built-in rules, as the correlator does.
`

// command is one call.
type command struct {
	out       io.Writer
	builtin   []rule.Source
	json      bool
	noBuiltin bool
	strict    bool
	args      []string
}

// Run carries out the words after "rules". builtin is the pack. The error is nil if all is well with the files.
func Run(args []string, builtin []rule.Source, out io.Writer) error {
	c := &command{out: out, builtin: builtin}
	runs := map[string]func() error{"check": c.check, "list": c.list, "explain": c.explain, "test": c.test}
	if len(args) == 0 || runs[args[0]] == nil {
		fmt.Fprint(out, usage)
		return fmt.Errorf("rules: which of check, list, explain and test, not %q", strings.Join(args[:min(1, len(args))], ""))
	}
	flags := flag.NewFlagSet("rules "+args[0], flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() { fmt.Fprint(out, usage) }
	output := flags.String("o", "text", "text or json")
	flags.BoolVar(&c.noBuiltin, "no-builtin", false, "leave the built-in rules out")
	flags.BoolVar(&c.strict, "strict", false, "take warnings for errors")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if *output != "text" && *output != "json" {
		return fmt.Errorf("-o: %q is not text or json", *output)
	}
	c.json, c.args = *output == "json", flags.Args()
	return runs[args[0]]()
}

// load reads the files after the pack, if that is wanted.
func (c *command) load(paths []string) (*rule.Set, []rule.Warning, error) {
	var sources []rule.Source
	if !c.noBuiltin {
		sources = append(sources, c.builtin...)
	}
	files, err := rulefile.Read(paths)
	if err != nil {
		return nil, nil, fmt.Errorf("read rules: %w", err)
	}
	if sources = append(sources, files...); len(sources) == 0 {
		return nil, nil, errors.New("no rules: name a file, or leave -no-builtin out")
	}
	return rule.LoadDetailed(sources...)
}

// mustLoad is load for commands that need a set: its faults are shown.
func (c *command) mustLoad(paths []string) (*rule.Set, error) {
	set, _, err := c.load(paths)
	if err == nil {
		return set, nil
	}
	faults := faultsOf(err)
	if len(faults) == 0 {
		return nil, err
	}
	if c.json {
		return nil, errors.Join(c.encode(map[string]any{"errors": shown(faults)}), countError(len(faults)))
	}
	for _, f := range faults {
		fmt.Fprintln(c.out, f)
	}
	return nil, countError(len(faults))
}

func countError(n int) error {
	if n == 1 {
		return fmt.Errorf("1 error: %w", errFailed)
	}
	return fmt.Errorf("%d errors: %w", n, errFailed)
}

// faultsOf takes the joined error of a load apart. One that is no fault of a file gives none.
func faultsOf(err error) []*rule.Error {
	var faults []*rule.Error
	if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // errors.Join's own type, from rule.Load
		for _, e := range joined.Unwrap() {
			faults = append(faults, faultsOf(e)...)
		}
		return faults
	}
	if fault, ok := errors.AsType[*rule.Error](err); ok {
		faults = append(faults, fault)
	}
	return faults
}

// ours says whether a file is among those that were asked for, and not of the pack.
func (c *command) ours(file string) bool {
	for _, src := range c.builtin {
		if src.Name == file {
			return c.noBuiltin
		}
	}
	return true
}

func (c *command) encode(v any) error {
	encoder := json.NewEncoder(c.out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// fault is an error of a file, for programs.
type fault struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Message string `json:"message"`
	Text    string `json:"text,omitempty"`
	Rule    string `json:"rule,omitempty"`
	Field   string `json:"field,omitempty"`
	Lacks   string `json:"lacks,omitempty"`
}

func shown(faults []*rule.Error) []fault {
	out := make([]fault, 0, len(faults))
	for _, f := range faults {
		out = append(out, fault{File: f.Position.File, Line: f.Position.Line, Column: f.Position.Column, Message: f.Msg, Text: f.Text})
	}
	return out
}

func priorityWord(p findingv1.Priority) string {
	return strings.ToLower(strings.TrimPrefix(p.String(), "PRIORITY_"))
}

// effectWord is what the rule does; one that is switched off does nothing.
func effectWord(r *rule.Rule) string {
	if !r.Enabled {
		return "disable"
	}
	return strings.ToLower(strings.TrimPrefix(r.Effect.String(), "EFFECT_"))
}

// place is file:line, with the file's name alone: the paths of one directory differ in nothing else.
func place(r *rule.Rule) string {
	return fmt.Sprintf("%s:%d", filepath.Base(r.Position.File), r.Position.Line)
}

// plural is "1 rule" or "2 rules".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

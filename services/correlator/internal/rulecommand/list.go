package rulecommand

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
)

// listed is a rule in few words, for programs.
type listed struct {
	Name     string   `json:"name"`
	Priority string   `json:"priority"`
	Effect   string   `json:"effect"`
	Tags     []string `json:"tags"`
	File     string   `json:"file"`
	Line     int      `json:"line"`
	Classes  []string `json:"classes"`
	Samples  int      `json:"samples"`
}

func listing(r *rule.Rule) listed {
	return listed{
		Name: r.Name, Priority: priorityWord(r.Priority), Effect: effectWord(r), Tags: append([]string{}, r.Tags...),
		File: r.Position.File, Line: r.Position.Line, Classes: append([]string{}, r.Kinds.Classes()...), Samples: count(r),
	}
}

// count is how many samples a rule has. One of a source that is not provided has no detail.
func count(r *rule.Rule) int {
	if r.Detail == nil {
		return 0
	}
	return len(r.Detail.Match) + len(r.Detail.Differ)
}

// list shows every rule in a line.
func (c *command) list() error {
	set, err := c.mustLoad(c.args)
	if err != nil {
		return err
	}
	rules := make([]listed, 0, len(set.Rules()))
	for _, r := range set.Rules() {
		rules = append(rules, listing(r))
	}
	if c.json {
		return c.encode(rules)
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "RULE\tPRIORITY\tEFFECT\tAT\tEVENTS\tTAGS")
	for i, r := range set.Rules() {
		classes := strings.Join(rules[i].Classes, ",")
		if len(rules[i].Classes) > 6 {
			classes = fmt.Sprintf("%d classes", len(rules[i].Classes))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, rules[i].Priority, rules[i].Effect, place(r), classes, strings.Join(r.Tags, ","))
	}
	return w.Flush()
}

// explained is a rule in many words, for programs.
type explained struct {
	listed
	Description string              `json:"description"`
	Condition   string              `json:"condition"`
	Expanded    string              `json:"expanded"`
	Exceptions  []rule.Exception    `json:"exceptions,omitempty"`
	Lists       map[string][]string `json:"lists,omitempty"`
	Fields      []string            `json:"fields"`
	Interest    string              `json:"interest"`
	Output      string              `json:"output"`
	Window      string              `json:"window,omitempty"`
	Incident    string              `json:"incident,omitempty"`
	Warnings    []string            `json:"warnings,omitempty"`
}

// explain shows all there is to know about a rule.
func (c *command) explain() error {
	if len(c.args) == 0 {
		return fmt.Errorf("explain: name a rule; list shows their names")
	}
	set, err := c.mustLoad(c.args[1:])
	if err != nil {
		return err
	}
	i := slices.IndexFunc(set.Rules(), func(r *rule.Rule) bool { return r.Name == c.args[0] })
	if i < 0 {
		return unknownRule(set, c.args[0])
	}
	r := set.Rules()[i]
	out := explained{listed: listing(r), Description: r.Description, Condition: r.Condition, Incident: r.Incident}
	if r.Window.Times > 0 {
		out.Window = fmt.Sprintf("%d times within %s in the same workload", r.Window.Times, r.Window.Within)
	}
	if d := r.Detail; d != nil {
		out.Expanded, out.Exceptions, out.Lists, out.Fields, out.Output = d.Expanded, d.Exceptions, d.Lists, d.Fields, strings.TrimSpace(d.Output)
		out.Interest = d.Interest.String()
	}
	_, warnings, _ := c.load(c.args[1:]) // loaded above
	for _, w := range warnings {
		if w.Rule == r.Name {
			out.Warnings = append(out.Warnings, w.String())
		}
	}
	if c.json {
		return c.encode(out)
	}
	return c.printExplained(out)
}

// unknownRule names the rules that were perhaps meant.
func unknownRule(set *rule.Set, name string) error {
	var like []string
	for _, r := range set.Rules() {
		if strings.Contains(strings.ToLower(r.Name), strings.ToLower(name)) {
			like = append(like, fmt.Sprintf("%q", r.Name))
		}
	}
	if len(like) == 0 {
		return fmt.Errorf("no rule %q: list shows their names", name)
	}
	return fmt.Errorf("no rule %q: did you mean %s?", name, strings.Join(like[:min(5, len(like))], ", "))
}

func (c *command) printExplained(e explained) error {
	w := &strings.Builder{}
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "%-11s %s\n", name, wrapped(text, 12))
		}
	}
	fmt.Fprintf(w, "%s\n\n", e.Name)
	line("means", e.Description)
	line("at", fmt.Sprintf("%s:%d", e.File, e.Line))
	line("priority", e.Priority)
	line("effect", e.Effect)
	line("window", e.Window)
	line("incident", e.Incident)
	line("tags", strings.Join(e.Tags, ", "))
	line("events", strings.Join(e.Classes, ", "))
	line("kernel", e.Interest)
	line("fields", strings.Join(e.Fields, ", "))
	line("condition", e.Expanded)
	for _, x := range e.Exceptions {
		line("but not", fmt.Sprintf("%s: %s", x.Name, x.Condition))
	}
	for _, name := range slices.Sorted(maps.Keys(e.Lists)) {
		line("list", fmt.Sprintf("%s = %s", name, strings.Join(e.Lists[name], ", ")))
	}
	line("output", e.Output)
	for _, text := range e.Warnings {
		line("warning", text)
	}
	line("samples", fmt.Sprintf("%d; run them with `palisade rules test`", e.Samples))
	_, err := fmt.Fprint(c.out, w.String())
	return err
}

// wrapped breaks a text into lines of about a hundred columns, those after the first moved in.
func wrapped(text string, indent int) string {
	const width = 100
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case column+1+len(word) > width:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}

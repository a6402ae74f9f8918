package rule

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/byname"
	"github.com/palisade-sec/palisade/services/correlator/internal/condition"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/interest"
)

// Limits on what references may grow to.
const (
	maxListItems  = 100_000
	maxChecks     = 50_000
	maxMacroDepth = 100
)

// list is a list's items as written, and the strings they come to once asked for.
type list struct {
	items    []span
	values   []string
	resolved bool
	busy     bool
}

// macro is a macro's condition as written, and its tree once asked for.
type macro struct {
	name   string
	text   text
	tree   condition.Node
	parsed bool
	busy   bool
}

// loader gathers the items of all files, then compiles them.
type loader struct {
	errs     []*Error
	reported map[string]bool
	warnings []Warning
	order    map[string]int

	lists     map[string]*list
	macros    map[string]*macro
	rules     []*definition
	ruleIndex map[string]int

	aliased int
	flooded bool

	// detailed asks for each rule's Detail.
	detailed bool
	files    []FileCount
}

func newLoader() *loader {
	return &loader{
		reported: map[string]bool{}, order: map[string]int{},
		lists: map[string]*list{}, macros: map[string]*macro{}, ruleIndex: map[string]int{},
	}
}

// fail reports an error, once: a macro is compiled for each kind of event.
func (l *loader) fail(p place, format string, args ...any) {
	l.failWith(errorAt(p, format, args...))
}

func (l *loader) failWith(err *Error) {
	if key := err.Position.String() + err.Msg; !l.reported[key] {
		l.reported[key] = true
		l.errs = append(l.errs, err)
	}
}

func (l *loader) warn(w Warning) { l.warnings = append(l.warnings, w) }

// resolve is what a list comes to: its items without repetition, with the lists among them
// replaced by theirs.
func (l *loader) resolve(name string, depth int) []string {
	li := l.lists[name]
	if li.resolved {
		return li.values
	}
	li.busy = true
	seen := map[string]bool{}
	for _, item := range li.items {
		for _, v := range l.itemValues(item, depth) {
			if seen[v] {
				continue
			}
			seen[v] = true
			li.values = append(li.values, v)
		}
		if len(li.values) > maxListItems {
			l.fail(item.place(), "list %q has more than %d items", name, maxListItems)
			break
		}
	}
	li.busy, li.resolved = false, true
	return li.values
}

// itemValues is what one item stands for: itself, or the items of the list it names.
func (l *loader) itemValues(item span, depth int) []string {
	value := item.node.Value
	if other := l.lists[value]; other != nil {
		switch {
		case other.busy:
			l.fail(item.place(), "list %q contains itself", value)
			return nil
		case depth >= maxMacroDepth:
			l.fail(item.place(), "lists are nested more than %d deep", maxMacroDepth)
			return nil
		}
		return l.resolve(value, depth+1)
	}
	text, _, err := condition.Unquote(value)
	if err != nil {
		l.fail(item.at(condition.OffsetOf(err)), "%v", err)
		return nil
	}
	return []string{text}
}

// tree is the macro's parsed condition, nil if it has errors, which are reported.
func (l *loader) tree(m *macro) condition.Node {
	if !m.parsed {
		m.parsed = true
		m.tree = l.parse(m.text)
	}
	return m.tree
}

func (l *loader) parse(t text) condition.Node {
	n, err := condition.Parse(t.value)
	if err != nil {
		l.failWith(conditionError(t, err))
		return nil
	}
	return n
}

// compile compiles what has been read. All lists and macros are looked at, used or not, so that
// their errors are found.
func (l *loader) compile() *Set {
	// In the order of names, so that of a cycle the same link is reported every time.
	for _, name := range slices.Sorted(maps.Keys(l.lists)) {
		l.resolve(name, 0)
	}
	c := &compilers{check: newCompiler(l, field.AllKinds)}
	for _, name := range slices.Sorted(maps.Keys(l.macros)) {
		c.check.macro(l.macros[name])
	}
	for i := range c.kinds {
		c.kinds[i] = newCompiler(l, 1<<i)
	}
	for i := range c.accesses {
		c.accesses[i] = newAccessCompiler(l, interest.Access(i))
	}
	set := &Set{files: l.files}
	var found, elsewhere slots
	for _, d := range l.rules {
		set.add(l.compileRule(d, c), &found, &elsewhere)
	}
	for i, entries := range found {
		set.candidates[i], set.elsewhere[i] = byname.New(entries), byname.New(elsewhere[i])
	}
	return set
}

// compilers are what each rule is compiled by.
type compilers struct {
	// check is of all kinds at once.
	check    *compiler
	kinds    [field.NumKinds]*compiler
	accesses [interest.NumAccesses]*compiler
}

// slots are candidates, each with the names of processes that it is for.
type slots [numSlots][]byname.Entry[candidate]

// compiledRule is a rule with its condition for each slot that it can match in, the files of whose opening it can be true, and the
// peers of outgoing connections.
type compiledRule struct {
	rule   *Rule
	bySlot [numSlots]compiled
	opens  interest.Opens
	peers  interest.Peers
	needs  field.Needs
}

func (s *Set) add(c compiledRule, found, elsewhere *slots) {
	s.rules = append(s.rules, c.rule)
	if !c.rule.Enabled {
		return
	}
	for i, condition := range c.bySlot {
		if condition.known == never {
			continue
		}
		entry := byname.Entry[candidate]{Names: condition.reachNames(), Value: candidate{c.rule, condition.predicate()}}
		found[i] = append(found[i], entry)
		if paths := condition.reach(); paths.All {
			elsewhere[i] = append(elsewhere[i], entry)
		} else {
			s.under[i] = s.under[i].Or(paths)
		}
	}
	s.kinds |= c.rule.Kinds
	s.opens, s.peers, s.needs = s.opens.Or(c.opens), s.peers.Or(c.peers), s.needs.Or(c.needs)
}

// compileRule compiles a rule for all kinds at once, which finds what is wrong with it, and then
// for each kind, where much of it is decided beforehand.
func (l *loader) compileRule(d *definition, by *compilers) compiledRule {
	r := &Rule{
		Name: d.name, Description: d.description, Priority: d.priority, Effect: d.effect, Tags: d.tags,
		Condition: strings.TrimSpace(d.condition.value), Position: d.place.position(), Window: d.window, Incident: d.incident,
		Enabled: d.enabled && d.effect != findingv1.Effect_EFFECT_DISABLE,
	}
	if d.source != syscallSource {
		r.Enabled = false
		l.warn(Warning{Position: r.Position, Rule: d.name, Msg: fmt.Sprintf("source %q is not provided; the rule is off", d.source)})
		return compiledRule{rule: r}
	}
	c := compiledRule{rule: r}
	for i := range c.bySlot {
		c.bySlot[i].known = never
	}
	trees := l.trees(d)
	all := by.check.rule(trees)
	var outputNotes []note
	r.output, outputNotes = l.compileOutput(d.output)
	c.needs.GivenPath = r.output.needsGivenPath()
	for i, kind := range by.kinds {
		// Only the first pass finds errors; after one there is no set to put the rule in.
		if len(l.errs) > 0 {
			break
		}
		if match := kind.rule(trees); match.known != never {
			r.Kinds |= 1 << i
			c.bySlot[i] = match
			c.needs = c.needs.Or(match.needs)
			if kind.kinds.Has(field.KindConnect | field.KindSend) {
				c.peers = c.peers.Or(match.reachPeers())
			}
		}
	}
	if r.Kinds.Has(field.KindFileOpen) {
		for i, access := range by.accesses {
			match := access.rule(trees)
			c.opens[i], c.bySlot[field.NumKinds+i] = match.reach(), match.within(match.reach())
		}
	}
	if len(l.errs) == 0 {
		l.report(d, r, append(all.notes, outputNotes...))
		if l.detailed {
			r.Detail = l.detail(d, trees, c)
		}
	}
	return c
}

// report turns notes into warnings of the rule, and adds those about the rule as a whole.
func (l *loader) report(d *definition, r *Rule, notes []note) {
	seen := map[note]bool{}
	lacking := false
	for _, n := range notes {
		if seen[n] || n.kinds != 0 && !r.Kinds.Has(n.kinds) {
			continue
		}
		seen[n] = true
		lacking = lacking || n.lacks != Nothing
		l.warn(Warning{Position: n.place.position(), Rule: d.name, Field: n.field, Msg: n.msg, Lacks: n.lacks})
	}
	w := Warning{Position: r.Position, Rule: d.name}
	if lacking && d.skipUnknown {
		r.Enabled = false
		w.Msg = "rule is off: it names an unknown field and says skip-if-unknown-filter"
		l.warn(w)
		return
	}
	switch {
	case !r.Enabled:
	case r.Kinds == 0:
		w.Msg = "no event that is collected can match the rule"
		l.warn(w)
	case r.Kinds == field.AllKinds && d.warnTypes:
		w.Msg = "condition does not narrow evt.type, so it is evaluated for every event"
		l.warn(w)
	}
}

// located is a tree and the text that its offsets are in.
type located struct {
	tree    condition.Node
	text    text
	negated bool
	name    string // of an exception
}

// trees are the conditions that must all be true for the rule to match: its own, and for each
// exception its opposite.
func (l *loader) trees(d *definition) []located {
	trees := []located{{tree: l.parse(d.condition), text: d.condition}}
	for _, x := range d.exceptions {
		if tree, t := l.exceptionTree(x); tree != nil {
			trees = append(trees, located{tree: tree, text: t, negated: true, name: x.name})
		}
	}
	return trees
}

// note is a warning that does not know its rule yet, since it may come from a shared macro.
type note struct {
	place place
	field string
	msg   string
	lacks Lack
	kinds field.Kinds // the events that it is about, none for whatever the rule is evaluated for
}

// maxNotes bounds what is kept of a macro that is named over and over.
const maxNotes = 1000

func appendNotes(notes, more []note) []note {
	return append(notes, more[:min(len(more), max(0, maxNotes-len(notes)))]...)
}

// quoteList is names in quotes for a message.
func quoteList(names []string) string { return `"` + strings.Join(names, `", "`) + `"` }

// textCheck is a comparison of one string with constants.
type textCheck struct {
	operand string // the field, its argument and what is done to it
	get     func(*field.Context) (string, bool)
	match   func(string) bool
}

// sameText gathers the terms of an alternative. Many rules ask for a dozen words of one command line: neighbours that look at the
// same string look it up once.
type sameText struct {
	groups []group
}

// group is terms that stand beside each other and look at the same string, or one term that does not.
type group struct {
	text    *textCheck
	matches []func(string) bool
	other   predicate
}

func (s *sameText) add(t compiled) {
	if last := len(s.groups) - 1; t.text != nil && last >= 0 && s.groups[last].text != nil && s.groups[last].text.operand == t.text.operand {
		s.groups[last].matches = append(s.groups[last].matches, t.text.match)
		return
	}
	g := group{text: t.text, other: t.match}
	if t.text != nil {
		g.matches = append(g.matches, t.text.match)
	}
	s.groups = append(s.groups, g)
}

// predicates are the terms, each true if one of those that it stands for is.
func (s *sameText) predicates() []predicate {
	out := make([]predicate, 0, len(s.groups))
	for _, g := range s.groups {
		if len(g.matches) < 2 {
			out = append(out, g.other)
			continue
		}
		get, matches := g.text.get, g.matches
		out = append(out, func(c *field.Context) bool {
			value, ok := get(c)
			if !ok {
				return false
			}
			for _, match := range matches {
				if match(value) {
					return true
				}
			}
			return false
		})
	}
	return out
}

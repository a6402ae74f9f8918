// Package rule loads rules written in Falco's language, compiles them once, and says which of them
// an event matches. Data in: YAML files and, for each event, a field.Context; data out: rules, and
// their output texts. It opens no file and keeps no state between events.
//
// # What is decided here
//
//   - A field without a value makes every comparison false, != too, as in Falco; `not x = y` is then
//     true. `exists` asks for a value.
//   - A field that is not provided, or can not hold what it is compared with, gives a Warning; the
//     comparison is as of a missing value. Its rule is loaded, or switched off if it says
//     skip-if-unknown-filter.
//   - Of several files, or several items of one name, the last definition counts, in the place of
//     the first. References are looked up when all files are read, so their order does not matter;
//     append and override change what stands above them.
//   - Bare values in a list that name a list stand for its items; quoted ones never do.
//   - proc.aname and its like are true if any ancestor satisfies the operator, != included; fd.ip,
//     fd.net and fd.port with != are true if no end equals.
//   - A rule never sees the collector's own events, Loss and Started.
package rule

import (
	"cmp"
	"errors"
	"slices"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/interest"
)

// Rule is a compiled rule. It does not change once loaded.
type Rule struct {
	Name        string
	Description string
	Priority    findingv1.Priority
	Effect      findingv1.Effect
	Tags        []string
	// Condition as written, macros and lists not expanded.
	Condition string
	Position  Position
	// Enabled is false for a rule that no event matches: switched off, of effect disable, of a
	// source that is not provided, or skipped for an unknown field.
	Enabled bool
	// Kinds are the kinds of event the condition can be true of, even if the rule is not enabled.
	Kinds field.Kinds

	output template
}

// Output is the rule's output text for the event. Control characters in values are escaped, so a
// process can not write to the reader's terminal or forge a line, and long values are cut.
func (r *Rule) Output(c *field.Context) string { return string(r.output.appendTo(nil, c)) }

// Set is the rules of some files, compiled. It does not change, so any number of goroutines may
// use it, each with its own Context.
type Set struct {
	rules  []*Rule
	byKind [field.NumKinds][]candidate
	// opens hold every file of whose opening an enabled rule can be true.
	opens interest.Opens
	// peers hold the far end of every outgoing connection of which one can be.
	peers interest.Peers
}

// candidate is a rule that can match a kind of event, with its condition compiled for that kind.
type candidate struct {
	rule  *Rule
	match predicate
}

// Load reads and compiles rule files. All that is wrong with them is in the error, each fault an
// *Error, joined in the order of the files; the Set is then nil. Warnings are in the same order.
func Load(files ...Source) (*Set, []Warning, error) {
	l := newLoader()
	for i, src := range files {
		f := newFile(src, i)
		l.order[f.name] = i
		l.read(src, f)
	}
	set := l.compile()
	slices.SortStableFunc(l.warnings, func(a, b Warning) int {
		return cmp.Or(cmp.Compare(l.order[a.Position.File], l.order[b.Position.File]), comparePositions(a.Position, b.Position))
	})
	if len(l.errs) == 0 {
		return set, l.warnings, nil
	}
	slices.SortStableFunc(l.errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.order, b.order), comparePositions(a.Position, b.Position))
	})
	errs := make([]error, len(l.errs))
	for i, err := range l.errs {
		errs[i] = err
	}
	return nil, l.warnings, errors.Join(errs...)
}

func comparePositions(a, b Position) int {
	return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
}

// Match calls yield for every enabled rule that the event matches, in the order of the files.
func (s *Set) Match(c *field.Context, yield func(*Rule)) {
	i := field.KindOf(c.Event).Index()
	if i < 0 {
		return
	}
	for _, candidate := range s.byKind[i] {
		if candidate.match(c) {
			yield(candidate.rule)
		}
	}
}

// Try calls try for every rule that Match would try on the event, with its condition, for whoever measures them.
func (s *Set) Try(c *field.Context, try func(r *Rule, match func(*field.Context) bool)) {
	i := field.KindOf(c.Event).Index()
	if i < 0 {
		return
	}
	for _, candidate := range s.byKind[i] {
		try(candidate.rule, candidate.match)
	}
}

// Rules are all rules, enabled or not, in the order of the files. The caller must not change them.
func (s *Set) Rules() []*Rule { return s.rules }

// Interest is what the set needs of the kernel.
func (s *Set) Interest() interest.Interest { return interest.New(s.Kinds(), s.opens, s.peers) }

// Kinds are the kinds of event that any enabled rule can match.
func (s *Set) Kinds() field.Kinds {
	var kinds field.Kinds
	for i, candidates := range s.byKind {
		if len(candidates) > 0 {
			kinds |= 1 << i
		}
	}
	return kinds
}

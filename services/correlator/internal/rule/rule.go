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
	"strings"
	"time"
	"unicode"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/escape"
	"github.com/palisade-sec/palisade/services/correlator/internal/byname"
	"github.com/palisade-sec/palisade/services/correlator/internal/condition"
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
	// Window says how often the condition must be true before there is a finding; the zero value is once.
	Window Window
	// Incident is the key by which findings belong together, empty if the rule has none.
	Incident string
	// Kinds are the kinds of event the condition can be true of, even if the rule is not enabled.
	Kinds field.Kinds

	// Detail is nil but from LoadDetailed.
	Detail *Detail

	output template
}

// Window is a number of matches in the same workload within a time.
type Window struct {
	Times  int
	Within time.Duration
}

// Output is the rule's output text for the event. Control characters in values are escaped, so a
// process can not write to the reader's terminal or forge a line, and long values are cut.
func (r *Rule) Output(c *field.Context) string { return string(r.output.appendTo(nil, c)) }

// Set is the rules of some files, compiled. It does not change, so any number of goroutines may
// use it, each with its own Context.
type Set struct {
	rules []*Rule
	files []FileCount
	// candidates are by slotOf the event.
	candidates [numSlots]byname.Index[candidate]
	// under are the files that some candidate of a slot is about, and elsewhere the candidates for all other files.
	under     [numSlots]interest.Paths
	elsewhere [numSlots]byname.Index[candidate]
	kinds     field.Kinds
	// opens hold every file of whose opening an enabled rule can be true.
	opens interest.Opens
	// peers hold the far end of every outgoing connection of which one can be.
	peers interest.Peers
	// needs is what enabled rules compare with besides the events that they match.
	needs field.Needs
}

// FileCount is how many items stand in a file, those that change another file's included.
type FileCount struct {
	Name                 string
	Rules, Macros, Lists int
}

// candidate is a rule that can match a kind of event, with its condition compiled for that kind.
type candidate struct {
	rule  *Rule
	match predicate
}

// Load reads and compiles rule files. All that is wrong with them is in the error, each fault an
// *Error, joined in the order of the files; the Set is then nil. Warnings are in the same order.
func Load(files ...Source) (*Set, []Warning, error) { return newLoader().load(files) }

// LoadDetailed is Load with each rule's Detail, for people's questions.
func LoadDetailed(files ...Source) (*Set, []Warning, error) {
	l := newLoader()
	l.detailed = true
	return l.load(files)
}

func (l *loader) load(files []Source) (*Set, []Warning, error) {
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
	for _, candidate := range s.candidatesOf(c) {
		if candidate.match(c) {
			yield(candidate.rule)
		}
	}
}

// candidatesOf are the rules that may match the event.
func (s *Set) candidatesOf(c *field.Context) []candidate {
	i := slotOf(c.Event)
	if i < 0 {
		return nil
	}
	name := ""
	if c.Process != nil {
		name = c.Process.Name
	}
	if open := c.Event.GetFileOpen(); open != nil && !s.under[i].Has(open.GetFile().GetPath()) {
		return s.elsewhere[i].For(name)
	}
	return s.candidates[i].For(name)
}

// numSlots is a slot for each kind of event, and one for each kind of access of an open: most rules are about one of them.
const numSlots = field.NumKinds + int(interest.NumAccesses)

// slotOf is where the candidates for an event are, -1 for an event that no rule sees.
func slotOf(e *eventv1.Event) int {
	if open := e.GetFileOpen(); open != nil {
		return field.NumKinds + int(interest.AccessOf(open.GetFlags()))
	}
	return field.KindOf(e).Index()
}

// Try calls try for every rule that Match would try on the event, with its condition, for whoever measures them.
func (s *Set) Try(c *field.Context, try func(r *Rule, match func(*field.Context) bool)) {
	for _, candidate := range s.candidatesOf(c) {
		try(candidate.rule, candidate.match)
	}
}

// Rules are all rules, enabled or not, in the order of the files. The caller must not change them.
func (s *Set) Rules() []*Rule { return s.rules }

// Files are what was loaded, in order.
func (s *Set) Files() []FileCount { return s.files }

// Interest is what the set needs of the kernel.
func (s *Set) Interest() interest.Interest {
	return interest.New(s.Kinds()|s.needs.Kinds, s.opens, s.peers).WithGivenPaths(s.needs.GivenPath)
}

// Kinds are the kinds of event that any enabled rule can match.
func (s *Set) Kinds() field.Kinds { return s.kinds }

// missing stands for a field without a value, as Falco writes it.
const missing = "<NA>"

// template is a compiled output: literal text and fields in turn.
type template []piece

// piece is a literal, or a field and what is done to its value.
type piece struct {
	literal string
	field   *field.Field
	apply   []func(string) (string, bool)
}

// needsGivenPath says whether the output shows the path of an open as the caller wrote it.
func (t template) needsGivenPath() bool {
	return slices.ContainsFunc(t, func(p piece) bool { return p.field != nil && p.field.Needs.GivenPath })
}

// compileOutput reads a rule's output. A percent sign that no field follows stands for itself, and
// so do two of them, once.
func (l *loader) compileOutput(t text) (template, []note) {
	var tpl template
	var notes []note
	var literal strings.Builder
	s := strings.TrimRight(t.value, " \t\n")
	for i := strings.IndexFunc(s, func(r rune) bool { return !unicode.IsSpace(r) }); i >= 0 && i < len(s); {
		if s[i] != '%' {
			literal.WriteByte(s[i])
			i++
			continue
		}
		operand, size, err := condition.ParseOperand(s[i+1:])
		if err != nil || size == 0 || unicode.IsSpace(rune(s[i+1])) {
			literal.WriteByte('%')
			i++
			if strings.HasPrefix(s[i:], "%") {
				i++
			}
			continue
		}
		p, n := l.outputField(t.place(i), operand)
		if n != nil {
			notes = append(notes, *n)
		}
		tpl = append(tpl, piece{literal: literal.String()}, p)
		literal.Reset()
		i += 1 + size
	}
	return append(tpl, piece{literal: literal.String()}), notes
}

// outputField compiles one field of an output. What can not be shown is a literal <NA> and a note.
func (l *loader) outputField(at place, o condition.Operand) (piece, *note) {
	na := piece{literal: missing}
	f, err := field.Lookup(o.Field, o.Arg, o.HasArg)
	switch lack := lackOf(err); {
	case lack != Nothing:
		return na, &note{place: at, field: o.Field, msg: "output: " + err.Error(), lacks: lack}
	case err != nil:
		l.fail(at, "output: %v", err)
		return na, nil
	case f.Str == nil && f.Num == nil && f.IP == nil && f.Show == nil:
		return na, &note{place: at, field: o.Field, msg: "output: " + o.Field + " has several values; give an index"}
	}
	p := piece{field: &f}
	for _, name := range o.Transforms {
		apply := stringTransforms[name]
		if apply == nil {
			return na, &note{place: at, field: o.Field, msg: "output: " + name + "(" + o.Field + ") is not provided"}
		}
		p.apply = append(p.apply, apply)
	}
	return p, nil
}

func (t template) appendTo(dst []byte, c *field.Context) []byte {
	for _, p := range t {
		if p.field == nil {
			dst = append(dst, p.literal...)
			continue
		}
		raw, ok := p.field.AppendText(nil, c)
		if !ok {
			dst = append(dst, missing...)
			continue
		}
		value := string(raw)
		for _, apply := range p.apply {
			if value, ok = apply(value); !ok {
				value = missing
				break
			}
		}
		dst = escape.Append(dst, value)
	}
	return dst
}

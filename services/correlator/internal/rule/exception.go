package rule

import (
	"strings"

	"github.com/palisade-sec/palisade/services/correlator/internal/condition"
	"go.yaml.in/yaml/v3"
)

// exception names combinations of values for which a rule does not match. With a single field each
// value stands for itself; with several, a value is a tuple with one element for each field.
type exception struct {
	name   string
	single bool
	fields []span
	comps  []span // empty for the default: in for a single field, = for each of several
	values []span
}

// exceptions reads a rule's exceptions on top of those it has. Values for a name that is there
// are added to it.
func (l *loader) exceptions(m mapping, have []exception) []exception {
	node := m.values["exceptions"]
	if node == nil || node.ShortTag() == "!!null" {
		return have
	}
	if node.Kind != yaml.SequenceNode {
		l.fail(span{m.file, node}.place(), "exceptions must be a sequence")
		return have
	}
	seen := map[string]bool{}
	for _, entry := range node.Content {
		e, ok := l.mapping(m.file, entry, "exception")
		if !ok || !l.only(e, "exception", "name", "fields", "comps", "values") {
			continue
		}
		name, ok := l.required(e, "exception", "name")
		if !ok {
			continue
		}
		if seen[name.node.Value] {
			l.fail(name.place(), "exception %q is here twice", name.node.Value)
			continue
		}
		seen[name.node.Value] = true
		have = l.exception(e, name.node.Value, have)
	}
	return have
}

func (l *loader) exception(e mapping, name string, have []exception) []exception {
	values := l.exceptionValues(e)
	for i := range have {
		if have[i].name != name {
			continue
		}
		for _, key := range []string{"fields", "comps"} {
			if e.has(key) {
				l.fail(e.keyPlace(key), "exception %q is defined above, only values can be added to it", name)
				return have
			}
		}
		have[i].values = append(have[i].values, values...)
		return have
	}
	x := exception{name: name, values: values}
	if !e.has("fields") {
		l.fail(e.place(), "exception %q has no fields", name)
		return have
	}
	x.fields, x.single = l.oneOrMore(e, "fields")
	if e.has("comps") {
		var single bool
		x.comps, single = l.oneOrMore(e, "comps")
		if single != x.single || len(x.comps) != len(x.fields) {
			l.fail(e.keyPlace("comps"), "exception %q needs as many comps as fields", name)
			return have
		}
	}
	if len(x.fields) == 0 {
		l.fail(e.keyPlace("fields"), "exception %q has no fields", name)
		return have
	}
	return append(have, x)
}

// oneOrMore reads a scalar or a sequence of them.
func (l *loader) oneOrMore(e mapping, key string) (items []span, single bool) {
	if e.values[key].Kind == yaml.ScalarNode {
		s, ok := l.scalar(e, key)
		if !ok {
			return nil, true
		}
		return []span{s}, true
	}
	return l.scalars(e, key), false
}

func (l *loader) exceptionValues(e mapping) []span {
	node := e.values["values"]
	if node == nil || node.ShortTag() == "!!null" {
		return nil
	}
	if node.Kind != yaml.SequenceNode {
		l.fail(span{e.file, node}.place(), "values must be a sequence")
		return nil
	}
	values := make([]span, 0, len(node.Content))
	for _, v := range node.Content {
		values = append(values, span{e.file, l.deref(e.file, v)})
	}
	return values
}

// exceptionTree turns an exception into the condition it stands for, and the text its offsets are
// in. The tree is nil if there are no values, and thus nothing is excepted.
func (l *loader) exceptionTree(x exception) (condition.Node, text) {
	b := exceptionBuilder{loader: l, good: true}
	var any []condition.Node
	if x.single {
		any = b.singles(x)
	} else {
		for _, v := range x.values {
			if n := b.tuple(x, v); n != nil {
				any = append(any, n)
			}
		}
	}
	if !b.good {
		return nil, b.text
	}
	return joined(any, func(n []condition.Node) condition.Node { return &condition.Or{Terms: n} }), b.text
}

// joined makes one node of several; nil of none.
func joined(terms []condition.Node, join func([]condition.Node) condition.Node) condition.Node {
	switch len(terms) {
	case 0:
		return nil
	case 1:
		return terms[0]
	}
	return join(terms)
}

// exceptionBuilder collects the scalars of one exception in a text, which gets parts only: nobody
// parses it as a whole.
type exceptionBuilder struct {
	*loader
	text   text
	length int
	good   bool
}

// add puts a scalar into the text and says where it begins there.
func (b *exceptionBuilder) add(s span) int {
	start := b.length
	b.text.parts = append(b.text.parts, part{start: start, span: s})
	b.length += len(s.node.Value) + 1
	return start
}

func (b *exceptionBuilder) bad(s span, format string, args ...any) {
	b.fail(s.place(), format, args...)
	b.good = false
}

// singles is the form with one field: each value by itself, or all of them in one list.
func (b *exceptionBuilder) singles(x exception) []condition.Node {
	op := b.op(x, 0, condition.In)
	if len(x.values) == 0 {
		return nil
	}
	check := condition.Check{Left: b.operand(x.fields[0]), Op: op}
	check.OpOffset = check.Left.Offset
	var checks []condition.Node
	for _, v := range x.values {
		values := b.constants(v, op)
		if op.List() {
			check.Values = append(check.Values, values...)
			continue
		}
		c := check
		c.Values = values
		checks = append(checks, &c)
	}
	if op.List() {
		return []condition.Node{&check}
	}
	return checks
}

// tuple is one value of the form with several fields.
func (b *exceptionBuilder) tuple(x exception, v span) condition.Node {
	if v.node.Kind != yaml.SequenceNode || len(v.node.Content) != len(x.fields) {
		b.bad(v, "exception %q needs %d values here, one for each field", x.name, len(x.fields))
		return nil
	}
	var all []condition.Node
	for i, element := range v.node.Content {
		op := b.op(x, i, condition.Equal)
		c := &condition.Check{Left: b.operand(x.fields[i]), Op: op}
		c.OpOffset = c.Left.Offset
		c.Values = b.constants(span{v.file, b.deref(v.file, element)}, op)
		all = append(all, c)
	}
	return joined(all, func(n []condition.Node) condition.Node { return &condition.And{Terms: n} })
}

// op reads the i-th comparison.
func (b *exceptionBuilder) op(x exception, i int, byDefault condition.Op) condition.Op {
	if len(x.comps) == 0 {
		return byDefault
	}
	s := x.comps[i]
	op, ok := condition.ParseOp(s.node.Value)
	if !ok || op == condition.Exists {
		b.bad(s, "unknown comparison %q", s.node.Value)
	}
	return op
}

func (b *exceptionBuilder) operand(s span) condition.Operand {
	base := b.add(s)
	o, end, err := condition.ParseOperand(s.node.Value)
	if err != nil {
		b.bad(s, "%v", err)
	} else if end != len(s.node.Value) {
		b.bad(s, "%q is no field", s.node.Value)
	}
	o.Offset += base
	return o
}

// constants reads what a field is compared with: a scalar, and for a list operator also a sequence
// of them or the text "(a, b)".
func (b *exceptionBuilder) constants(s span, op condition.Op) []condition.Value {
	switch {
	case s.node.Kind == yaml.SequenceNode && op.List():
		var values []condition.Value
		for _, item := range s.node.Content {
			values = append(values, b.constant(span{s.file, b.deref(s.file, item)})...)
		}
		return values
	case s.node.Kind == yaml.ScalarNode && op.List() && strings.HasPrefix(s.node.Value, "("):
		base := b.add(s)
		values, err := condition.ParseList(s.node.Value)
		if err != nil {
			b.bad(s, "%v", err)
		}
		for i := range values {
			values[i].Offset += base
		}
		return values
	}
	return b.constant(s)
}

func (b *exceptionBuilder) constant(s span) []condition.Value {
	if s.node.Kind != yaml.ScalarNode || s.node.ShortTag() == "!!null" {
		b.bad(s, "value of an exception must be a string")
		return nil
	}
	value, quoted, err := condition.Unquote(s.node.Value)
	if err != nil {
		b.bad(s, "%v", err)
	}
	return []condition.Value{{Offset: b.add(s), Text: value, Quoted: quoted}}
}

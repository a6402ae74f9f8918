package condition

import (
	"errors"
	"slices"
	"strings"
)

// maxDepth limits nesting, so that a condition can not exhaust the stack.
const maxDepth = 100

// parser builds the tree by recursive descent.
type parser struct {
	scanner
	depth int
}

// Parse reads a condition. The error is an *Error.
func Parse(text string) (Node, error) {
	p := parser{scanner: scanner{text: text}}
	p.skipBlanks()
	if p.pos == len(text) {
		return nil, errorf(0, "condition is empty")
	}
	n, err := p.or()
	if err != nil {
		return nil, err
	}
	p.skipBlanks()
	if p.pos < len(text) {
		return nil, errorf(p.pos, "expected and, or, or the end, found %s", p.found())
	}
	return n, nil
}

// ParseOperand reads a field or transformer(field) at the start of text, as an output template
// holds one behind a percent sign, and says where it ends. The error is an *Error.
func ParseOperand(text string) (Operand, int, error) {
	p := parser{scanner: scanner{text: text}}
	operand, err := p.operand()
	if err != nil {
		return Operand{}, 0, err
	}
	return *operand, p.pos, nil
}

// IsName says whether text can name a macro.
func IsName(text string) bool {
	s := scanner{text: text}
	return text != "" && s.word(0) == text && !isReserved(text)
}

// IsListName says whether text can name a list: any bare value.
func IsListName(text string) bool {
	return text != "" && !strings.ContainsAny(text, bareStops)
}

func isReserved(word string) bool { return word == "and" || word == "or" || word == "not" }

// found describes what stands at the position, for a message.
func (p *parser) found() string {
	if p.pos >= len(p.text) {
		return "the end"
	}
	rest := p.text[p.pos:]
	if end := strings.IndexAny(rest[1:], blanks+"()"); end >= 0 {
		rest = rest[:end+1]
	}
	if len(rest) > 32 {
		rest = rest[:32]
	}
	rest = strings.ToValidUTF8(rest, "\ufffd")
	if rest[0] == '"' {
		return rest
	}
	return "\"" + rest + "\""
}

// enter counts one level of nesting; leave it with p.depth--.
func (p *parser) enter() error {
	p.depth++
	if p.depth > maxDepth {
		return errorf(p.pos, "nested more than %d deep", maxDepth)
	}
	return nil
}

func (p *parser) or() (Node, error) {
	terms, err := p.terms("or", p.and)
	if err != nil || len(terms) == 1 {
		return first(terms), err
	}
	return &Or{Terms: terms}, nil
}

func (p *parser) and() (Node, error) {
	terms, err := p.terms("and", p.not)
	if err != nil || len(terms) == 1 {
		return first(terms), err
	}
	return &And{Terms: terms}, nil
}

func first(terms []Node) Node {
	if len(terms) == 0 {
		return nil
	}
	return terms[0]
}

// terms reads one or more terms with the word between them.
func (p *parser) terms(word string, term func() (Node, error)) ([]Node, error) {
	var terms []Node
	for {
		n, err := term()
		if err != nil {
			return nil, err
		}
		terms = append(terms, n)
		if !p.keyword(word) {
			return terms, nil
		}
	}
}

func (p *parser) not() (Node, error) {
	negated := false
	for p.keyword("not") {
		negated = !negated
	}
	n, err := p.primary()
	if err != nil || !negated {
		return n, err
	}
	return &Not{Term: n}, nil
}

func (p *parser) primary() (Node, error) {
	if p.take('(') {
		if err := p.enter(); err != nil {
			return nil, err
		}
		n, err := p.or()
		if err != nil {
			return nil, err
		}
		p.depth--
		if !p.take(')') {
			return nil, errorf(p.pos, "expected ), found %s", p.found())
		}
		return n, nil
	}
	word := p.dotted()
	after := p.pos + len(word)
	call := after < len(p.text) && p.text[after] == '('
	switch {
	case word == "" || isReserved(word):
		return nil, errorf(p.pos, "expected a field, a macro or (, found %s", p.found())
	case call || strings.Contains(word, "."):
		return p.check()
	}
	m := &Macro{Offset: p.pos, Name: word}
	p.pos = after
	return m, nil
}

func (p *parser) check() (Node, error) {
	left, err := p.operand()
	if err != nil {
		return nil, err
	}
	p.skipBlanks()
	c := &Check{Left: *left, OpOffset: p.pos}
	op, ok := p.operator()
	if !ok {
		return nil, errorf(p.pos, "expected an operator, found %s", p.found())
	}
	c.Op = op
	if op == Exists {
		return c, nil
	}
	p.skipBlanks()
	if word := p.word(p.pos); word != "" && p.pos+len(word) < len(p.text) && p.text[p.pos+len(word)] == '(' {
		c.Right, err = p.operand()
		return c, err
	}
	if op.List() && p.peek() == '(' {
		c.Values, err = p.list()
		return c, err
	}
	v, err := p.value()
	if err != nil {
		return nil, err
	}
	if op.List() && v.Quoted {
		return nil, errorf(v.Offset, "expected ( or the name of a list, found a string")
	}
	c.Values, c.Named = []Value{v}, op.List()
	return c, nil
}

// operand reads field, field[arg] or transformer(operand).
func (p *parser) operand() (*Operand, error) {
	p.skipBlanks()
	start, name := p.pos, p.dotted()
	p.pos += len(name)
	if p.peek() == '(' && name != "" {
		return p.transformed(start, name)
	}
	if !strings.Contains(name, ".") {
		p.pos = start
		return nil, errorf(start, "expected a field, found %s", p.found())
	}
	o := &Operand{Offset: start, Field: name}
	if p.peek() != '[' {
		return o, nil
	}
	p.pos++
	argAt := p.pos
	if c := p.peek(); c == '"' || c == '\'' {
		arg, err := p.quoted()
		if err != nil {
			return nil, err
		}
		o.Arg = arg
	} else if o.Arg = p.until(bareArgStop); o.Arg == "" {
		return nil, errorf(argAt, "expected an argument, found %s", p.found())
	}
	o.HasArg = true
	if p.peek() != ']' {
		return nil, errorf(p.pos, "expected ], found %s", p.found())
	}
	p.pos++
	return o, nil
}

// transformed reads the rest of a transformer, from its parenthesis on. val only marks a field to
// the right of an operator, so it adds nothing.
func (p *parser) transformed(start int, name string) (*Operand, error) {
	if name != "val" && !slices.Contains(transformers[:], name) {
		return nil, errorf(start, "unknown transformer %q", name)
	}
	if err := p.enter(); err != nil {
		return nil, err
	}
	p.pos++
	o, err := p.operand()
	if err != nil {
		return nil, err
	}
	p.depth--
	if !p.take(')') {
		return nil, errorf(p.pos, "expected ) to end %s, found %s", name, p.found())
	}
	if name != "val" {
		o.Transforms = append(o.Transforms, name)
	}
	o.Offset = start
	return o, nil
}

// ParseList reads (a, b, ...) by itself, as in an exception's values. The error is an *Error.
func ParseList(text string) ([]Value, error) {
	p := parser{scanner: scanner{text: text}}
	values, err := p.list()
	if err != nil {
		return nil, err
	}
	p.skipBlanks()
	if p.pos < len(text) {
		return nil, errorf(p.pos, "expected the end, found %s", p.found())
	}
	return values, nil
}

// list reads (a, b, ...).
func (p *parser) list() ([]Value, error) {
	if !p.take('(') {
		return nil, errorf(p.pos, "expected (, found %s", p.found())
	}
	values := []Value{}
	if p.take(')') {
		return values, nil
	}
	for {
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		values = append(values, v)
		if p.take(',') {
			continue
		}
		if !p.take(')') {
			return nil, errorf(p.pos, "expected , or ) in a list, found %s", p.found())
		}
		return values, nil
	}
}

// value reads one constant.
func (p *parser) value() (Value, error) {
	p.skipBlanks()
	v := Value{Offset: p.pos}
	if c := p.peek(); c == '"' || c == '\'' {
		text, err := p.quoted()
		if err != nil {
			return Value{}, err
		}
		v.Text, v.Quoted = text, true
		return v, nil
	}
	if v.Text = p.until(bareStops); v.Text == "" {
		return Value{}, errorf(p.pos, "expected a value, found %s", p.found())
	}
	return v, nil
}

// OffsetOf is the byte of the text that err is about, zero if it says nothing of one.
func OffsetOf(err error) int {
	if bad, ok := errors.AsType[*Error](err); ok {
		return bad.Offset
	}
	return 0
}

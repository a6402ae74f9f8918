package rule

import (
	"cmp"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/palisade-sec/palisade/internal/document"
	"github.com/palisade-sec/palisade/services/correlator/internal/condition"
)

// Source is one rule file's content, and its name for messages.
type Source struct {
	Name string
	Data []byte
}

// Position is a place in a rule file.
type Position = document.Position

// Error is a fault in a rule file.
type Error struct {
	Position Position
	Msg      string
	// Text is the line of the file.
	Text string

	order int // of the file among the sources
}

// Error is the place, the fault, and the line with a caret below the place.
func (e *Error) Error() string { return document.Fault(e.Position, e.Msg, e.Text) }

// Warning is something a rule asks for that it will not get. The rule is loaded all the same.
type Warning struct {
	Position Position
	// Rule is empty if the warning is about none.
	Rule string
	// Field is the field's name, empty if the warning is about none.
	Field string
	Msg   string
	// Lacks says what the Field lacks, Nothing for other warnings.
	Lacks Lack
}

// Lack is why a field has no value in any event.
type Lack uint8

// The kinds of lack.
const (
	Nothing Lack = iota
	// UnknownField is a name that we do not know.
	UnknownField
	// FieldWithoutSource is Falco's, but nothing tells us its value yet.
	FieldWithoutSource
)

// String is the warning in one line.
func (w Warning) String() string {
	if w.Rule == "" {
		return fmt.Sprintf("%s: %s", w.Position, w.Msg)
	}
	return fmt.Sprintf("%s: rule %q: %s", w.Position, w.Rule, w.Msg)
}

// file is a source under load.
type file struct {
	name  string
	lines []string
	order int
}

func newFile(src Source, order int) *file {
	return &file{name: src.Name, lines: document.SplitLines(string(src.Data)), order: order}
}

// line is a line's text without its end, empty if there is no such line.
func (f *file) line(n int) string {
	if n < 1 || n > len(f.lines) {
		return ""
	}
	return f.lines[n-1]
}

// place is somewhere in a file.
type place struct {
	file         *file
	line, column int
}

func (p place) position() Position {
	return Position{File: p.file.name, Line: p.line, Column: p.column}
}

// span is a scalar of a file.
type span struct {
	file *file
	node *yaml.Node
}

func (s span) place() place {
	return place{s.file, max(s.node.Line, 1), max(s.node.Column, 1)}
}

// text is a string put together from scalars, which remembers where each of them stands.
type text struct {
	value string
	parts []part
}

type part struct {
	start int
	span  span
}

func newText(s span) text { return text{}.with(s) }

// with is the text with one more scalar, behind a blank.
func (t text) with(s span) text {
	value := t.value
	if value != "" {
		value += " "
	}
	parts := append(slices.Clip(t.parts), part{start: len(value), span: s})
	return text{value: value + s.node.Value, parts: parts}
}

// place is where the byte of the text stands.
func (t text) place(offset int) place {
	i, _ := slices.BinarySearchFunc(t.parts, offset+1, func(p part, n int) int { return cmp.Compare(p.start, n) })
	p := t.parts[max(i-1, 0)]
	return p.span.at(offset - p.start)
}

// at is where a byte of the scalar's value stands.
func (s span) at(offset int) place {
	line, column := document.At(s.file.lines, s.node, offset)
	return place{s.file, line, column}
}

// conditionError puts an error of package condition at its place in the text.
func conditionError(t text, err error) *Error {
	return errorAt(t.place(condition.OffsetOf(err)), "%v", err)
}

func errorAt(p place, format string, args ...any) *Error {
	return &Error{Position: p.position(), Msg: fmt.Sprintf(format, args...), Text: p.file.line(p.line), order: p.file.order}
}

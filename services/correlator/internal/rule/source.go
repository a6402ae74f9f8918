package rule

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/palisade-sec/palisade/services/correlator/internal/condition"
)

// Source is one rule file's content, and its name for messages.
type Source struct {
	Name string
	Data []byte
}

// Position is a place in a rule file. Line and Column count from 1, Column in characters.
type Position struct {
	File         string
	Line, Column int
}

// String is file:line:column.
func (p Position) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// Error is a fault in a rule file.
type Error struct {
	Position Position
	Msg      string
	// Text is the line of the file.
	Text string

	order int // of the file among the sources
}

// Error is the place, the fault, and the line with a caret below the place.
func (e *Error) Error() string {
	s := e.Position.String() + ": " + e.Msg
	if strings.TrimSpace(e.Text) == "" {
		return s
	}
	// The caret must stand under its column, so a tab above it needs a tab below.
	pad := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, cutRunes(e.Text, e.Position.Column-1))
	return s + "\n    " + e.Text + "\n    " + pad + "^"
}

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
	return &file{name: src.Name, lines: splitLines(string(src.Data)), order: order}
}

// splitLines splits where YAML ends a line, so that its line numbers hold: besides \n and \r\n at a
// single \r and at the line ends of Unicode.
func splitLines(s string) []string {
	var lines []string
	for {
		end := strings.IndexAny(s, "\n\r\u0085\u2028\u2029")
		if end < 0 {
			return append(lines, s)
		}
		lines = append(lines, s[:end])
		_, size := utf8.DecodeRuneInString(s[end:])
		if strings.HasPrefix(s[end:], "\r\n") {
			size = 2
		}
		s = s[end+size:]
	}
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

// at is where a byte of the scalar's value stands. YAML folds lines and undoes escapes, so the
// value is laid beside the source: all but blanks must agree. Where they do not, the answer is the
// start of the scalar.
func (s span) at(offset int) place {
	start := s.place()
	w := walker{lines: s.file.lines, line: start.line - 1, style: s.node.Style}
	w.byte = len(cutRunes(s.file.line(start.line), start.column-1))
	switch {
	case w.style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		w.line, w.byte = w.line+1, 0
	case w.style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		w.byte++
	}
	value := s.node.Value
	for i := 0; i < min(offset, len(value)); {
		if isBlank(value[i]) {
			i++
			continue
		}
		n, ok := w.step(value[i:])
		if !ok {
			return start
		}
		i += n
	}
	if offset < len(value) {
		w.skipBlanks()
	}
	if w.line >= len(w.lines) {
		return start
	}
	return place{s.file, w.line + 1, utf8.RuneCountInString(w.lines[w.line][:min(w.byte, len(w.lines[w.line]))]) + 1}
}

func isBlank(b byte) bool { return b == ' ' || b == '\t' || b == '\n' || b == '\r' }

// cutRunes is the first n characters of s.
func cutRunes(s string, n int) string {
	for i := range s {
		if n <= 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// walker goes through the source of one scalar.
type walker struct {
	lines      []string
	line, byte int
	style      yaml.Style
}

func (w *walker) rest() string {
	if w.line >= len(w.lines) {
		return ""
	}
	// A file in UTF-16 has other columns than its bytes; the walk then ends at once.
	return w.lines[w.line][min(w.byte, len(w.lines[w.line])):]
}

// skipBlanks goes over blanks, ends of lines, and escapes that stand for blanks.
func (w *walker) skipBlanks() {
	for w.line < len(w.lines) {
		rest := w.rest()
		switch {
		case rest == "":
			w.line, w.byte = w.line+1, 0
		case isBlank(rest[0]):
			w.byte++
		case w.escape(rest) && (len(rest) == 1 || strings.IndexByte("ntr \t\r", rest[1]) >= 0):
			w.byte += min(2, len(rest))
		default:
			return
		}
	}
}

func (w *walker) escape(rest string) bool {
	return w.style&yaml.DoubleQuotedStyle != 0 && rest[0] == '\\'
}

// step goes over what stands for the first character of value, and says how many bytes of value
// that is.
func (w *walker) step(value string) (int, bool) {
	w.skipBlanks()
	rest := w.rest()
	switch {
	case rest == "":
		return 0, false
	case w.escape(rest):
		length := 2
		if i := strings.IndexByte("xuU", rest[1]); i >= 0 {
			length += 2 << i
		}
		w.byte += min(length, len(rest))
		_, n := utf8.DecodeRuneInString(value)
		return n, true
	case rest[0] != value[0]:
		return 0, false
	case w.style&yaml.SingleQuotedStyle != 0 && strings.HasPrefix(rest, "''"):
		w.byte++
	}
	w.byte++
	return 1, true
}

// conditionError puts an error of package condition at its place in the text.
func conditionError(t text, err error) *Error {
	return errorAt(t.place(condition.OffsetOf(err)), "%v", err)
}

func errorAt(p place, format string, args ...any) *Error {
	return &Error{Position: p.position(), Msg: fmt.Sprintf(format, args...), Text: p.file.line(p.line), order: p.file.order}
}

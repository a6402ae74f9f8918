package document

import (
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// At is where a byte of a scalar's value stands in the file of these lines. YAML folds lines and undoes escapes, so the
// value is laid beside the source: all but blanks must agree. Where they do not, the answer is the
// start of the scalar.
func At(lines []string, scalar *yaml.Node, offset int) (line, column int) {
	line, column = max(scalar.Line, 1), max(scalar.Column, 1)
	w := walker{lines: lines, line: line - 1, style: scalar.Style}
	w.byte = len(cutRunes(lineAt(lines, line), column-1))
	switch {
	case w.style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		w.line, w.byte = w.line+1, 0
	case w.style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		w.byte++
	}
	value := scalar.Value
	for i := 0; i < min(offset, len(value)); {
		if isBlank(value[i]) {
			i++
			continue
		}
		n, ok := w.step(value[i:])
		if !ok {
			return line, column
		}
		i += n
	}
	if offset < len(value) {
		w.skipBlanks()
	}
	if w.line >= len(w.lines) {
		return line, column
	}
	return w.line + 1, utf8.RuneCountInString(w.lines[w.line][:min(w.byte, len(w.lines[w.line]))]) + 1
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

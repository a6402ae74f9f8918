package document

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Position is a place in a file. Line and Column count from 1, Column in characters.
type Position struct {
	File         string
	Line, Column int
}

// String is file:line:column.
func (p Position) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// Fault is the text of an error in a file: the place, the message, and the line with a caret below the place.
func Fault(p Position, msg, line string) string {
	s := p.String() + ": " + msg
	if strings.TrimSpace(line) == "" {
		return s
	}
	// The caret must stand under its column, so a tab above it needs a tab below.
	pad := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, cutRunes(line, p.Column-1))
	return s + "\n    " + line + "\n    " + pad + "^"
}

// SplitLines splits where YAML ends a line, so that its line numbers hold: besides \n and \r\n at a
// single \r and at the line ends of Unicode.
func SplitLines(s string) []string {
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

// SyntaxError takes the place out of the YAML library's message. It gives the line only, if that,
// so the column is where the line's text begins.
func SyntaxError(lines []string, err error) (line, column int, msg string) {
	msg = strings.TrimPrefix(err.Error(), "yaml: ")
	line = 1
	var told int
	if n, _ := fmt.Sscanf(msg, "line %d:", &told); n == 1 {
		_, msg, _ = strings.Cut(msg, ": ")
		line = min(max(told, 1), max(len(lines), 1))
	} else if _, name, ok := strings.Cut(msg, "unknown anchor '"); ok {
		name, _, _ = strings.Cut(name, "'")
		line = 1 + max(0, slices.IndexFunc(lines, func(s string) bool { return strings.Contains(s, "*"+name) }))
	}
	text := lineAt(lines, line)
	return line, 1 + len(text) - len(strings.TrimLeft(text, " \t")), msg
}

// lineAt is a line's text without its end, empty if there is no such line.
func lineAt(lines []string, n int) string {
	if n < 1 || n > len(lines) {
		return ""
	}
	return lines[n-1]
}

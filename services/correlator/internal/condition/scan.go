package condition

import "strings"

// scanner takes tokens off the text. What a token may be depends on where it stands, so the
// parser asks for the one it can use.
type scanner struct {
	text string
	pos  int
}

// Characters with a meaning of their own.
const (
	blanks      = " \t\n\r\b"
	bareStops   = blanks + "(),=\"'"
	bareArgStop = blanks + "[]\"'"
)

func (s *scanner) skipBlanks() {
	for s.pos < len(s.text) && strings.IndexByte(blanks, s.text[s.pos]) >= 0 {
		s.pos++
	}
}

// peek is the next byte, zero at the end.
func (s *scanner) peek() byte {
	if s.pos >= len(s.text) {
		return 0
	}
	return s.text[s.pos]
}

// take consumes the byte if it is next after blanks.
func (s *scanner) take(b byte) bool {
	s.skipBlanks()
	if s.pos < len(s.text) && s.text[s.pos] == b {
		s.pos++
		return true
	}
	return false
}

func isLetter(b byte) bool { return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' }

func isWordByte(b byte) bool { return isLetter(b) || b >= '0' && b <= '9' || b == '_' }

// word is the identifier that begins at from, empty if none does.
func (s *scanner) word(from int) string {
	end := from
	for end < len(s.text) && isWordByte(s.text[end]) && (end > from || isLetter(s.text[end])) {
		end++
	}
	return s.text[from:end]
}

// dotted is the longest run of identifiers joined by dots that begins at the position. A dot that
// no identifier follows is left.
func (s *scanner) dotted() string {
	end := s.pos + len(s.word(s.pos))
	for end > s.pos && end < len(s.text) && s.text[end] == '.' {
		next := s.word(end + 1)
		if next == "" {
			break
		}
		end += 1 + len(next)
	}
	return s.text[s.pos:end]
}

// keyword consumes the word if it is next after blanks and ends there.
func (s *scanner) keyword(word string) bool {
	s.skipBlanks()
	if s.dotted() != word {
		return false
	}
	s.pos += len(word)
	return true
}

// operator consumes an operator, if one is next after blanks.
func (s *scanner) operator() (Op, bool) {
	s.skipBlanks()
	rest := s.text[s.pos:]
	for _, o := range symbols {
		if strings.HasPrefix(rest, o.text) {
			s.pos += len(o.text)
			return o.op, true
		}
	}
	word := s.word(s.pos)
	for _, o := range words {
		if word == o.text {
			s.pos += len(word)
			return o.op, true
		}
	}
	return 0, false
}

// until is the run of bytes up to one of stops, consumed.
func (s *scanner) until(stops string) string {
	rest := s.text[s.pos:]
	if end := strings.IndexAny(rest, stops); end >= 0 {
		rest = rest[:end]
	}
	s.pos += len(rest)
	return rest
}

// quoted consumes a quoted string that begins at the position.
func (s *scanner) quoted() (string, *Error) {
	start, quote := s.pos, s.text[s.pos]
	s.pos++
	var b strings.Builder
	for s.pos < len(s.text) {
		c := s.text[s.pos]
		switch {
		case c == quote:
			s.pos++
			return b.String(), nil
		case c == '\\' && s.pos+1 < len(s.text):
			decoded, ok := unescape(s.text[s.pos+1])
			if !ok {
				return "", errorf(s.pos, "unknown escape \\%c", rune(s.text[s.pos+1]))
			}
			b.WriteByte(decoded)
			s.pos++
		default:
			b.WriteByte(c)
		}
		s.pos++
	}
	return "", errorf(start, "string has no closing %c", quote)
}

// unescape is the byte that stands behind a backslash.
func unescape(c byte) (byte, bool) {
	switch c {
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	case ' ': // Falco reads it so, for old rules
		return '\\', true
	case '\\', '/', '"', '\'':
		return c, true
	}
	return 0, false
}

// Unquote reads a list's item: one that is a quoted string as a whole stands for what is inside
// the quotes. Falco pastes items into conditions, hence items like '"with blank"'.
func Unquote(item string) (text string, quoted bool, err error) {
	if item == "" || item[0] != '"' && item[0] != '\'' {
		return item, false, nil
	}
	s := scanner{text: item}
	text, bad := s.quoted()
	if bad != nil {
		return "", false, bad
	}
	if s.pos != len(item) {
		return "", false, errorf(s.pos, "text after the closing quote")
	}
	return text, true, nil
}

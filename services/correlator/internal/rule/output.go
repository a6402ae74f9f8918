package rule

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/palisade-sec/palisade/services/correlator/internal/condition"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

const (
	// maxValue is how many bytes of one value an output shows.
	maxValue = 4096
	// cutMark stands where a value was cut.
	cutMark = "[cut]"
	// missing stands for a field without a value, as Falco writes it.
	missing = "<NA>"
)

// template is a compiled output: literal text and fields in turn.
type template []piece

// piece is a literal, or a field and what is done to its value.
type piece struct {
	literal string
	field   *field.Field
	apply   []func(string) string
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
	switch {
	case errors.Is(err, field.ErrUnknown):
		return na, &note{place: at, field: o.Field, msg: "output: " + err.Error()}
	case err != nil:
		l.fail(at, "output: %v", err)
		return na, nil
	case f.Str == nil && f.Num == nil && f.IP == nil:
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
			value = apply(value)
		}
		dst = appendEscaped(dst, value)
	}
	return dst
}

// appendEscaped appends at most maxValue bytes of the value. What could steer a terminal, start a
// line, or turn the direction of writing becomes \xNN, or \u{NNNN} above one byte; so does what is
// not UTF-8.
func appendEscaped(dst []byte, value string) []byte {
	cut := len(value) > maxValue
	if cut {
		value = value[:maxValue]
		for n := 1; n < utf8.UTFMax && n <= len(value); n++ { // do not cut through a character
			if tail := value[len(value)-n]; utf8.RuneStart(tail) {
				if !utf8.FullRuneInString(value[len(value)-n:]) {
					value = value[:len(value)-n]
				}
				break
			}
		}
	}
	for i := 0; i < len(value); {
		r, size := utf8.DecodeRuneInString(value[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = appendHex(append(dst, `\x`...), uint32(value[i]), 2)
		case r == ' ' || unicode.IsGraphic(r) && !unicode.IsSpace(r):
			dst = append(dst, value[i:i+size]...)
		case r <= 0xff:
			dst = appendHex(append(dst, `\x`...), uint32(r), 2) //nolint:gosec // a decoded rune is not negative
		default:
			dst = appendHex(append(dst, `\u{`...), uint32(r), 4) //nolint:gosec // a decoded rune is not negative
			dst = append(dst, '}')
		}
		i += size
	}
	if cut {
		dst = append(dst, cutMark...)
	}
	return dst
}

// appendHex appends at least the given number of hex digits.
func appendHex(dst []byte, n uint32, digits int) []byte {
	const hex = "0123456789abcdef"
	for n>>(4*digits) != 0 {
		digits++
	}
	for digits--; digits >= 0; digits-- {
		dst = append(dst, hex[n>>(4*digits)&0xf])
	}
	return dst
}

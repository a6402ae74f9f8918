// Package escape makes text of what a watched process chose safe to show: it cannot steer a terminal, begin a line of its own or
// turn the direction of writing. Data in: any bytes; data out: printable UTF-8.
package escape

import (
	"unicode"
	"unicode/utf8"
)

const (
	// maxValue is how many bytes of one value are shown.
	maxValue = 4096
	// cutMark stands where a value was cut.
	cutMark = "[cut]"
)

// Append appends at most maxValue bytes of the value. What could steer a terminal, start a
// line, or turn the direction of writing becomes \xNN, or \u{NNNN} above one byte; so does what is
// not UTF-8.
func Append(dst []byte, value string) []byte {
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

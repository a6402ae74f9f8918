package model

import "strings"

// fold appends text to buffer with its random-looking runs of letters and digits as a star: /tmp/build-8f3ab2c91d/x becomes
// /tmp/build-*/x. So a directory or a domain whose name is made up each time is one fact, and is learned once. Text without
// such a run comes out as it is.
func fold(buffer []byte, text string, lower bool) []byte {
	for begin := 0; begin < len(text); {
		end := begin
		for end < len(text) && isAlnum(text[end]) {
			end++
		}
		if end == begin {
			buffer = append(buffer, text[begin])
			begin++
			continue
		}
		run := text[begin:end]
		switch {
		case random(run, alone(text, begin, end)):
			if len(buffer) == 0 || buffer[len(buffer)-1] != '*' {
				buffer = append(buffer, '*')
			}
		case lower:
			for i := range len(run) {
				buffer = append(buffer, lowered(run[i]))
			}
		default:
			buffer = append(buffer, run...)
		}
		begin = end
	}
	return buffer
}

// alone says whether a run is a whole component of a path or a whole label of a domain.
func alone(text string, begin, end int) bool {
	return (begin == 0 || text[begin-1] == '/' || text[begin-1] == '.') && (end == len(text) || text[end] == '/' || text[end] == '.')
}

// random says whether a run looks made up: a number, a piece of hexadecimal, or letters and digits that alternate.
func random(run string, whole bool) bool {
	var digits, hex, turns int
	for i := range len(run) {
		class := classOf(run[i])
		if class == digit {
			digits++
		}
		if class == digit || lowered(run[i]) >= 'a' && lowered(run[i]) <= 'f' {
			hex++
		}
		if i > 0 && class != classOf(run[i-1]) {
			turns++
		}
	}
	switch {
	case digits == len(run):
		return whole || len(run) >= 4
	case hex == len(run) && len(run) >= 8 && digits >= 2:
		return true
	case len(run) >= 5 && digits > 0 && turns >= 3:
		return true
	}
	return len(run) >= 6 && turns >= 5
}

type class uint8

const (
	digit class = iota
	lowerCase
	upperCase
)

func classOf(b byte) class {
	switch {
	case b >= '0' && b <= '9':
		return digit
	case b >= 'a' && b <= 'z':
		return lowerCase
	}
	return upperCase
}

func isAlnum(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}

func lowered(b byte) byte {
	if b >= 'A' && b <= 'Z' {
		return b + 'a' - 'A'
	}
	return b
}

// directoryOf is the directory that a path lies in, without a slash at its end unless it is the root, empty if there is none.
func directoryOf(path string) string {
	switch slash := strings.LastIndexByte(path, '/'); {
	case slash < 0:
		return ""
	case slash == 0:
		return "/"
	default:
		return path[:slash]
	}
}

package condition

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"github.com/palisade-sec/palisade/internal/glob"
)

// commLength is how many bytes of a program's name the kernel's comm holds.
const commLength = 15

// StringMatcher compiles a comparison of strings with constants: a list of them for the List
// operators, else exactly one. With comm set the string is a program's name of any length, and
// a constant of exactly 15 bytes equals what comm would have made of it. The matchers do not
// allocate.
func StringMatcher(op Op, values []string, comm bool) (func(string) bool, error) {
	if op.List() {
		return listMatcher(op, values, comm), nil
	}
	if len(values) != 1 {
		return nil, fmt.Errorf("%s takes one value", op)
	}
	value := values[0]
	switch op {
	case Equal:
		return equalMatcher(value, comm), nil
	case NotEqual:
		equal := equalMatcher(value, comm)
		return func(s string) bool { return !equal(s) }, nil
	case Glob:
		return func(s string) bool { return glob.Match(value, s) }, nil
	case IGlob:
		lower := strings.ToLower(value)
		return func(s string) bool { return glob.Match(lower, strings.ToLower(s)) }, nil
	case Regex:
		return regexMatcher(value)
	case BContains, BStartsWith:
		raw, err := hex.DecodeString(value)
		if err != nil {
			return nil, fmt.Errorf("%s takes hex digits: %w", op, err)
		}
		value = string(raw)
	default: // a plain comparison
	}
	switch op {
	case Contains, BContains:
		return func(s string) bool { return len(s) >= len(value) && strings.Contains(s, value) }, nil
	case StartsWith, BStartsWith:
		return func(s string) bool { return strings.HasPrefix(s, value) }, nil
	default:
		return func(s string) bool { return CompareStrings(op, s, value) }, nil
	}
}

// CompareStrings applies an operator that needs no preparation to two strings. The others are
// false.
func CompareStrings(op Op, s, value string) bool {
	switch op {
	case Equal, In, Intersects:
		return s == value
	case NotEqual:
		return s != value
	case Less:
		return s < value
	case LessEqual:
		return s <= value
	case Greater:
		return s > value
	case GreaterEqual:
		return s >= value
	case Contains, BContains:
		return strings.Contains(s, value)
	case IContains:
		return containsFold(s, value)
	case StartsWith, BStartsWith:
		return strings.HasPrefix(s, value)
	case EndsWith:
		return strings.HasSuffix(s, value)
	default:
		return false
	}
}

// regexMatcher matches the whole string, as Falco does.
func regexMatcher(value string) (func(string) bool, error) {
	// Alone first: "a)|(b" is only valid inside the group.
	if _, err := regexp.Compile(value); err != nil {
		return nil, fmt.Errorf("regex: %w", err)
	}
	re, err := regexp.Compile(`^(?s:` + value + `)$`)
	if err != nil {
		return nil, fmt.Errorf("regex: %w", err)
	}
	return re.MatchString, nil
}

func equalMatcher(value string, comm bool) func(string) bool {
	if comm && len(value) == commLength {
		return func(s string) bool {
			return s == value || len(s) > commLength && s[:commLength] == value
		}
	}
	return func(s string) bool { return s == value }
}

func listMatcher(op Op, values []string, comm bool) func(string) bool {
	set := members{all: make(map[string]struct{}, len(values))}
	for _, v := range values {
		if op == PathMatch && len(v) > 1 {
			v = strings.TrimRight(v, "/")
		}
		set.add(v)
	}
	if op == PathMatch {
		return set.under
	}
	return func(s string) bool {
		return set.has(s) || comm && len(s) > commLength && set.has(s[:commLength])
	}
}

// members is a set of strings that most often says no by a string's length alone.
type members struct {
	all     map[string]struct{}
	lengths uint64 // a bit for each length modulo 64 that there is
}

func (m *members) add(s string) {
	m.all[s] = struct{}{}
	m.lengths |= 1 << (len(s) % 64)
}

func (m *members) has(s string) bool {
	if m.lengths>>(len(s)%64)&1 == 0 {
		return false
	}
	_, ok := m.all[s]
	return ok
}

// under says whether the path or a directory above it is in the set.
func (m *members) under(path string) bool {
	if m.has(path) {
		return true
	}
	for i := 0; i < len(path); i++ {
		if path[i] == '/' && m.has(path[:max(i, 1)]) {
			return true
		}
	}
	return false
}

// containsFold is strings.Contains without regard to the case of ASCII letters.
func containsFold(s, part string) bool {
	for i := 0; i+len(part) <= len(s); i++ {
		if equalFold(s[i:i+len(part)], part) {
			return true
		}
	}
	return false
}

func equalFold(a, b string) bool {
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

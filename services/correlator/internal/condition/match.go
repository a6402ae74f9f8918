package condition

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"github.com/palisade-sec/palisade/services/correlator/internal/glob"
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
	return func(s string) bool { return CompareStrings(op, s, value) }, nil
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
	set := make(map[string]struct{}, len(values))
	for _, v := range values {
		if op == PathMatch && len(v) > 1 {
			v = strings.TrimRight(v, "/")
		}
		set[v] = struct{}{}
	}
	if op == PathMatch {
		return func(s string) bool { return underAny(set, s) }
	}
	return func(s string) bool {
		if _, ok := set[s]; ok {
			return true
		}
		if !comm || len(s) <= commLength {
			return false
		}
		_, ok := set[s[:commLength]]
		return ok
	}
}

// underAny says whether the path or a directory above it is in the set.
func underAny(set map[string]struct{}, path string) bool {
	if _, ok := set[path]; ok {
		return true
	}
	for i := 0; i < len(path); i++ {
		if path[i] != '/' {
			continue
		}
		if _, ok := set[path[:max(i, 1)]]; ok {
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

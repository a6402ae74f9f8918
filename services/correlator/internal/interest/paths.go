package interest

import (
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/palisade-sec/palisade/services/correlator/internal/condition"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

const (
	// maxPrefix is how many bytes of a prefix the collector takes.
	maxPrefix = 240
	// maxPrefixes bounds a set: beyond it, files cannot be told apart cheaply, so all of them are wanted.
	maxPrefixes = 1024
)

// Paths is a set of paths: all of them, or those that begin with one of some prefixes. The zero value is the empty set.
// It does not change once made.
type Paths struct {
	All bool
	// Prefixes are sorted by bytes, and none begins with another. Empty if All.
	Prefixes []string
}

// Everything is the set of all paths.
func Everything() Paths { return Paths{All: true} }

// begin is the set of the paths that begin with one of these.
func begin(prefixes []string) Paths {
	prefixes = slices.Clone(prefixes)
	for i, p := range prefixes {
		if prefixes[i] = sendable(p); prefixes[i] == "" {
			return Everything()
		}
	}
	slices.Sort(prefixes)
	kept := prefixes[:0]
	for _, p := range prefixes {
		if len(kept) == 0 || !strings.HasPrefix(p, kept[len(kept)-1]) {
			kept = append(kept, p)
		}
	}
	if len(kept) > maxPrefixes {
		return Everything()
	}
	return Paths{Prefixes: kept}
}

// sendable is as much of a prefix as the collector can compare. What is not UTF-8 in a path has become U+FFFD in the
// event, so a prefix ends before that.
func sendable(prefix string) string {
	end := 0
	for i, r := range prefix {
		size := utf8.RuneLen(r)
		if r == utf8.RuneError || i+size > maxPrefix {
			break
		}
		end = i + size
	}
	return prefix[:end]
}

// Has says whether the path is in the set.
func (p Paths) Has(path string) bool {
	// Between a prefix and what begins with it, in this order, stands only what begins with it.
	i, found := slices.BinarySearch(p.Prefixes, path)
	return p.All || found || i > 0 && strings.HasPrefix(path, p.Prefixes[i-1])
}

// Empty says whether no path is in the set.
func (p Paths) Empty() bool { return !p.All && len(p.Prefixes) == 0 }

// Or is the set of the paths that are in either.
func (p Paths) Or(q Paths) Paths {
	switch {
	case p.All || q.Empty():
		return p
	case q.All || p.Empty():
		return q
	}
	return begin(append(slices.Clip(p.Prefixes), q.Prefixes...))
}

// And is the set of the paths that are in both.
func (p Paths) And(q Paths) Paths {
	switch {
	case p.All || q.Empty():
		return q
	case q.All || p.Empty():
		return p
	}
	// What begins with a prefix of each begins with the longer of the two, which begins with the shorter.
	var both []string
	for _, prefix := range p.Prefixes {
		if q.Has(prefix) {
			both = append(both, prefix)
		}
	}
	for _, prefix := range q.Prefixes {
		if p.Has(prefix) {
			both = append(both, prefix)
		}
	}
	return begin(both)
}

// Matching is a set that holds every path of which the comparison can be true, where the field holds that part of it.
func Matching(part field.PathPart, op condition.Op, values []string) Paths {
	if part == field.NoPath {
		return Everything()
	}
	prefixes := make([]string, 0, len(values))
	for _, value := range values {
		prefixes = append(prefixes, prefixOf(part, op, value))
	}
	return begin(prefixes)
}

// prefixOf is what a path must begin with for the comparison with this value to be true, empty if anything may.
func prefixOf(part field.PathPart, op condition.Op, value string) string {
	switch op {
	case condition.Equal, condition.In, condition.Intersects:
		if part == field.Directory && value != "/" {
			return value + "/"
		}
		return value
	case condition.StartsWith:
		return value
	case condition.PathMatch: // the directory itself, or what is below it
		if value == "/" {
			return value
		}
		return strings.TrimRight(value, "/")
	case condition.Glob:
		if special := strings.IndexAny(value, `*?[\`); special >= 0 {
			return value[:special]
		}
		return value
	case condition.Regex:
		if re, err := regexp.Compile(value); err == nil {
			literal, _ := re.LiteralPrefix()
			return literal
		}
		return ""
	default:
		return ""
	}
}

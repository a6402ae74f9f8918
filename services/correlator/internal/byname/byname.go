// Package byname finds the few rules that a process of a given name can match among the many that there are. Data in: for each rule
// the names without which it cannot match; data out: for a name the rules that are left, in their order. It may leave too many and
// never too few.
package byname

import (
	"slices"
)

const (
	// maxLength is how much of a name is looked at: as much as the kernel's comm holds, for a rule that names so much of a
	// longer name means that one too.
	maxLength = 15
	// maxNames bounds an index: beyond it, rules are told apart by nothing.
	maxNames = 4096
)

// Names is a set of names of programs: all of them, or some. The zero value is the empty set. It does not change once made.
type Names struct {
	All bool
	// some are sorted. Empty if All.
	some []string
}

// Any is the set of all names.
func Any() Names { return Names{All: true} }

// Of is the set of these names, and of those that begin with as much of one as is looked at.
func Of(names []string) Names {
	some := make([]string, 0, len(names))
	for _, name := range names {
		some = append(some, key(name))
	}
	slices.Sort(some)
	return Names{some: slices.Compact(some)}
}

func key(name string) string { return name[:min(len(name), maxLength)] }

// Or is the set of the names that are in either.
func (n Names) Or(m Names) Names {
	if n.All || m.All {
		return Any()
	}
	return Of(slices.Concat(n.some, m.some))
}

// And is the set of the names that are in both.
func (n Names) And(m Names) Names {
	switch {
	case n.All:
		return m
	case m.All:
		return n
	}
	var both []string
	for _, name := range n.some {
		if _, ok := slices.BinarySearch(m.some, name); ok {
			both = append(both, name)
		}
	}
	return Names{some: both}
}

// Entry is something that is looked for, and the names that it is looked for by.
type Entry[T any] struct {
	Names Names
	Value T
}

// Index is entries by name. It does not change, so any number of goroutines may use it. The zero value is empty.
type Index[T any] struct {
	// others are for names that no entry names.
	others []T
	named  map[string][]T
}

// New makes an index.
func New[T any](entries []Entry[T]) Index[T] {
	index := Index[T]{named: map[string][]T{}}
	var names []string
	for _, e := range entries {
		names = append(names, e.Names.some...)
		if e.Names.All {
			index.others = append(index.others, e.Value)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > maxNames {
		index.others = nil
		for _, e := range entries {
			index.others = append(index.others, e.Value)
		}
		return index
	}
	for _, name := range names {
		for _, e := range entries {
			if _, ok := slices.BinarySearch(e.Names.some, name); ok || e.Names.All {
				index.named[name] = append(index.named[name], e.Value)
			}
		}
	}
	return index
}

// Empty says whether there are no entries.
func (x Index[T]) Empty() bool { return len(x.others) == 0 && len(x.named) == 0 }

// For is the entries for a name, empty for one that is not known, in their order. It does not allocate; the caller must not change
// it.
func (x Index[T]) For(name string) []T {
	if found, ok := x.named[key(name)]; ok {
		return found
	}
	return x.others
}

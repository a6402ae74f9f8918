package advisory

import (
	"cmp"
	"slices"
	"strings"
)

// numbers gives each text a number, and keeps it once.
type numbers struct {
	number map[string]int32
	texts  []string
}

func newNumbers() numbers { return numbers{number: map[string]int32{}} }

func (n *numbers) of(text string) int32 {
	number, ok := n.number[text]
	if !ok {
		number = int32(len(n.texts)) //nolint:gosec // records are bounded by maxRecords, and their bytes by maxTotal
		text = strings.Clone(text)   // it may be a part of a whole record
		n.number[text] = number
		n.texts = append(n.texts, text)
	}
	return number
}

// aliasSets joins ids that are aliases of one another, directly or over others.
type aliasSets struct {
	numbers
	parent []int32
	size   []int32
	// refused counts joins that would have made a set of more than maxAlike.
	refused int
}

func newAliasSets() *aliasSets { return &aliasSets{numbers: newNumbers()} }

func (a *aliasSets) numberOf(id string) int32 {
	n := a.of(id)
	if int(n) == len(a.parent) {
		a.parent, a.size = append(a.parent, n), append(a.size, 1)
	}
	return n
}

func (a *aliasSets) root(n int32) int32 {
	for a.parent[n] != n {
		a.parent[n] = a.parent[a.parent[n]]
		n = a.parent[n]
	}
	return n
}

// join says that the ids are of one vulnerability.
func (a *aliasSets) join(ids []string) {
	first := a.numberOf(ids[0])
	for _, id := range ids[1:] {
		x, y := a.root(first), a.root(a.numberOf(id))
		switch {
		case x == y:
		case a.size[x]+a.size[y] > maxAlike:
			a.refused++
		default:
			if a.size[x] < a.size[y] {
				x, y = y, x
			}
			a.parent[y] = x
			a.size[x] += a.size[y]
		}
	}
}

// sets returns all sets, of numbers.
func (a *aliasSets) sets() [][]int32 {
	all := make([]int32, len(a.texts))
	for n := range all {
		all[n] = int32(n) //nolint:gosec // it has a number
	}
	slices.SortFunc(all, func(x, y int32) int {
		return cmp.Or(cmp.Compare(a.root(x), a.root(y)), strings.Compare(a.texts[x], a.texts[y]))
	})
	var sets [][]int32
	for len(all) > 0 {
		n := 1
		for n < len(all) && a.root(all[n]) == a.root(all[0]) {
			n++
		}
		sets, all = append(sets, all[:n]), all[n:]
	}
	return sets
}

// ids are the texts of a set, sorted as it is.
func (a *aliasSets) ids(set []int32) []string {
	ids := make([]string, 0, len(set))
	for _, n := range set {
		ids = append(ids, a.texts[n])
	}
	return ids
}

// nameOf chooses the name of a vulnerability with these ids, sorted: its first CVE, or else the first that is the id of a record.
func (a *aliasSets) nameOf(set []int32, isRecord func(id int32) bool) int32 {
	name := int32(-1)
	for _, n := range set {
		if isCVE(a.texts[n]) && (name < 0 || compareCVE(a.texts[n], a.texts[name]) < 0) {
			name = n
		}
	}
	if name < 0 {
		name = set[max(slices.IndexFunc(set, isRecord), 0)]
	}
	return name
}

// compareCVE orders by year, then number.
func compareCVE(a, b string) int {
	const year = len("CVE-2006")
	x, y := a[:min(len(a), year)], b[:min(len(b), year)]
	return cmp.Or(cmp.Compare(x, y), cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

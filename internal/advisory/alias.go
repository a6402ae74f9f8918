package advisory

import (
	"cmp"
	"slices"
	"strings"
)

// aliasSets joins ids that are aliases of one another, directly or over others.
type aliasSets struct {
	number map[string]int32
	ids    []string
	parent []int32
	size   []int32
	// refused counts joins that would have made a set of more than maxAlike.
	refused int
}

func newAliasSets() *aliasSets { return &aliasSets{number: map[string]int32{}} }

func (a *aliasSets) numberOf(id string) int32 {
	n, ok := a.number[id]
	if !ok {
		n = int32(len(a.ids)) //nolint:gosec // records are bounded by maxRecords, and their bytes by maxTotal
		id = strings.Clone(id)
		a.number[id] = n
		a.ids, a.parent, a.size = append(a.ids, id), append(a.parent, n), append(a.size, 1)
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

// sets returns all sets by their root, each sorted.
func (a *aliasSets) sets() map[int32][]string {
	sets := make(map[int32][]string, len(a.ids))
	for n, id := range a.ids {
		root := a.root(int32(n)) //nolint:gosec // it has a number
		sets[root] = append(sets[root], id)
	}
	for _, ids := range sets {
		slices.Sort(ids)
	}
	return sets
}

// nameOf chooses the name of a vulnerability with these ids, sorted: its first CVE, or else the first that is the id of a record.
func nameOf(ids []string, isRecord func(id string) bool) string {
	name := ""
	for _, id := range ids {
		if isCVE(id) && (name == "" || compareCVE(id, name) < 0) {
			name = id
		}
	}
	if name == "" {
		name = ids[max(slices.IndexFunc(ids, isRecord), 0)]
	}
	return name
}

// compareCVE orders by year, then number.
func compareCVE(a, b string) int {
	const year = len("CVE-2006")
	x, y := a[:min(len(a), year)], b[:min(len(b), year)]
	return cmp.Or(cmp.Compare(x, y), cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

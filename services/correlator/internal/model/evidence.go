package model

import (
	"fmt"
	"path"
	"time"
)

// evidence says what was learned of a fact's family, and what of it comes closest.
func (m *model) evidence(f Fact) string {
	var total uint64
	var first, last int64
	for known, seen := range m.facts {
		if known.Family != f.Family {
			continue
		}
		total += seen.Count
		last = max(last, seen.Last)
		if first == 0 || seen.First < first {
			first = seen.First
		}
	}
	noun := families[f.Family].noun
	if m.counts[f.Family] == 0 {
		return fmt.Sprintf("learned: no %s, in %d starts", noun, m.starts)
	}
	text := fmt.Sprintf("learned: %d %s, seen %d times from %s to %s, in %d starts",
		m.counts[f.Family], noun, total, stamp(first), stamp(last), m.starts)
	if close, seen := m.closest(f); seen != nil {
		text += fmt.Sprintf("; closest: %s, %d times, last %s", close, seen.Count, stamp(seen.Last))
	}
	return text
}

func stamp(seconds int64) string { return time.Unix(seconds, 0).UTC().Format(time.RFC3339) }

// closest is the learned fact that is most like one that was not, a nil Seen if none is: numbers of capabilities and system calls
// say nothing about likeness.
func (m *model) closest(f Fact) (Fact, *Seen) {
	var best Fact
	var bestSeen *Seen
	score := -1
	for _, known := range sorted(m.facts) {
		if s := likeness(f, known); known.Family == f.Family && s > score {
			best, bestSeen, score = known, m.facts[known], s
		}
	}
	return best, bestSeen
}

func likeness(f, known Fact) int {
	switch f.Family {
	case Programs:
		s := common(f.Name, known.Name)
		if path.Base(f.Name) == path.Base(known.Name) {
			s += 1000
		}
		if f.Name == known.Name {
			s += 10_000
		}
		if f.Parent == known.Parent {
			s += 10
		}
		return s
	case WrittenDirectories:
		return common(f.Name, known.Name)
	case Domains:
		return common(reversed(f.Name), reversed(known.Name))
	case ListeningPorts, OutboundPorts:
		distance := int(f.Number&0xffff) - int(known.Number&0xffff)
		s := 0x10000 - max(distance, -distance)
		if f.Number>>16 == known.Number>>16 {
			s += 0x20000
		}
		return s
	case Capabilities, Syscalls, numFamilies:
	}
	return -1
}

// common is how many bytes two texts begin with alike.
func common(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func reversed(text string) string {
	b := []byte(text)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}

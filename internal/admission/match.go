package admission

import (
	"slices"

	"github.com/palisade-sec/palisade/internal/glob"
)

// maxMatched bounds the names that patterns are held against: the time of a match grows with both lengths.
const maxMatched = 4096

// Part is something that a selector asks for.
type Part string

// The parts that may be unknown.
const (
	PartImage     Part = "image"
	PartNamespace Part = "namespace"
	PartLabels    Part = "labels"
)

// matches says whether a rule is for this container; or, if lacking is not "", that it cannot be said without that part.
func (s *Selector) matches(q *Question) (matches bool, lacking Part) {
	matches = true
	for part, does := range map[Part]bool{
		PartImage:     len(s.Images) == 0 || fits(s.Images, q.Image),
		PartNamespace: len(s.Namespaces) == 0 || fits(s.Namespaces, q.Namespace),
		PartLabels:    s.labelled(q),
	} {
		if asked := s.asks(part); asked && slices.Contains(q.Unsure, part) {
			lacking = max(lacking, part)
		} else if !does {
			matches = false
		}
	}
	if !matches || len(s.Hosts) > 0 && !fits(s.Hosts, q.Host) {
		return false, "" // whatever the unknown parts are
	}
	if s.Not != nil {
		not, unsure := s.Not.matches(q)
		if not {
			return false, ""
		}
		lacking = max(lacking, unsure)
	}
	return true, lacking
}

// asks says whether the selector asks for a part itself.
func (s *Selector) asks(part Part) bool {
	return part == PartImage && len(s.Images) > 0 || part == PartNamespace && len(s.Namespaces) > 0 || part == PartLabels && len(s.Labels) > 0
}

func (s *Selector) labelled(q *Question) bool {
	for name, pattern := range s.Labels {
		if value, ok := q.Labels[name]; !ok || !fits([]string{pattern}, value) {
			return false
		}
	}
	return true
}

func (s *Selector) empty() bool {
	return len(s.Images)+len(s.Namespaces)+len(s.Hosts)+len(s.Labels) == 0 && s.Not == nil
}

func fits(patterns []string, name string) bool {
	return len(name) <= maxMatched && slices.ContainsFunc(patterns, func(pattern string) bool { return glob.Match(pattern, name) })
}

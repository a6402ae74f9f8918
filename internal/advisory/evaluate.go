package advisory

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/google/osv-scalibr/semantic"
)

// subject is a version that advisories are evaluated for. It reads the version when it is first compared, in either order.
type subject struct {
	ecosystem, version string
	orders             [2]order
}

// order is a version read by its ecosystem's rules or, the second, by semver.org's.
type order struct {
	read   bool
	parsed semantic.Version
	err    error
}

func (s *subject) parse(semver bool) (semantic.Version, error) {
	o := &s.orders[0]
	if semver {
		o = &s.orders[1]
	}
	if !o.read {
		o.parsed, o.err = parseVersion(s.ecosystem, s.version, semver)
		if o.err != nil {
			o.err = fmt.Errorf("version %s: %w", quoted(s.version), o.err)
		}
		o.read = true
	}
	return o.parsed, o.err
}

// compare is below 0 if the subject is older than other, above 0 if it is newer.
func (s *subject) compare(other string, semver bool) (int, error) {
	own, err := s.parse(semver)
	if err != nil {
		return 0, err
	}
	theirs, err := parseVersion(s.ecosystem, other, semver)
	if err != nil {
		return 0, fmt.Errorf("the advisory's version %s: %w", quoted(other), err)
	}
	order, err := own.Compare(theirs)
	if err != nil {
		return 0, fmt.Errorf("version %s: %w", quoted(s.version), err)
	}
	return order, nil
}

// affected is OSV's algorithm (https://ossf.github.io/osv-schema/#evaluation) for one package of one advisory: its versions are listed,
// or within a range. The error says that a range could not be evaluated; what the rest says stands even so.
func (s *subject) affected(r *record) (bool, error) {
	if slices.Contains(r.Versions, s.version) {
		return true, nil
	}
	return s.inRanges(r.Ranges)
}

func (s *subject) inRanges(ranges []span) (bool, error) {
	var fault error
	for _, r := range ranges {
		within, err := s.inRange(r)
		if within {
			return true, nil
		}
		if fault == nil {
			fault = err
		}
	}
	return false, fault
}

func (s *subject) inRange(r span) (bool, error) {
	if before, err := s.beforeLimits(r); err != nil || !before {
		return false, err
	}
	within := false
	for _, e := range r.Events { // in order: sortEvents
		if e.Kind == limit {
			continue
		}
		order := 1
		if e.Version != "0" || e.Kind != introduced { // "0" is before every version, also before those that sort below 0
			var err error
			if order, err = s.compare(e.Version, r.SemVer); err != nil {
				return false, err
			}
		}
		switch {
		case e.Kind == introduced && order >= 0:
			within = true
		case e.Kind == fixed && order >= 0, e.Kind == lastAffected && order > 0:
			within = false
		}
	}
	return within, nil
}

// beforeLimits says whether the version is below one of the range's limits. Without any there is none.
func (s *subject) beforeLimits(r span) (bool, error) {
	limited := false
	for _, e := range r.Events {
		if e.Kind != limit {
			continue
		}
		if e.Version == "*" {
			return true, nil
		}
		limited = true
		order, err := s.compare(e.Version, r.SemVer)
		if err != nil || order < 0 {
			return err == nil, err
		}
	}
	return !limited, nil
}

// fix is the smallest version above the subject's that a range names as fixed and that is not within another range; empty if
// there is none. What cannot be compared is no fix.
func (s *subject) fix(r *record) string {
	best := ""
	for _, within := range r.Ranges {
		for _, e := range within.Events {
			if e.Kind != fixed {
				continue
			}
			if order, err := s.compare(e.Version, within.SemVer); err != nil || order >= 0 {
				continue
			}
			candidate := subject{ecosystem: s.ecosystem, version: e.Version}
			if still, err := candidate.affected(r); still || err != nil {
				continue
			}
			if best == "" || candidate.before(best, within.SemVer) {
				best = e.Version
			}
		}
	}
	return best
}

// before says whether the subject is older than other; if they cannot be compared it is not.
func (s *subject) before(other string, semver bool) bool {
	order, err := s.compare(other, semver)
	return err == nil && order < 0
}

// sortEvents puts a range's events in the order of their versions, as the evaluation needs them; those of one version stay as they
// were. The error says which version cannot be compared.
func sortEvents(ecosystem string, r span) error {
	subjects := make(map[string]*subject, len(r.Events))
	for _, e := range r.Events {
		if e.Version == "0" && e.Kind == introduced || e.Version == "*" && e.Kind == limit {
			continue
		}
		s := &subject{ecosystem: ecosystem, version: e.Version}
		if _, err := s.parse(r.SemVer); err != nil {
			return err
		}
		subjects[e.Version] = s
	}
	var fault error
	slices.SortStableFunc(r.Events, func(a, b event) int {
		if open := cmp.Compare(rank(a), rank(b)); open != 0 || rank(a) != 0 {
			return open
		}
		order, err := subjects[a.Version].compare(b.Version, r.SemVer)
		if err != nil && fault == nil {
			fault = err
		}
		return order
	})
	return fault
}

// rank puts the open ends of a range before and behind all versions.
func rank(e event) int {
	switch {
	case e.Kind == introduced && e.Version == "0":
		return -1
	case e.Kind == limit && e.Version == "*":
		return 1
	}
	return 0
}

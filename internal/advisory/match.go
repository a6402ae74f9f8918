package advisory

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/advisory/keyfile"
	"github.com/palisade-sec/palisade/internal/escape"
)

// Matches is what a store says of packages.
type Matches struct {
	// Vulnerabilities are sorted as the scanner's contract says: worst first, then those with a fix, then by package.
	Vulnerabilities []*scannerv1.Vulnerability
	// Faults are what could not be judged, one line for people each: ecosystems without advisories, versions that cannot be
	// compared. At most a few dozen; the last says how many more there are.
	Faults []string
}

// Match looks for vulnerabilities of packages. Advisories that are aliases of one another are one vulnerability of a package. The
// error is ctx's or wraps ErrDamaged; faults of what is compared are in the result.
func (s *Store) Match(ctx context.Context, packages []*scannerv1.Package) (Matches, error) {
	m := matcher{
		store: s, packages: s.file.Cursor(), names: s.file.Cursor(), uncovered: map[string]int{}, known: map[string]vulnerability{}, recent: map[string][]*record{},
	}
	for _, p := range unique(packages) {
		if err := ctx.Err(); err != nil {
			return Matches{}, err
		}
		if err := m.match(p); err != nil {
			return Matches{}, err
		}
	}
	slices.SortStableFunc(m.found, worse)
	return Matches{Vulnerabilities: m.found, Faults: m.lines()}, nil
}

// unique puts packages in the order in which the store has them, each once, with all its locations.
func unique(packages []*scannerv1.Package) []*scannerv1.Package {
	sorted := slices.Clone(packages)
	order := func(a, b *scannerv1.Package) int {
		return cmp.Or(cmp.Compare(canonicalEcosystem(a.GetEcosystem()), canonicalEcosystem(b.GetEcosystem())), cmp.Compare(advisedName(a), advisedName(b)),
			cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetVersion(), b.GetVersion()),
			cmp.Compare(a.GetSourceVersion(), b.GetSourceVersion()))
	}
	slices.SortStableFunc(sorted, order)
	var once []*scannerv1.Package
	for _, p := range sorted {
		if len(once) == 0 || order(once[len(once)-1], p) != 0 {
			once = append(once, &scannerv1.Package{
				Name: p.GetName(), Version: p.GetVersion(), Ecosystem: p.GetEcosystem(), Source: p.GetSource(), SourceVersion: p.GetSourceVersion(),
				Locations: slices.Clone(p.GetLocations()),
			})
			continue
		}
		last := once[len(once)-1]
		last.Locations = append(last.Locations, p.GetLocations()...)
	}
	for _, p := range once {
		slices.Sort(p.Locations)
		p.Locations = slices.Compact(p.Locations)
	}
	return once
}

// matcher is one run of Match.
type matcher struct {
	store           *Store
	packages, names *keyfile.Cursor
	known           map[string]vulnerability // by name: many packages have the same ones
	recent          map[string][]*record     // by key, of the last package: the next one may be of the same source
	uncovered       map[string]int           // packages of ecosystems, or releases, that the store has nothing for
	faults          faultList
	found           []*scannerv1.Vulnerability
}

func (m *matcher) match(p *scannerv1.Package) error {
	ecosystem := canonicalEcosystem(p.GetEcosystem())
	lookups := []string{ecosystem}
	if name := base(ecosystem); name != ecosystem {
		lookups = append(lookups, name) // advisories for all releases
	}
	known := m.store.metadata.Ecosystems
	// Of a distribution the release must be there: what is advised for all of them is the least part.
	if known[ecosystem] == 0 && (released[base(ecosystem)] || known[base(ecosystem)] == 0) || released[ecosystem] {
		m.uncovered[ecosystem]++
	}
	about := &subject{ecosystem: ecosystem, version: advisedVersion(p)}
	found := map[string]*scannerv1.Vulnerability{}
	for _, lookup := range lookups {
		records, err := m.records(packageKey(lookup, advisedName(p)))
		if err != nil {
			return err
		}
		if err := m.judge(p, about, records, found); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		m.found = append(m.found, finished(found[name]))
	}
	return nil
}

// judge adds to found, by name, what applies to a package.
func (m *matcher) judge(p *scannerv1.Package, about *subject, records []*record, found map[string]*scannerv1.Vulnerability) error {
	failed := 0
	var failure error
	for _, r := range records {
		affected, err := about.affected(r)
		if err != nil {
			failed++
			failure = cmp.Or(failure, fmt.Errorf("%s: %w", shown(r.ID), err))
		}
		if !affected {
			continue
		}
		fix := about.fix(r)
		for _, name := range r.names() {
			known, err := m.vulnerability(name)
			if err != nil {
				return err
			}
			if found[name] == nil {
				found[name] = &scannerv1.Vulnerability{
					Id: name, Package: p.GetName(), Version: p.GetVersion(), Ecosystem: p.GetEcosystem(), Locations: p.GetLocations(), Aliases: slices.Clone(known.IDs),
				}
			}
			about.merge(found[name], r, known, fix)
		}
	}
	if failed > 0 {
		m.faults.add("%s %s: %d of %d advisories about it could not be judged: %v", shown(p.GetName()), shown(p.GetVersion()), failed, len(records), failure)
	}
	return nil
}

func (m *matcher) vulnerability(name string) (vulnerability, error) {
	if v, ok := m.known[name]; ok {
		return v, nil
	}
	v, err := m.store.named(m.names, name)
	if err == nil {
		m.known[name] = v
	}
	return v, err
}

func (m *matcher) records(key string) ([]*record, error) {
	if records, ok := m.recent[key]; ok {
		return records, nil
	}
	records, err := m.store.records(m.packages, key)
	if len(m.recent) > 1 { // one for the release, one for all releases
		clear(m.recent)
	}
	if err == nil {
		m.recent[key] = records
	}
	return records, err
}

// names are those of the vulnerabilities that the advisory is about.
func (r *record) names() []string {
	if len(r.Names) == 0 {
		return []string{r.ID}
	}
	return r.Names
}

// merge adds what one advisory says: of several the gravest rating counts, and the smallest version that has the fix.
func (s *subject) merge(v *scannerv1.Vulnerability, r *record, known vulnerability, fix string) {
	v.Aliases = append(v.Aliases, r.ID)
	if v.Summary == "" {
		v.Summary = r.Summary
	}
	rated := r.Rating
	if rated == nil {
		rated = known.Rating
	}
	if graver(rated, &rating{Severity: v.GetSeverity(), Score: v.GetScore()}) {
		v.Severity, v.Score, v.Vector, v.RiskFactors = rated.Severity, rated.Score, rated.Vector, rated.Factors
	}
	published := stamp(r.Published)
	v.PublishedAt = earlier(v.PublishedAt, published)
	switch {
	case fix == "":
	case v.GetFixedVersion() == fix:
		v.FixedAt = earlier(v.FixedAt, published)
	case v.GetFixedVersion() == "" || (&subject{ecosystem: s.ecosystem, version: fix}).before(v.GetFixedVersion(), r.semver()):
		v.FixedVersion, v.FixedAt = fix, published
	}
}

// semver says whether the record's versions are compared by semver.org.
func (r *record) semver() bool { return len(r.Ranges) > 0 && r.Ranges[0].SemVer }

// finished sorts ids, and takes the name out of the aliases.
func finished(v *scannerv1.Vulnerability) *scannerv1.Vulnerability {
	slices.Sort(v.Aliases)
	v.Aliases = slices.DeleteFunc(slices.Compact(v.Aliases), func(id string) bool { return id == v.GetId() })
	return v
}

func stamp(seconds int64) *timestamppb.Timestamp {
	if seconds == 0 {
		return nil
	}
	return timestamppb.New(time.Unix(seconds, 0))
}

// earlier is the earlier of two times, either of which may be unknown.
func earlier(a, b *timestamppb.Timestamp) *timestamppb.Timestamp {
	if a == nil || b != nil && b.GetSeconds() < a.GetSeconds() {
		return b
	}
	return a
}

// worse is the order of the scanner's contract.
func worse(a, b *scannerv1.Vulnerability) int {
	unfixed := func(v *scannerv1.Vulnerability) int {
		if v.GetFixedVersion() == "" {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(b.GetSeverity(), a.GetSeverity()), cmp.Compare(unfixed(a), unfixed(b)), cmp.Compare(b.GetScore(), a.GetScore()),
		cmp.Compare(a.GetPackage(), b.GetPackage()), cmp.Compare(a.GetVersion(), b.GetVersion()), cmp.Compare(a.GetId(), b.GetId()))
}

// lines are the faults for people.
func (m *matcher) lines() []string {
	var lines []string
	for _, ecosystem := range slices.Sorted(maps.Keys(m.uncovered)) {
		if len(lines) == maxListed {
			lines = append(lines, fmt.Sprintf("and of %d more ecosystems", len(m.uncovered)-maxListed))
			break
		}
		lines = append(lines, m.uncoveredLine(ecosystem))
	}
	lines = append(lines, m.faults.lines...)
	if more := m.faults.count - len(m.faults.lines); more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more packages with advisories that could not be judged", more))
	}
	return lines
}

func (m *matcher) uncoveredLine(ecosystem string) string {
	counted := "1 package is"
	if n := m.uncovered[ecosystem]; n > 1 {
		counted = fmt.Sprintf("%d packages are", n)
	}
	switch {
	case ecosystem == "":
		return counted + " of an ecosystem that is not known: not matched"
	case released[ecosystem]:
		return fmt.Sprintf("%s of a release of %s that is not known: most advisories are for one", counted, ecosystem)
	}
	return fmt.Sprintf("%s of %s, for which there are no advisories: import them with `palisade vulndb import`", counted, shown(ecosystem))
}

// shown is foreign text safe to show to people, cut short.
func shown(text string) string {
	const most = 200
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return string(escape.Append(nil, text))
}

// quoted is shown in quotes, for what may be empty.
func quoted(text string) string { return `"` + shown(text) + `"` }

package advisory

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ossf/osv-schema/bindings/go/osvschema"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// entry is an advisory as it was read: what is kept of it for each package.
type entry struct {
	id        string
	alike     []string // ids of the same vulnerability, its own first
	upstream  []string // CVEs that it is about, if it is about several
	modified  int64
	withdrawn bool
	gitRanges int
	rating    *rating // the gravest of its packages'
	packages  []entryPackage
}

// entryPackage is a package that an advisory is about.
type entryPackage struct {
	ecosystem, name string
	record          record
}

// parseRecord reads a record of OSV's. Fields of later versions of the schema are left out.
func parseRecord(raw []byte) (*entry, error) {
	advisory := &osvschema.Vulnerability{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, advisory); err != nil {
		return nil, fmt.Errorf("not an OSV record: %w", err)
	}
	switch {
	case advisory.GetId() == "":
		return nil, errors.New("no id")
	case !isID(advisory.GetId()):
		return nil, fmt.Errorf("id %s: not letters, digits and - _ . : / +", quoted(advisory.GetId()))
	case advisory.GetModified() == nil:
		return nil, errors.New("no modified: OSV wants the time of its last change")
	}
	e := &entry{id: advisory.GetId(), modified: advisory.GetModified().GetSeconds(), withdrawn: advisory.GetWithdrawn() != nil}
	e.alike, e.upstream = identify(advisory)
	if e.withdrawn {
		return e, nil
	}
	for i, affected := range advisory.GetAffected() {
		if err := e.addPackage(advisory, affected); err != nil {
			return nil, fmt.Errorf("affected[%d]: %w", i, err)
		}
	}
	return e, nil
}

// isID says whether text can be an id: it is shown to people and compared, and nothing else.
func isID(text string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/+"
	return text != "" && len(text) <= 128 && strings.Trim(text, allowed) == ""
}

func isCVE(id string) bool { return strings.HasPrefix(id, "CVE-") }

// identify returns the ids of the vulnerability that a record is about, or of the several. Records of distributions call
// theirs DEBIAN-CVE-… or the like, with the CVE as upstream: that is one vulnerability. One with several CVEs upstream is about
// each of them.
func identify(advisory *osvschema.Vulnerability) (alike, upstream []string) {
	alike = []string{advisory.GetId()}
	for _, id := range advisory.GetAliases() {
		if isID(id) {
			alike = append(alike, id)
		}
	}
	for _, id := range advisory.GetUpstream() {
		if isCVE(id) && isID(id) {
			upstream = append(upstream, id)
		}
	}
	if _, cve, ok := strings.Cut(advisory.GetId(), "-CVE-"); ok {
		alike = append(alike, "CVE-"+cve)
	}
	slices.Sort(upstream)
	upstream = slices.Compact(upstream)
	if len(upstream) == 1 && !slices.ContainsFunc(alike, isCVE) {
		alike = append(alike, upstream[0])
	}
	if slices.ContainsFunc(alike, isCVE) {
		upstream = nil
	}
	slices.Sort(alike[1:]) // its own stays first: aliases join it
	return slices.Compact(alike), upstream
}

// addPackage keeps what a record says of one package. What names none, as ranges of commits may, is left out.
func (e *entry) addPackage(advisory *osvschema.Vulnerability, affected *osvschema.Affected) error {
	ecosystem, name := canonicalEcosystem(affected.GetPackage().GetEcosystem()), affected.GetPackage().GetName()
	if affected.GetPackage() != nil && (ecosystem == "" || name == "") {
		return errors.New("package without ecosystem or name")
	}
	if strings.Contains(ecosystem+name, "\x00") { // which is between them in the store's keys
		return errors.New("package with a zero byte in its name")
	}
	r := record{ID: advisory.GetId(), Summary: summary(advisory), Published: published(advisory), Rating: rate(advisory, affected)}
	for i, given := range affected.GetRanges() {
		if given.GetType() == osvschema.Range_GIT {
			e.gitRanges++
			continue
		}
		within, err := convertRange(ecosystem, given)
		if err != nil {
			return fmt.Errorf("ranges[%d]: %w", i, err)
		}
		r.Ranges = append(r.Ranges, within)
	}
	r.Versions = beyondRanges(ecosystem, affected.GetVersions(), r.Ranges)
	if graver(r.Rating, e.rating) {
		e.rating = r.Rating
	}
	if ecosystem == "" || len(r.Ranges)+len(r.Versions) == 0 {
		return nil
	}
	e.packages = append(e.packages, entryPackage{ecosystem: ecosystem, name: canonicalName(ecosystem, name), record: r})
	return nil
}

// convertRange takes a range's events. Their versions must be comparable, unless the ecosystem's are not at all.
func convertRange(ecosystem string, given *osvschema.Range) (span, error) {
	if given.GetType() != osvschema.Range_SEMVER && given.GetType() != osvschema.Range_ECOSYSTEM {
		return span{}, errors.New("type is none of SEMVER, ECOSYSTEM and GIT")
	}
	r := span{SemVer: given.GetType() == osvschema.Range_SEMVER}
	begins := false
	for i, e := range given.GetEvents() {
		kinds := []event{{introduced, e.GetIntroduced()}, {fixed, e.GetFixed()}, {lastAffected, e.GetLastAffected()}, {limit, e.GetLimit()}}
		kinds = slices.DeleteFunc(kinds, func(k event) bool { return k.Version == "" })
		if len(kinds) != 1 {
			return span{}, fmt.Errorf("events[%d]: %d of introduced, fixed, last_affected and limit, want 1", i, len(kinds))
		}
		if len(kinds[0].Version) > maxVersion {
			return span{}, fmt.Errorf("events[%d]: a version of %d bytes, at most %d", i, len(kinds[0].Version), maxVersion)
		}
		begins = begins || kinds[0].Kind == introduced
		r.Events = append(r.Events, kinds[0])
	}
	if !begins {
		return span{}, errors.New("no event says where it was introduced")
	}
	if err := sortEvents(ecosystem, r); errors.Is(err, errNotComparable) {
		return span{}, err
	}
	return r, nil
}

// beyondRanges leaves out the versions that are within the ranges, which is most of them and changes nothing: databases list each
// version that a range has.
func beyondRanges(ecosystem string, versions []string, ranges []span) []string {
	var rest []string
	for _, v := range versions {
		s := subject{ecosystem: ecosystem, version: v}
		if within, _ := s.inRanges(ranges); !within && len(v) <= maxVersion {
			rest = append(rest, v)
		}
	}
	return rest
}

// published is when a record came out, or else was changed last; 0 if it says neither (Go's database leaves the change at year 1).
func published(advisory *osvschema.Vulnerability) int64 {
	for _, t := range []*timestamppb.Timestamp{advisory.GetPublished(), advisory.GetModified()} {
		if t != nil && t.AsTime().After(time.Unix(0, 0)) {
			return t.GetSeconds()
		}
	}
	return 0
}

// summary is a line of at most maxSummary bytes.
func summary(advisory *osvschema.Vulnerability) string {
	text := advisory.GetSummary()
	if text == "" {
		text = advisory.GetDetails()
	}
	if len(text) > 4*maxSummary {
		text = text[:4*maxSummary]
	}
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "")), " ")
	if len(text) > maxSummary {
		text = strings.ToValidUTF8(text[:maxSummary], "") + "…"
	}
	return text
}

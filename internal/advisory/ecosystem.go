package advisory

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"github.com/google/osv-scalibr/semantic"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
)

// base is an ecosystem without its release: Debian of Debian:12.
func base(ecosystem string) string {
	name, _, _ := strings.Cut(ecosystem, ":")
	return name
}

// canonicalEcosystem writes the releases of an ecosystem in one way, where OSV's databases and those who name packages differ.
func canonicalEcosystem(ecosystem string) string {
	name, release, suffixed := strings.Cut(ecosystem, ":")
	if !suffixed {
		return ecosystem
	}
	switch name {
	case "Ubuntu":
		release = strings.TrimSuffix(release, ":LTS")
	case "Alpine":
		if release != "" && release[0] >= '0' && release[0] <= '9' {
			release = "v" + release
		}
	case "AlmaLinux", "Rocky Linux":
		release, _, _ = strings.Cut(release, ".") // advisories are for a major release
	}
	return name + ":" + release
}

// bySource are ecosystems whose advisories name the source package, not what was built from it.
var bySource = map[string]bool{
	"Alpaquita": true, "Alpine": true, "BellSoft Hardened Containers": true, "Chainguard": true, "Debian": true, "Mageia": true,
	"MinimOS": true, "SUSE": true, "Ubuntu": true, "Wolfi": true, "openEuler": true, "openSUSE": true,
}

// released are ecosystems whose advisories are for a release: without one it is not known which apply.
var released = map[string]bool{
	"AlmaLinux": true, "Alpine": true, "Debian": true, "Mageia": true, "Rocky Linux": true, "SUSE": true, "Ubuntu": true, "openEuler": true, "openSUSE": true,
}

// separators are what PyPI takes for one and the same between the parts of a name.
var separators = regexp.MustCompile(`[-_.]+`)

// canonicalName is under which name a package is looked up.
func canonicalName(ecosystem, name string) string {
	switch base(ecosystem) {
	case "PyPI":
		return separators.ReplaceAllString(strings.ToLower(name), "-")
	case "NuGet", "Packagist", "GitHub Actions":
		return strings.ToLower(name)
	}
	return name
}

// advisedName is the name that advisories have for a package.
func advisedName(p *scannerv1.Package) string {
	name := p.GetName()
	if p.GetSource() != "" && bySource[base(p.GetEcosystem())] {
		name = p.GetSource()
	}
	return canonicalName(p.GetEcosystem(), name)
}

// digitFirst are ecosystems whose versions begin with a number: the library takes anything for one, and "(devel)" for 0.
var digitFirst = map[string]bool{
	"Bioconductor": true, "Bitnami": true, "GHC": true, "Go": true, "Hex": true, "Julia": true, "NuGet": true, "Packagist": true, "Pub": true, "RubyGems": true,
	"SwiftURL": true, "crates.io": true, "npm": true,
}

// errNotComparable is why a version cannot be looked for in ranges.
var errNotComparable = errors.New("not a version of its ecosystem")

// parseVersion reads a version, by semver.org or as the ecosystem does.
func parseVersion(ecosystem, text string, semver bool) (semantic.Version, error) {
	name := base(ecosystem)
	switch {
	case text == "":
		return nil, fmt.Errorf("%w: it is empty", errNotComparable)
	case len(text) > maxVersion:
		return nil, fmt.Errorf("%w: %d bytes, at most %d are compared", errNotComparable, len(text), maxVersion)
	case strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		return nil, fmt.Errorf("%w: it has spaces or control characters", errNotComparable)
	case (semver || digitFirst[name]) && !numbered(text):
		return nil, fmt.Errorf("%w: it does not begin with a number", errNotComparable)
	case semver:
		return semantic.ParseSemverVersion(text), nil
	}
	version, err := semantic.Parse(text, name)
	if errors.Is(err, semantic.ErrUnsupportedEcosystem) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotComparable, err)
	}
	return version, nil
}

// numbered says whether a version begins with a number, with or without the letter that Go and others put before it.
func numbered(version string) bool {
	rest := strings.TrimPrefix(version, "v")
	return rest != "" && rest[0] >= '0' && rest[0] <= '9'
}

// goSemVer is a pre-release of Go as advisories have it.
var goSemVer = regexp.MustCompile(`^\d+\.\d+\.\d+-(?:0|(?:beta|rc)\.\d+)$`)

// goRelease is a release of Go as its tags have it: 1.21, 1.21.3, 1.21rc2, perhaps with what its builder added behind a hyphen.
var goRelease = regexp.MustCompile(`^(\d+\.\d+)(\.\d+)?(?:(beta|rc)(\d+))?(?:-.*)?$`)

// advisedVersion writes a package's version as advisories do: of a distribution's package the source's, of Go itself by semver.org,
// which Go's tags are not.
func advisedVersion(p *scannerv1.Package) string {
	version := p.GetVersion()
	if p.GetSource() != "" && p.GetSourceVersion() != "" && bySource[base(p.GetEcosystem())] {
		return p.GetSourceVersion()
	}
	if p.GetEcosystem() != "Go" {
		return version
	}
	if p.GetName() != "stdlib" && p.GetName() != "toolchain" {
		return strings.TrimPrefix(version, "v")
	}
	tag, _, _ := strings.Cut(strings.TrimPrefix(version, "go"), " ") // behind the space stands with which experiments it was built
	m := goRelease.FindStringSubmatch(tag)
	if m == nil || goSemVer.MatchString(tag) {
		return tag
	}
	if m[2] == "" {
		m[2] = ".0"
	}
	if m[3] != "" {
		return m[1] + m[2] + "-" + m[3] + "." + m[4]
	}
	return m[1] + m[2]
}

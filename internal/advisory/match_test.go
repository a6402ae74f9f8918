package advisory

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
)

func goPackage(name, version string) *scannerv1.Package {
	return &scannerv1.Package{Ecosystem: "Go", Name: name, Version: version}
}

func match(t testing.TB, s *Store, packages ...*scannerv1.Package) Matches {
	t.Helper()
	m, err := s.Match(t.Context(), packages)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// ids are the names of what is found in packages, joined.
func ids(t testing.TB, s *Store, packages ...*scannerv1.Package) string {
	t.Helper()
	var found []string
	for _, v := range match(t, s, packages...).Vulnerabilities {
		found = append(found, v.GetId())
	}
	return strings.Join(found, " ")
}

func TestMatchOfGosDatabase(t *testing.T) {
	s := open(t, t.TempDir(), sharedGo(t))
	m := match(t, s,
		&scannerv1.Package{Ecosystem: "Go", Name: "golang.org/x/crypto", Version: "v0.0.0-20190308221718-c2843e01d9a2", Locations: []string{"usr/bin/b"}},
		&scannerv1.Package{Ecosystem: "Go", Name: "golang.org/x/crypto", Version: "v0.0.0-20190308221718-c2843e01d9a2", Locations: []string{"usr/bin/a"}},
		goPackage("example.org/none", "v1.0.0"),
	)
	var got *scannerv1.Vulnerability
	for _, v := range m.Vulnerabilities {
		if v.GetId() == "CVE-2020-9283" {
			got = v
		}
	}
	want := &scannerv1.Vulnerability{
		Id: "CVE-2020-9283", Aliases: []string{"GHSA-ffhg-7mh4-33c4", "GO-2020-0012"}, Package: "golang.org/x/crypto",
		Version: "v0.0.0-20190308221718-c2843e01d9a2", Ecosystem: "Go", FixedVersion: "0.0.0-20200220183623-bac4c82f6975",
		FixedAt: &timestamppb.Timestamp{Seconds: 1618430692}, PublishedAt: &timestamppb.Timestamp{Seconds: 1618430692},
		Summary:   "Panic due to improper verification of cryptographic signatures in golang.org/x/crypto/ssh",
		Locations: []string{"usr/bin/a", "usr/bin/b"},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("CVE-2020-9283 (-want +got):\n%s", diff)
	}
	if len(m.Faults) != 0 {
		t.Errorf("faults = %q, want none", m.Faults)
	}
	for _, tt := range []struct {
		name, version string
		has           string
		hasNot        string
	}{
		{"golang.org/x/net", "v0.0.0-20210226172049-e18ecbb05110", "CVE-2021-33194", ""},
		{"stdlib", "1.16.4", "CVE-2021-33198", ""},
		{"stdlib", "go1.16.5", "", "CVE-2021-33198"},
		{"stdlib", "go1.17beta1", "CVE-2021-39293", "CVE-2021-33198"},
		{"stdlib", "go1.17.1 X:fieldtrack", "", "CVE-2021-39293"},
	} {
		found := " " + ids(t, s, goPackage(tt.name, tt.version)) + " "
		if tt.has != "" && !strings.Contains(found, " "+tt.has+" ") || tt.hasNot != "" && strings.Contains(found, " "+tt.hasNot+" ") {
			t.Errorf("Match(%s %s) = %s, want %s and not %s", tt.name, tt.version, found, tt.has, tt.hasNot)
		}
	}
}

// A module of a real program has a version, or is what was built there: that cannot be compared, and is said only of modules that have
// advisories.
func TestWhatCannotBeJudgedIsSaid(t *testing.T) {
	s := imported(t, goRecord("GO-1", "m", "1.0.0", ""), goRecord("GO-2", "m", "2.0.0", ""),
		debianRecord("DEBIAN-CVE-2024-1", "Debian:12", "openssl", "3.0.1-1", ""),
		`{"id": "X-1", "modified": "2024-01-01T00:00:00Z", "affected": [{"package": {"ecosystem": "Linux", "name": "Kernel"},
			"versions": ["6.1"], "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "5.1"}]}]}]}`)
	for _, tt := range []struct {
		name     string
		packages []*scannerv1.Package
		ids      string
		faults   []string
	}{
		{"built here, with advisories", []*scannerv1.Package{goPackage("m", "(devel)")}, "",
			[]string{`m (devel): 2 of 2 advisories about it could not be judged: GO-1: version "(devel)": not a version of its ecosystem: it does not begin with a number`}},
		{"built here, without", []*scannerv1.Package{goPackage("other", "(devel)")}, "", nil},
		{"no version", []*scannerv1.Package{goPackage("m", "")}, "",
			[]string{`m : 2 of 2 advisories about it could not be judged: GO-1: version "": not a version of its ecosystem: it is empty`}},
		{"ecosystems that nothing is known of", []*scannerv1.Package{
			{Ecosystem: "PyPI", Name: "a", Version: "1"}, {Ecosystem: "PyPI", Name: "b", Version: "1"}, {Ecosystem: "npm", Name: "a", Version: "1"},
			{Ecosystem: "Debian:11", Name: "openssl", Version: "1"}, {Name: "a", Version: "1"},
		}, "", []string{
			"1 package is of an ecosystem that is not known: not matched",
			"1 package is of Debian:11, for which there are no advisories: import them with `palisade vulndb import`",
			"2 packages are of PyPI, for which there are no advisories: import them with `palisade vulndb import`",
			"1 package is of npm, for which there are no advisories: import them with `palisade vulndb import`",
		}},
		{"a distribution without a release", []*scannerv1.Package{{Ecosystem: "Debian", Name: "openssl", Version: "1"}}, "",
			[]string{"1 package is of a release of Debian that is not known: most advisories are for one"}},
		{"an ecosystem whose versions nobody can order, listed", []*scannerv1.Package{{Ecosystem: "Linux", Name: "Kernel", Version: "6.1"}}, "X-1", nil},
		{"the same, not listed", []*scannerv1.Package{{Ecosystem: "Linux", Name: "Kernel", Version: "6.2"}}, "",
			[]string{`Kernel 6.2: 1 of 1 advisories about it could not be judged: X-1: version "6.2": unsupported ecosystem Linux`}},
		{"a name that steers the terminal", []*scannerv1.Package{{Ecosystem: "\x1b[2J", Name: "a", Version: "1"}}, "",
			[]string{"1 package is of \\x1b[2J, for which there are no advisories: import them with `palisade vulndb import`"}},
		{"a version that steers the terminal", []*scannerv1.Package{goPackage("m", "1.0\n\x1b[2J")}, "",
			[]string{`m 1.0\x0a\x1b[2J: 2 of 2 advisories about it could not be judged: GO-1: version "1.0\x0a\x1b[2J": not a version of its ecosystem: it has spaces or control characters`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := match(t, s, tt.packages...)
			if got := ids(t, s, tt.packages...); got != tt.ids {
				t.Errorf("Match() = %q, want %q", got, tt.ids)
			}
			if diff := cmp.Diff(tt.faults, m.Faults); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFaultsAreBounded(t *testing.T) {
	var records []string
	var packages []*scannerv1.Package
	for i := range 30 {
		records = append(records, goRecord(fmt.Sprintf("GO-%d", i), fmt.Sprintf("m%d", i), "1.0.0", ""))
		packages = append(packages, goPackage(fmt.Sprintf("m%d", i), "(devel)"), &scannerv1.Package{Ecosystem: fmt.Sprintf("E%d", i), Name: "a"})
	}
	faults := match(t, imported(t, records...), packages...).Faults
	if len(faults) != 42 || faults[20] != "and of 10 more ecosystems" || faults[41] != "and 10 more packages with advisories that could not be judged" {
		t.Errorf("%d faults: %q", len(faults), faults)
	}
}

// What is advised for all releases of a distribution does not stand for what is advised for one.
func TestAReleaseWithoutAdvisoriesIsSaid(t *testing.T) {
	s := imported(t, debianRecord("DSA-1", "Debian", "openssl", "3.0.1-1", ""), debianRecord("DSA-2", "Debian:12", "openssl", "3.0.1-1", ""))
	for _, tt := range []struct{ ecosystem, ids, fault string }{
		{"Debian:12", "DSA-1 DSA-2", ""},
		{"Debian:13", "DSA-1", "1 package is of Debian:13, for which there are no advisories: import them with `palisade vulndb import`"},
		{"Debian", "DSA-1", "1 package is of a release of Debian that is not known: most advisories are for one"},
	} {
		p := &scannerv1.Package{Ecosystem: tt.ecosystem, Name: "openssl", Version: "3.0.0-1"}
		if got := ids(t, s, p); got != tt.ids {
			t.Errorf("Match(%s) = %q, want %q", tt.ecosystem, got, tt.ids)
		}
		if got := strings.Join(match(t, s, p).Faults, "; "); got != tt.fault {
			t.Errorf("faults for %s = %q, want %q", tt.ecosystem, got, tt.fault)
		}
	}
}

// debianRecord is one about a package of a distribution.
func debianRecord(id, ecosystem, name, fixedVersion, more string) string {
	return fmt.Sprintf(`{"id": %q, "modified": "2024-01-02T00:00:00Z", "published": "2024-01-01T00:00:00Z", %s "affected": [{"package":
		{"ecosystem": %q, "name": %q}, "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": %q}]}]}]}`, id, more, ecosystem, name, fixedVersion)
}

func TestNamesAndReleasesOfEcosystems(t *testing.T) {
	s := imported(t,
		debianRecord("PYSEC-1", "PyPI", "Foo.Bar_baz", "2.0", ""),
		debianRecord("GHSA-1", "Maven", "org.example:lib", "2.0", ""),
		debianRecord("GHSA-2", "NuGet", "Newtonsoft.Json", "2.0.0", ""),
		debianRecord("GHSA-3", "npm", "@scope/lib", "2.0.0", ""),
		debianRecord("DEBIAN-CVE-2024-1", "Debian:12", "openssl", "3.0.1-1+deb12u1", ""),
		debianRecord("DSA-2", "Debian", "openssl", "3.0.1-1", ""),
		debianRecord("UBUNTU-CVE-2024-3", "Ubuntu:22.04:LTS", "curl", "7.81.0-1ubuntu1.2", ""),
		debianRecord("ALPINE-CVE-2024-4", "Alpine:v3.18", "busybox", "1.36.1-r3", ""),
		debianRecord("RLSA-5", "Rocky Linux:9", "openssl-libs", "1:3.0.7-18.el9", ""),
	)
	for _, tt := range []struct{ ecosystem, name, source, version, want string }{
		{"PyPI", "foo-bar.Baz", "", "1.9", "PYSEC-1"},
		{"PyPI", "foobarbaz", "", "1.9", ""},
		{"PyPI", "foo-bar-baz", "", "2.0rc1", "PYSEC-1"},
		{"PyPI", "foo-bar-baz", "", "2.0.post1", ""},
		{"Maven", "org.example:lib", "", "2.0-SNAPSHOT", "GHSA-1"},
		{"Maven", "org.example:other", "", "1.0", ""},
		{"NuGet", "newtonsoft.json", "", "1.0.0", "GHSA-2"},
		{"npm", "@scope/lib", "", "2.0.0-beta.1", "GHSA-3"},
		{"npm", "@Scope/lib", "", "1.0.0", ""},
		{"Debian:12", "libssl3", "openssl", "3.0.1-1", "CVE-2024-1"},
		{"Debian:12", "libssl3", "openssl", "3.0.1-1~bpo1", "CVE-2024-1 DSA-2"},
		{"Debian:12", "openssl", "", "3.0.0-1", "CVE-2024-1 DSA-2"},
		{"Debian:12", "libssl3", "openssl", "3.0.1-1+deb12u1+b1", ""},
		{"Debian:12", "libssl3", "", "3.0.0-1", ""},
		{"Debian:13", "openssl", "", "3.0.0-1", "DSA-2"},
		{"Ubuntu:22.04", "libcurl4", "curl", "7.81.0-1ubuntu1.1", "CVE-2024-3"},
		{"Ubuntu:22.04:LTS", "curl", "", "7.81.0-1ubuntu1.2", ""},
		{"Alpine:3.18", "busybox-binsh", "busybox", "1.36.1-r2", "CVE-2024-4"},
		{"Rocky Linux:9.3", "openssl-libs", "openssl", "1:3.0.7-17.el9", "RLSA-5"},
		{"Rocky Linux:9", "openssl", "openssl", "1:3.0.7-17.el9", ""},
	} {
		p := &scannerv1.Package{Ecosystem: tt.ecosystem, Name: tt.name, Source: tt.source, Version: tt.version}
		if got := ids(t, s, p); got != tt.want {
			t.Errorf("Match(%v) = %q, want %q", p, got, tt.want)
		}
	}
}

func TestAliasesAreOneVulnerability(t *testing.T) {
	vector := `"severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],`
	for _, tt := range []struct {
		name    string
		records []string
		want    []*scannerv1.Vulnerability
	}{
		{"three databases, the rating of one, the smallest fix", []string{
			goRecord("GO-1", "m", "1.2.0", `"aliases": ["CVE-2024-7", "GHSA-a"], "summary": "as Go says",`),
			strings.Replace(goRecord("GHSA-a", "m", "1.1.0", `"aliases": ["CVE-2024-7"],`+vector), "2024-01-01", "2024-01-05", 1),
		}, []*scannerv1.Vulnerability{{
			Id: "CVE-2024-7", Aliases: []string{"GHSA-a", "GO-1"}, Severity: scannerv1.Severity_SEVERITY_CRITICAL, Score: 9.8,
			Vector: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", FixedVersion: "1.1.0", Summary: "as Go says",
			FixedAt: &timestamppb.Timestamp{Seconds: 1704412800}, PublishedAt: &timestamppb.Timestamp{Seconds: 1704067200},
			RiskFactors: []string{"network", "no-interaction", "no-privileges"},
		}}},
		{"an alias in another ecosystem rates", []string{
			goRecord("GO-1", "m", "1.0.0", `"aliases": ["GHSA-a"],`),
			debianRecord("X-2", "npm", "lib", "1.0.0", `"aliases": ["GHSA-a"], "database_specific": {"severity": "MODERATE"},`),
		}, []*scannerv1.Vulnerability{{Id: "GO-1", Aliases: []string{"GHSA-a", "X-2"}, Severity: scannerv1.Severity_SEVERITY_MEDIUM}}},
		{"its own rating goes before an alias's", []string{
			goRecord("GO-1", "m", "1.0.0", `"aliases": ["CVE-2024-7"], "database_specific": {"severity": "LOW"},`),
			debianRecord("X-2", "npm", "lib", "1.0.0", `"aliases": ["CVE-2024-7"],`+vector),
		}, []*scannerv1.Vulnerability{{Id: "CVE-2024-7", Aliases: []string{"GO-1", "X-2"}, Severity: scannerv1.Severity_SEVERITY_LOW}}},
		{"several CVEs: the first", []string{goRecord("GO-1", "m", "1.0.0", `"aliases": ["CVE-2024-10000", "CVE-2024-9999", "CVE-2024-10000"],`)},
			[]*scannerv1.Vulnerability{{Id: "CVE-2024-9999", Aliases: []string{"CVE-2024-10000", "GO-1"}}}},
		{"several CVEs upstream: each", []string{
			goRecord("DSA-1", "m", "1.0.0", `"upstream": ["CVE-2024-2", "CVE-2024-1"],`),
			goRecord("DEBIAN-CVE-2024-1", "m", "1.0.0", `"upstream": ["CVE-2024-1"],`),
		}, []*scannerv1.Vulnerability{{Id: "CVE-2024-1", Aliases: []string{"DEBIAN-CVE-2024-1", "DSA-1"}}, {Id: "CVE-2024-2", Aliases: []string{"DSA-1"}}}},
		{"related is not the same", []string{goRecord("GO-1", "m", "1.0.0", `"related": ["CVE-2024-1"],`)}, []*scannerv1.Vulnerability{{Id: "GO-1"}}},
		{"an alias that is no id", []string{goRecord("GO-1", "m", "1.0.0", `"aliases": ["CVE-1\u001b", ""],`)}, []*scannerv1.Vulnerability{{Id: "GO-1"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := match(t, imported(t, tt.records...), goPackage("m", "0.9.0")).Vulnerabilities
			for i, v := range got {
				v.Package, v.Version, v.Ecosystem = "", "", ""
				if i < len(tt.want) && tt.want[i].FixedVersion == "" {
					v.FixedVersion, v.FixedAt, v.PublishedAt = "", nil, nil
				}
			}
			if diff := cmp.Diff(tt.want, got, protocmp.Transform()); diff != "" {
				t.Errorf("Match() (-want +got):\n%s", diff)
			}
		})
	}
}

// One record with a thousand aliases would make one vulnerability of all of them.
func TestAWrongAliasJoinsNoMoreThanItsShare(t *testing.T) {
	var aliases []string
	for i := range 1000 {
		aliases = append(aliases, fmt.Sprintf(`"CVE-2024-%d"`, 1000+i))
	}
	s := imported(t, goRecord("GO-1", "m", "1.0.0", `"aliases": [`+strings.Join(aliases, ",")+`],`))
	if got := s.Metadata().LooseAliases; got != 1001-maxAlike {
		t.Errorf("LooseAliases = %d, want %d", got, 1001-maxAlike)
	}
	found := match(t, s, goPackage("m", "0.9.0")).Vulnerabilities
	if len(found) != 1 || len(found[0].GetAliases()) != maxAlike-1 {
		t.Errorf("%d vulnerabilities, with %d aliases, want 1 with %d", len(found), len(found[0].GetAliases()), maxAlike-1)
	}
}

func TestWorstFirst(t *testing.T) {
	rated := func(word string) string { return `"database_specific": {"severity": "` + word + `"},` }
	unfixed := strings.Replace(goRecord("GO-4", "m", "9", rated("HIGH")), `, {"fixed": "9"}`, "", 1)
	s := imported(t, goRecord("GO-1", "m", "1.0.0", ""), goRecord("GO-2", "m", "1.0.0", rated("LOW")), goRecord("GO-3", "n", "1.0.0", rated("HIGH")),
		unfixed, goRecord("GO-5", "m", "1.0.0", rated("HIGH")), goRecord("GO-6", "m", "1.0.0", rated("CRITICAL")))
	if got, want := ids(t, s, goPackage("n", "0.9.0"), goPackage("m", "0.9.0")), "GO-6 GO-5 GO-3 GO-4 GO-2 GO-1"; got != want {
		t.Errorf("Match() = %s, want %s", got, want)
	}
}

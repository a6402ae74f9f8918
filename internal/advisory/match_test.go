package advisory

import (
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
		{"stdlib", "go1.17beta1", "CVE-2021-33198", ""},
		{"toolchain", "go1.16.4 X:fieldtrack", "", "CVE-2021-33198"},
	} {
		found := " " + ids(t, s, goPackage(tt.name, tt.version)) + " "
		if tt.has != "" && !strings.Contains(found, " "+tt.has+" ") || tt.hasNot != "" && strings.Contains(found, " "+tt.hasNot+" ") {
			t.Errorf("Match(%s %s) = %s, want %s and not %s", tt.name, tt.version, found, tt.has, tt.hasNot)
		}
	}
}

func TestTriviaToCheck(t *testing.T) {
	s := open(t, t.TempDir(), sharedGo(t))
	for _, p := range [][2]string{{"golang.org/x/net", "v0.0.0-20210226172049-e18ecbb05110"}, {"stdlib", "1.16.4"}, {"stdlib", "go1.17beta1"}, {"stdlib", "1.26.7"}, {"github.com/docker/docker", "28.0.0+incompatible"}} {
		t.Log(p, ids(t, s, goPackage(p[0], p[1])))
	}
}

package advisory

import (
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
)

func TestDebian(t *testing.T) {
	s := open(t, t.TempDir(), "testdata/debian")
	if m := s.Metadata(); m.Advisories != 7 || m.Faults != 0 || m.Unrated != 1 || m.Ecosystems["Debian:12"] != 7 || m.Sources[0].Others != 1 {
		t.Fatalf("Metadata() = %+v", m)
	}
	debian := func(name, source, version string) *scannerv1.Package {
		return &scannerv1.Package{Ecosystem: "Debian:12", Name: name, Source: source, Version: version}
	}
	for _, tt := range []struct {
		p    *scannerv1.Package
		want string
	}{
		{debian("libssl3", "openssl", "3.0.11-1~deb12u2"), ""},
		{debian("libssl3", "openssl", "3.0.19-1~deb12u2"), ""},
		{debian("libc6", "glibc", "2.36-9"), "CVE-2023-4911 CVE-2024-2961"},
		{debian("libc-bin", "glibc", "2.36-9+deb12u5"), "CVE-2024-2961"},
		{debian("libc6", "glibc", "2.36-9+deb12u14"), ""},
		{debian("libcurl4", "curl", "7.88.1-10+deb12u3"), "CVE-2023-38545"},
		{debian("zlib1g", "zlib", "1:1.2.13.dfsg-1"), "CVE-2023-45853"},
		{debian("apt", "", "2.6.1"), "CVE-2011-3374"},
	} {
		if got := ids(t, s, tt.p); got != tt.want {
			t.Errorf("Match(%v) = %q, want %q", tt.p, got, tt.want)
		}
	}
	// The binary package's own version says nothing where the source has another (dpkg's "Source: name (version)").
	binary := debian("libssl3", "openssl", "1:99")
	binary.SourceVersion = "3.0.9-1"
	if got := ids(t, s, binary); got != "CVE-2023-5363" {
		t.Errorf("Match(%v) = %q, want CVE-2023-5363", binary, got)
	}
	binary.Version, binary.SourceVersion = "3.0.9-1", "3.0.11-1~deb12u2"
	if got := ids(t, s, binary); got != "" {
		t.Errorf("Match(%v) = %q, want nothing", binary, got)
	}
	got := match(t, s, debian("libssl3", "openssl", "3.0.9-1")).Vulnerabilities
	want := []*scannerv1.Vulnerability{{
		Id: "CVE-2023-5363", Aliases: []string{"DEBIAN-CVE-2023-5363", "DSA-5532-1"}, Severity: high, Score: 7.5,
		Vector: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N", Package: "libssl3", Version: "3.0.9-1", Ecosystem: "Debian:12",
		FixedVersion: "3.0.11-1~deb12u2", FixedAt: timestamppb.New(timeOf("2023-10-24T00:00:00Z")), PublishedAt: timestamppb.New(timeOf("2023-10-24T00:00:00Z")),
		Summary:     "OpenSSL processes key and initialisation vector lengths wrongly for some symmetric ciphers, which truncates or overruns them.",
		RiskFactors: []string{"network", "no-interaction", "no-privileges"},
	}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("Match(libssl3) (-want +got):\n%s", diff)
	}
	if got := match(t, s, debian("apt", "", "2.6.1")).Vulnerabilities[0]; got.GetSeverity() != low || got.GetFixedVersion() != "" || got.GetFixedAt() != nil {
		t.Errorf("apt: %v, want low by its urgency, and no fix", got)
	}
}

// TestDebiansOrder compares versions as dpkg itself does.
func TestDebiansOrder(t *testing.T) {
	dpkg, err := exec.LookPath("dpkg")
	if err != nil {
		t.Skip("no dpkg here")
	}
	versions := []string{
		"0", "1.0", "1.0-0", "1.0-1", "1.0-1+b1", "1.0-1~bpo12+1", "1.0~rc1-1", "1.0.0", "1.0a", "1.0+dfsg-1", "1:0.1-1", "2.36-9+deb12u14", "2.36-9+deb12u3",
		"3.0.11-1~deb12u2", "3.0.11-1", "1:1.2.13.dfsg-1", "1.10-1", "1.9-1", "1.0-1ubuntu0.1", "1.0-1.1",
	}
	for _, a := range versions {
		s := subject{ecosystem: "Debian:12", version: a}
		for _, b := range versions {
			want := exec.Command(dpkg, "--compare-versions", a, "lt", b).Run() == nil
			if got := s.before(b, false); got != want {
				t.Errorf("%s before %s = %v, dpkg says %v", a, b, got, want)
			}
		}
	}
}

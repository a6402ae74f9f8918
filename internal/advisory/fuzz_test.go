package advisory

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
)

func timeOf(text string) time.Time {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return at
}

// seeds are records as databases write them.
func seeds(f *testing.F) []string {
	seeds := []string{
		goRecord("GO-1", "m", "1.0.0", `"aliases": ["CVE-2024-1", "GHSA-a"],`),
		debianRecord("X-1", "PyPI", "a", "1.0rc1", `"severity": [{"type": "CVSS_V4", "score": "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N"}],`),
		debianRecord("X-2", "Alpine:v3.18", "a", "1.0-r1", `"severity": [{"type": "CVSS_V2", "score": "AV:N/AC:L/Au:N/C:P/I:P/A:P"}],`),
		debianRecord("X-3", "Maven", "a:b", "1.0-alpha", ""), debianRecord("X-4", "RubyGems", "a", "1.0.a", ""), debianRecord("X-5", "AlmaLinux:9", "a", "1:1.0-1.el9", ""),
		debianRecord("X-6", "Packagist", "a/b", "1.0", ""), debianRecord("X-7", "NuGet", "a", "1.0", ""), debianRecord("X-8", "Hackage", "a", "1.0", ""),
		debianRecord("X-9", "CRAN", "a", "1.0-1", ""), debianRecord("X-10", "Pub", "a", "1.0.0", ""),
	}
	paths, err := filepath.Glob("testdata/debian/*.json")
	if err != nil || len(paths) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, string(raw))
	}
	return seeds
}

// FuzzRecord reads any record, and judges a package of any version by what it says: no panic, and a version is affected by itself if
// it is listed.
func FuzzRecord(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add([]byte(seed), "1.0.0")
		f.Add([]byte(seed), "1:0~rc1-2+b1")
	}
	f.Fuzz(func(t *testing.T, raw []byte, version string) {
		e, err := parseRecord(raw)
		if err != nil {
			return
		}
		for _, p := range e.packages {
			s := subject{ecosystem: p.ecosystem, version: version}
			if affected, err := s.affected(&p.record); err == nil && affected {
				s.fix(&p.record)
			}
			if len(p.record.Versions) > 0 {
				own := subject{ecosystem: p.ecosystem, version: p.record.Versions[0]}
				if affected, _ := own.affected(&p.record); !affected {
					t.Errorf("%q is listed, and not affected", own.version)
				}
			}
			if fix := s.fix(&p.record); fix != "" && !s.before(fix, p.record.semver()) && !s.before(fix, !p.record.semver()) {
				t.Errorf("fix %q is not above %q", fix, version)
			}
		}
	})
}

// FuzzImport imports any archive. What is imported can be opened, is whole, and can be asked.
func FuzzImport(f *testing.F) {
	var pairs []string
	for i, seed := range seeds(f) {
		pairs = append(pairs, string(rune('a'+i))+".json", seed)
	}
	whole := zipped(f, pairs...)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(zipped(f, "../a.json", pairs[1], "b.json", "{", "c/", "", "d.txt", "x"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		path, directory := filepath.Join(t.TempDir(), "x.zip"), t.TempDir()
		writeFile(t, path, raw)
		m, err := Import(t.Context(), []string{path}, directory, nil)
		if err != nil {
			if _, err := Open(directory); !errors.Is(err, ErrNone) {
				t.Errorf("Open() after an import that failed = %v, want ErrNone", err)
			}
			return
		}
		s, err := Open(directory)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Verify(t.Context()); err != nil {
			t.Error(err)
		}
		for ecosystem := range m.Ecosystems {
			if _, err := s.Match(t.Context(), []*scannerv1.Package{{Ecosystem: ecosystem, Name: "a", Version: "1"}}); err != nil {
				t.Error(err)
			}
		}
	})
}

// FuzzStore opens any file as a store.
func FuzzStore(f *testing.F) {
	directory := f.TempDir()
	open(f, directory, "testdata/debian")
	raw, err := os.ReadFile(filepath.Join(directory, fileName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(raw[len(raw)-36:])
	f.Fuzz(func(t *testing.T, raw []byte) {
		directory := t.TempDir()
		writeFile(t, filepath.Join(directory, fileName), raw)
		s, err := Open(directory)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("Open() = %v, want ErrDamaged", err)
			}
			return
		}
		defer s.Close()
		if err := s.Verify(t.Context()); err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("Verify() = %v, want ErrDamaged", err)
		}
		_, err = s.Match(t.Context(), []*scannerv1.Package{{Ecosystem: "Debian:12", Name: "apt", Version: "1"}})
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("Match() = %v, want ErrDamaged", err)
		}
	})
}

// FuzzVersions compares any two versions by the rules of each ecosystem: images choose them.
func FuzzVersions(f *testing.F) {
	ecosystems := []string{
		"AlmaLinux", "Alpine", "CRAN", "Debian", "Go", "Hackage", "Maven", "NuGet", "Packagist", "Pub", "PyPI", "RubyGems", "SUSE", "crates.io", "npm",
	}
	for _, pair := range [][2]string{
		{"1.0.0", "1.0.0-rc.1+b"}, {"1:1.0~rc1-2+deb12u1", "1.0^git1-1.el9"}, {"1.0_alpha1-r1", "1.0a_p2"}, {"1!2.0.post1.dev2+local", "2.0rc1"}, {"1.0-SNAPSHOT", "1.0.GA"},
	} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, ecosystem := range ecosystems {
			x, y := subject{ecosystem: ecosystem, version: a}, subject{ecosystem: ecosystem, version: b}
			there, err := x.compare(b, false)
			back, backErr := y.compare(a, false)
			if (err == nil) != (backErr == nil) {
				t.Errorf("%s: %q to %q: %v, back: %v", ecosystem, a, b, err, backErr)
			}
			if err == nil && there != -back {
				t.Errorf("%s: %q to %q is %d, back %d", ecosystem, a, b, there, back)
			}
		}
	})
}

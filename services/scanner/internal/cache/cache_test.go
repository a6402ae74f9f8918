package cache_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/services/scanner/internal/cache"
)

func digest(n int) string { return fmt.Sprintf("sha256:%064x", n) }

func entry(n int) cache.Entry {
	return cache.Entry{
		Scanned: &scannerv1.Report{Packages: []*scannerv1.Package{{Name: "musl", Version: "1", Ecosystem: "Alpine:v3.20"}}, Faults: []string{"scan"}},
		Matched: &scannerv1.Report{
			Image: fmt.Sprintf("app:%d", n), ImageDigest: digest(n), ScannedAt: timestamppb.New(time.Unix(1000, 0)), AdvisoriesAt: timestamppb.New(time.Unix(500, 0)),
			Vulnerabilities: []*scannerv1.Vulnerability{{Id: "CVE-1"}}, Faults: []string{"scan", "match"},
		},
	}
}

func open(t *testing.T, dir string, limits cache.Limits) *cache.Cache {
	t.Helper()
	c, err := cache.Open(dir, limits)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func put(t *testing.T, c *cache.Cache, e cache.Entry) {
	t.Helper()
	if err := c.Put(e); err != nil {
		t.Fatal(err)
	}
}

func TestReportsAreKept(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".new-1"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := open(t, dir, cache.Limits{Reports: 10, MiB: 1})
	put(t, c, entry(2))
	put(t, c, entry(1))
	put(t, c, entry(1)) // again
	c = open(t, dir, cache.Limits{Reports: 10, MiB: 1})
	got, err := c.Get(digest(1))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(entry(1), got, protocmp.Transform()); diff != "" {
		t.Errorf("Get (-want +got):\n%s", diff)
	}
	if r := got.Report(); len(r.GetPackages()) != 1 || len(r.GetVulnerabilities()) != 1 || len(r.GetFaults()) != 2 || r.GetImage() != "app:1" {
		t.Errorf("Report() = %v", r)
	}
	list, err := c.List()
	if err != nil || len(list) != 2 || list[0].GetImage() != "app:1" || list[1].GetImageDigest() != digest(2) || len(list[0].GetVulnerabilities()) != 0 {
		t.Errorf("List() = %v, %v", list, err)
	}
	if _, err := c.Get(digest(3)); !errors.Is(err, cache.ErrNone) {
		t.Errorf("Get(unknown) = %v, want ErrNone", err)
	}
}

func TestTheOldestGoFirst(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, cache.Limits{Reports: 3, MiB: 1})
	for n := range 5 {
		put(t, c, entry(n))
		when := time.Unix(int64(1000+n), 0)
		if err := os.Chtimes(filepath.Join(dir, strings.TrimPrefix(digest(n), "sha256:")), when, when); err != nil {
			t.Fatal(err)
		}
	}
	list, err := c.List()
	if err != nil || len(list) != 3 || list[0].GetImage() != "app:2" {
		t.Errorf("List() = %v, %v, want 2, 3 and 4", list, err)
	}
	big := entry(9)
	big.Scanned.Faults = []string{strings.Repeat("x", 900<<10)}
	put(t, c, big)
	big = entry(10)
	big.Scanned.Faults = []string{strings.Repeat("x", 900<<10)}
	put(t, c, big)
	if list, err := c.List(); err != nil || len(list) != 1 || list[0].GetImage() != "app:10" {
		t.Errorf("List() = %v, %v, want the last alone: two have more than a MiB", list, err)
	}
	big.Scanned.Faults = []string{strings.Repeat("x", 2<<20)}
	if err := c.Put(big); err == nil {
		t.Error("a report larger than all may be was kept")
	}
}

// TestDamagedReportsAreNone flips a bit in every byte.
func TestDamagedReportsAreNone(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, cache.Limits{Reports: 3, MiB: 1})
	put(t, c, entry(1))
	path := filepath.Join(dir, strings.TrimPrefix(digest(1), "sha256:"))
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range content {
		damaged := append([]byte{}, content...)
		damaged[i] ^= 1 << (i % 8)
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(digest(1)); !errors.Is(err, cache.ErrNone) {
			t.Fatalf("Get with byte %d damaged = %v, want ErrNone", i, err)
		}
		if _, err := c.List(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(digest(1)); !errors.Is(err, cache.ErrNone) {
		t.Errorf("Get of an empty file = %v, want ErrNone", err)
	}
}

func TestNamesAreDigests(t *testing.T) {
	c := open(t, t.TempDir(), cache.Limits{Reports: 3, MiB: 1})
	for _, name := range []string{"", "sha256:", "../../etc/passwd", "sha256:../" + strings.Repeat("a", 61), digest(1) + "\n", "sha512:" + strings.Repeat("a", 64)} {
		e := entry(1)
		e.Matched.ImageDigest = name
		if err := c.Put(e); err == nil {
			t.Errorf("Put(%q) = nil, want an error", name)
		}
		if _, err := c.Get(name); !errors.Is(err, cache.ErrNone) {
			t.Errorf("Get(%q) = %v, want ErrNone", name, err)
		}
	}
}

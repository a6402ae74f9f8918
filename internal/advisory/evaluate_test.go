package advisory

import (
	"archive/zip"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/semver"
)

// The cases are those that the schema's text tells of, and what data in the field is like.
func TestEvaluation(t *testing.T) {
	type versions map[string]bool
	tests := []struct {
		name, affected string
		want           versions          // whether each is affected
		fix            map[string]string // of some
	}{
		{"from the beginning to a fix", `"ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "1.2.0"}]}]`,
			versions{"0.0.0": true, "0.0.0-alpha": true, "1.1.9": true, "1.2.0-rc.1": true, "1.2.0": false, "1.10.0": false}, map[string]string{"1.0.0": "1.2.0"}},
		{"0.0.0 is not the beginning", `"ranges": [{"type": "SEMVER", "events": [{"introduced": "0.0.0"}, {"fixed": "1.2.0"}]}]`,
			versions{"0.0.0-alpha": false, "0.0.0": true}, nil},
		{"no end", `"ranges": [{"type": "SEMVER", "events": [{"introduced": "1.0.0"}]}]`, versions{"0.9.9": false, "1.0.0": true, "99.0.0": true}, map[string]string{"1.0.0": ""}},
		{"last affected", `"ranges": [{"type": "SEMVER", "events": [{"introduced": "1.0.0"}, {"last_affected": "1.2.0"}]}]`,
			versions{"1.0.0": true, "1.2.0": true, "1.2.1": false, "1.2.0+build": true}, map[string]string{"1.0.0": ""}},
		{"introduced again", `"ranges": [{"type": "SEMVER", "events": [{"introduced": "1.0.0"}, {"fixed": "1.0.2"}, {"introduced": "1.1.0"}, {"fixed": "1.1.3"}]}]`,
			versions{"1.0.1": true, "1.0.2": false, "1.0.9": false, "1.1.0": true, "1.1.2": true, "1.1.3": false}, map[string]string{"1.0.1": "1.0.2", "1.1.1": "1.1.3"}},
		{"events in no order", `"ranges": [{"type": "SEMVER", "events": [{"fixed": "1.1.3"}, {"introduced": "1.1.0"}, {"fixed": "1.0.2"}, {"introduced": "0"}]}]`,
			versions{"0.1.0": true, "1.0.2": false, "1.1.2": true, "1.1.3": false}, map[string]string{"0.1.0": "1.0.2"}},
		{"several ranges", `"ranges": [{"type": "SEMVER", "events": [{"introduced": "1.0.0"}, {"fixed": "1.0.2"}]}, {"type": "SEMVER", "events": [{"introduced": "2.0.0"}, {"fixed": "2.0.1"}]}]`,
			versions{"1.0.1": true, "1.5.0": false, "2.0.0": true, "2.0.1": false}, map[string]string{"1.0.0": "1.0.2", "2.0.0": "2.0.1"}},
		{"a fix that is within another range is none", `"ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "1.5.0"}]}, {"type": "SEMVER", "events": [{"introduced": "1.4.0"}, {"fixed": "1.8.0"}]}]`,
			versions{"1.0.0": true, "1.6.0": true, "1.8.0": false}, map[string]string{"1.0.0": "1.8.0"}},
		{"an empty range", `"ranges": [{"type": "SEMVER", "events": [{"introduced": "1.0.0"}, {"fixed": "1.0.0"}]}]`, versions{"0.9.0": false, "1.0.0": false, "1.1.0": false}, nil},
		{"a limit", `"ranges": [{"type": "SEMVER", "events": [{"introduced": "1.0.0"}, {"limit": "2.0.0"}]}]`, versions{"1.9.9": true, "2.0.0": false, "3.0.0": false}, nil},
		{"one of several limits", `"ranges": [{"type": "SEMVER", "events": [{"introduced": "1.0.0"}, {"limit": "2.0.0"}, {"limit": "3.0.0"}]}]`, versions{"2.5.0": true, "3.0.0": false}, nil},
		{"no limit, said aloud", `"ranges": [{"type": "SEMVER", "events": [{"introduced": "1.0.0"}, {"limit": "*"}]}]`, versions{"0.1.0": false, "9.0.0": true}, nil},
		{"listed", `"versions": ["1.0.0", "1.0.5"]`, versions{"1.0.0": true, "1.0.1": false, "1.0.5": true}, nil},
		{"listed, beyond the range", `"versions": ["1.0.0", "3.0.0"], "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "2.0.0"}]}]`,
			versions{"1.0.0": true, "1.5.0": true, "2.0.0": false, "3.0.0": true}, map[string]string{"1.5.0": "2.0.0"}},
		{"commits are not looked at", `"versions": ["1.0.0"], "ranges": [{"type": "GIT", "repo": "https://x", "events": [{"introduced": "0"}]}]`, versions{"1.0.0": true, "1.0.1": false}, nil},
		{"pseudo-versions", `"ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "0.0.0-20200220183623-bac4c82f6975"}]}]`,
			versions{"v0.0.0-20200220183622-ffffffffffff": true, "v0.0.0-20200220183623-bac4c82f6975": false, "v0.1.0": false}, nil},
		{"incompatible", `"ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "2.0.0+incompatible"}]}]`, versions{"v1.9.0+incompatible": true, "v2.0.0+incompatible": false}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := imported(t, `{"id": "X-1", "modified": "2024-01-01T00:00:00Z", "affected": [{"package": {"ecosystem": "Go", "name": "m"}, `+tt.affected+`}]}`)
			for version, want := range tt.want {
				if got := ids(t, s, goPackage("m", version)) == "X-1"; got != want {
					t.Errorf("%s is affected = %v, want %v", version, got, want)
				}
			}
			for version, want := range tt.fix {
				if got := match(t, s, goPackage("m", version)).Vulnerabilities; len(got) != 1 || got[0].GetFixedVersion() != want {
					t.Errorf("fix for %s = %v, want %q", version, got, want)
				}
			}
		})
	}
}

// TestMatchAgreesWithGosOwnOrder judges every module of the real database at, below and above each version that its advisories name,
// once with Match and once by counting intervals with Go's own semver package.
func TestMatchAgreesWithGosOwnOrder(t *testing.T) {
	path := sharedGo(t)
	s := open(t, t.TempDir(), path)
	advisories := rawAdvisories(t, path)
	compared, affected := 0, 0
	for module, versions := range namedVersions(advisories) {
		for _, version := range versions {
			var want []string
			for _, a := range advisories {
				if a.affects(module, version) {
					want = append(want, a.ID)
				}
			}
			var got []string
			for _, v := range match(t, s, goPackage(module, version)).Vulnerabilities {
				for _, id := range append(v.GetAliases(), v.GetId()) {
					if strings.HasPrefix(id, "GO-") {
						got = append(got, id)
					}
				}
			}
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s %s: got %q, want %q", module, version, got, want)
			}
			compared, affected = compared+1, affected+len(want)
		}
	}
	t.Logf("%d modules and versions, %d advisories that apply", compared, affected)
	if compared < 1000 || affected < 5000 {
		t.Errorf("%d compared with %d advisories, want thousands", compared, affected)
	}
}

// rawAdvisory is a record as the test reads it.
type rawAdvisory struct {
	ID, Withdrawn string
	Affected      []struct {
		Package struct{ Name string }
		Ranges  []struct{ Events []map[string]string }
	}
}

// affects pairs each introduced with the next fixed: so is Go's own database written.
func (a rawAdvisory) affects(module, version string) bool {
	if a.Withdrawn != "" {
		return false
	}
	for _, p := range a.Affected {
		for _, r := range p.Ranges {
			for i := 0; p.Package.Name == module && i < len(r.Events); i += 2 {
				begins := r.Events[i]["introduced"]
				ends := ""
				if i+1 < len(r.Events) {
					ends = r.Events[i+1]["fixed"]
				}
				if (begins == "0" || semver.Compare("v"+version, "v"+begins) >= 0) && (ends == "" || semver.Compare("v"+version, "v"+ends) < 0) {
					return true
				}
			}
		}
	}
	return false
}

func rawAdvisories(t *testing.T, path string) []rawAdvisory {
	archive, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	var advisories []rawAdvisory
	for _, f := range archive.File {
		raw, err := readRecord(f.Open)
		var a rawAdvisory
		if err == nil {
			err = json.Unmarshal(raw, &a)
		}
		if err != nil {
			t.Fatal(err)
		}
		advisories = append(advisories, a)
	}
	return advisories
}

// namedVersions are, for each module, the versions that advisories name and their neighbours.
func namedVersions(advisories []rawAdvisory) map[string][]string {
	named := map[string][]string{}
	for _, a := range advisories {
		for _, p := range a.Affected {
			for _, r := range p.Ranges {
				for _, e := range r.Events {
					for _, version := range e {
						if version == "0" {
							version = "0.0.0"
						}
						named[p.Package.Name] = append(named[p.Package.Name], version)
						if semver.Prerelease("v"+version) == "" {
							var x, y, z int
							if n, _ := fmt.Sscanf(version, "%d.%d.%d", &x, &y, &z); n == 3 {
								named[p.Package.Name] = append(named[p.Package.Name], version+"-rc.1", fmt.Sprintf("%d.%d.%d", x, y, z+1), fmt.Sprintf("%d.%d.%d", x, y, max(z-1, 0)))
							}
						}
					}
				}
			}
		}
	}
	for module, versions := range named {
		slices.Sort(versions)
		named[module] = slices.Compact(versions)
	}
	return named
}

package advisory

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// goAdvisories are a part of Go's own database, real data.
const goAdvisories = "../../../shared/osv/go.zip"

// sharedGo is the path of Go's advisories; without them the test is skipped.
func sharedGo(t testing.TB) string {
	for _, path := range []string{goAdvisories, "/work/shared/osv/go.zip"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skip("no ../shared/osv/go.zip: Go's advisories are not here")
	return ""
}

// imported makes a store of records, written as files of one directory.
func imported(t testing.TB, records ...string) *Store {
	t.Helper()
	source, directory := t.TempDir(), t.TempDir()
	for i, r := range records {
		writeFile(t, filepath.Join(source, fmt.Sprintf("%d.json", i)), []byte(r))
	}
	return open(t, directory, source)
}

func open(t testing.TB, directory string, paths ...string) *Store {
	t.Helper()
	if _, err := Import(t.Context(), paths, directory, nil); err != nil {
		t.Fatal(err)
	}
	s, err := Open(directory)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func writeFile(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// zipped makes an archive of names and contents, in turn.
func zipped(t testing.TB, pairs ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	archive := zip.NewWriter(&out)
	for i := 0; i < len(pairs); i += 2 {
		w, err := archive.Create(pairs[i])
		if err == nil {
			_, err = w.Write([]byte(pairs[i+1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// goRecord is a record about one module.
func goRecord(id, module, fixedVersion, more string) string {
	return fmt.Sprintf(`{"id": %q, "modified": "2024-01-02T00:00:00Z", "published": "2024-01-01T00:00:00Z", %s "affected": [{"package":
		{"ecosystem": "Go", "name": %q}, "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": %q}]}]}]}`, id, more, module, fixedVersion)
}

func TestImportOfGosDatabase(t *testing.T) {
	path := sharedGo(t)
	s := open(t, t.TempDir(), path)
	m := s.Metadata()
	want := Metadata{
		ImportedAt: m.ImportedAt, Sources: []Source{{Path: path, Records: 311}}, Advisories: 310, Withdrawn: 1, Unrated: 310, Ecosystems: map[string]int{"Go": 310},
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Errorf("Metadata() (-want +got):\n%s", diff)
	}
	if m.ImportedAt.IsZero() {
		t.Error("ImportedAt is not set")
	}
	if err := s.Verify(t.Context()); err != nil {
		t.Errorf("Verify() = %v", err)
	}
}

func TestFaultsOfRecordsAreListedAndTheRestIsImported(t *testing.T) {
	tests := []struct{ name, record, want string }{
		{"no JSON", `{"id": "X-1"`, "not an OSV record"},
		{"a list", `[]`, "not an OSV record"},
		{"no id", `{"modified": "2024-01-01T00:00:00Z"}`, "no id"},
		{"an id that steers the terminal", `{"id": "X-\u001b[2J", "modified": "2024-01-01T00:00:00Z"}`, "not letters"},
		{"no modified", `{"id": "X-1"}`, "no modified"},
		{"a range that never begins", strings.Replace(goRecord("X-1", "m", "1.0.0", ""), "introduced", "fixed", 1), "no event says where it was introduced"},
		{"two in one event", strings.Replace(goRecord("X-1", "m", "1.0.0", ""), `"introduced": "0"`, `"introduced": "0", "limit": "2"`, 1), "2 of introduced"},
		{"an event that is none", strings.Replace(goRecord("X-1", "m", "1.0.0", ""), "fixed", "mended", 1), "0 of introduced"},
		{"a version that is none", goRecord("X-1", "m", "soon", ""), "does not begin with a number"},
		{"a long version", goRecord("X-1", "m", "1."+strings.Repeat("9", 300), ""), "at most 256"},
		{"a range of no type", strings.Replace(goRecord("X-1", "m", "1.0.0", ""), "SEMVER", "OTHER", 1), "type is none of"},
		{"a package without a name", goRecord("X-1", "", "1.0.0", ""), "package without"},
		{"a package with a zero byte", strings.Replace(goRecord("X-1", "m", "1.0.0", ""), `"m"`, `"m\u0000n"`, 1), "zero byte"},
		{"more than a record may have", `{"id": "X-1", "details": "` + strings.Repeat("0", maxRecord) + `"}`, "more than 16 MiB, inflated"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, directory := filepath.Join(t.TempDir(), "all.zip"), t.TempDir()
			writeFile(t, path, zipped(t, "../../etc/x\x1b.json", tt.record, "good.json", goRecord("GO-1", "m", "1.0.0", ""), "README", "x"))
			m, err := Import(t.Context(), []string{path}, directory, nil)
			if err != nil {
				t.Fatal(err)
			}
			if m.Advisories != 1 || m.Faults != 1 || len(m.FaultLines) != 1 || m.Sources[0] != (Source{Path: path, Records: 2, Others: 1}) {
				t.Fatalf("Import() = %+v", m)
			}
			for _, want := range []string{path, `../../etc/x\x1b.json`, tt.want} {
				if !strings.Contains(m.FaultLines[0], want) {
					t.Errorf("fault %q, want it to say %q", m.FaultLines[0], want)
				}
			}
		})
	}
}

func TestAnImportThatFailsLeavesTheOldStoreInForce(t *testing.T) {
	base := t.TempDir()
	good := filepath.Join(base, "good.json")
	writeFile(t, good, []byte(goRecord("GO-1", "m", "1.0.0", "")))
	cut := zipped(t, "a.json", goRecord("GO-2", "m", "2.0.0", ""))
	files := map[string][]byte{
		"cut.zip": cut[:len(cut)-8], "empty.zip": nil, "none.zip": zipped(t, "README", "x"), "bad.json": []byte("{"), "list.txt": []byte("x"),
		"withdrawn.json": []byte(strings.Replace(goRecord("GO-3", "m", "1.0.0", ""), `"published"`, `"withdrawn": "2024-01-03T00:00:00Z", "published"`, 1)),
	}
	for name, content := range files {
		writeFile(t, filepath.Join(base, name), content)
	}
	directory := t.TempDir()
	s := open(t, directory, good)
	for _, tt := range []struct{ path, want string }{
		{"cut.zip", "cut.zip: zip: not a valid zip file"},
		{"empty.zip", "empty.zip: zip: not a valid zip file"},
		{"none.zip", "there is no .json file in"},
		{"bad.json", "none of the 1 records could be read"},
		{"withdrawn.json", "none of the 1 records is in force"},
		{"list.txt", "it is no .zip, no .json and no directory"},
		{"absent.zip", "no such file"},
	} {
		_, err := Import(t.Context(), []string{filepath.Join(base, tt.path)}, directory, nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Import(%s) = %v, want %q", tt.path, err, tt.want)
		}
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Import(canceled, []string{good}, directory, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Import with a context that ended = %v, want its error", err)
	}
	if replaced, err := s.Replaced(); replaced || err != nil {
		t.Errorf("Replaced() = %v, %v, want the store of before in force", replaced, err)
	}
	left, err := os.ReadDir(directory)
	if err != nil || len(left) != 2 {
		t.Errorf("ReadDir() = %v, %v, want the store and the lock", left, err)
	}
}

func TestAnOpenStoreGoesOnWithWhatItOpened(t *testing.T) {
	base, directory := t.TempDir(), t.TempDir()
	for i, id := range []string{"GO-1", "GO-2"} {
		writeFile(t, filepath.Join(base, fmt.Sprintf("%d.json", i)), []byte(goRecord(id, "m", "1.0.0", "")))
	}
	old := open(t, directory, filepath.Join(base, "0.json"))
	// A crash of an import leaves its file behind.
	writeFile(t, filepath.Join(directory, ".new-1"), []byte("half a store"))
	current := open(t, directory, filepath.Join(base, "1.json"))
	for _, tt := range []struct {
		store    *Store
		want     string
		replaced bool
	}{{old, "GO-1", true}, {current, "GO-2", false}} {
		if got := ids(t, tt.store, goPackage("m", "0.1.0")); got != tt.want {
			t.Errorf("Match() = %s, want %s", got, tt.want)
		}
		if replaced, err := tt.store.Replaced(); replaced != tt.replaced || err != nil {
			t.Errorf("Replaced() = %v, %v, want %v", replaced, err, tt.replaced)
		}
	}
	if left, err := os.ReadDir(directory); err != nil || len(left) != 2 {
		t.Errorf("ReadDir() = %v, %v, want the store and the lock", left, err)
	}
}

func TestOneImportAtATime(t *testing.T) {
	directory := t.TempDir()
	lock, err := lockDirectory(directory)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := Import(t.Context(), []string{t.TempDir()}, directory, nil); err == nil || !strings.Contains(err.Error(), "another import") {
		t.Errorf("Import() = %v, want that another is at it", err)
	}
}

func TestTheLaterOfTwoRecordsWithOneIDIsInForce(t *testing.T) {
	older := goRecord("GO-1", "m", "1.0.0", "")
	later := strings.Replace(goRecord("GO-1", "n", "1.0.0", ""), "2024-01-02", "2024-02-02", 1)
	gone := strings.Replace(later, `"published"`, `"withdrawn": "2024-01-03T00:00:00Z", "published"`, 1)
	for _, tt := range []struct {
		name    string
		records []string
		m, n    string
	}{
		{"later last", []string{older, later}, "", "GO-1"},
		{"later first", []string{later, older}, "", "GO-1"},
		{"withdrawn since", []string{older, gone, goRecord("GO-2", "x", "1.0.0", "")}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := imported(t, tt.records...)
			if got := ids(t, s, goPackage("m", "0.1.0")); got != tt.m {
				t.Errorf("Match(m) = %q, want %q", got, tt.m)
			}
			if got := ids(t, s, goPackage("n", "0.1.0")); got != tt.n {
				t.Errorf("Match(n) = %q, want %q", got, tt.n)
			}
			if m := s.Metadata(); m.Advisories != 1 || m.Replaced != 1 {
				t.Errorf("Metadata() = %+v, want 1 advisory, 1 replaced", m)
			}
		})
	}
}

func TestDirectoriesAreReadWithoutFollowingLinks(t *testing.T) {
	source, outside := t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(outside, "x.json"), []byte(goRecord("GO-9", "m", "1.0.0", "")))
	if err := os.Mkdir(filepath.Join(source, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(source, "sub", "a.json"), []byte(goRecord("GO-1", "m", "1.0.0", "")))
	writeFile(t, filepath.Join(source, "b.ZIP"), zipped(t, "d/GO-2.json", goRecord("GO-2", "m", "1.0.0", "")))
	writeFile(t, filepath.Join(source, "index.html"), nil)
	for _, link := range []struct{ to, name string }{{outside, "out"}, {source, "loop"}, {filepath.Join(outside, "x.json"), "x.json"}} {
		if err := os.Symlink(link.to, filepath.Join(source, link.name)); err != nil {
			t.Fatal(err)
		}
	}
	var told []Progress
	if _, err := Import(t.Context(), []string{source}, t.TempDir(), func(p Progress) { told = append(told, p) }); err != nil {
		t.Fatal(err)
	}
	if want := []Progress{{Path: source, Records: 2, Total: 2}}; !cmp.Equal(told, want) {
		t.Errorf("progress = %+v, want %+v", told, want)
	}
}

func TestOpenSaysWhatToDo(t *testing.T) {
	if _, err := Open(t.TempDir()); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "palisade vulndb import") {
		t.Errorf("Open of an empty directory = %v, want ErrNone and what to do", err)
	}
	if _, err := Open("/dev/null"); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("Open below a file = %v, want its error", err)
	}
}

// Whatever byte of a store is damaged, wherever it is cut off: it is said, and said what to do.
func TestADamagedStoreIsAnError(t *testing.T) {
	directory := t.TempDir()
	var records []string
	for i := range 40 {
		records = append(records, goRecord(fmt.Sprintf("GO-%d", i), fmt.Sprintf("m%d", i), "1.0.0", `"aliases": ["CVE-2024-`+fmt.Sprint(1000+i)+`"],`))
	}
	source := t.TempDir()
	for i, r := range records {
		writeFile(t, filepath.Join(source, fmt.Sprintf("%d.json", i)), []byte(r))
	}
	open(t, directory, source)
	path := filepath.Join(directory, fileName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := func(content []byte) error {
		writeFile(t, path, content)
		s, err := Open(directory)
		if err != nil {
			return err
		}
		defer s.Close()
		return s.Verify(t.Context())
	}
	if err := damaged(whole); err != nil {
		t.Fatalf("the whole store: %v", err)
	}
	for i := range whole {
		flipped := bytes.Clone(whole)
		flipped[i] ^= 0x10
		for what, content := range map[string][]byte{"flipped": flipped, "cut": whole[:i]} {
			if err := damaged(content); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "import again with `palisade vulndb import`") {
				t.Fatalf("byte %d %s: %v, want ErrDamaged and what to do", i, what, err)
			}
		}
	}
}

func TestTheStoreIsReadableForOthersAndWritableForNobody(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "a", "b")
	s := imported(t, goRecord("GO-1", "m", "1.0.0", ""))
	info, err := s.in.Stat()
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("mode = %v, %v, want 0644", info.Mode(), err)
	}
	source := filepath.Join(t.TempDir(), "x.json")
	writeFile(t, source, []byte(goRecord("GO-1", "m", "1.0.0", "")))
	open(t, directory, source)
	if info, err := os.Stat(directory); err != nil || info.Mode() != fs.ModeDir|0o755 {
		t.Errorf("mode of the directory = %v, %v, want 0755", info.Mode(), err)
	}
}

// BenchmarkImport measures an import, and says what it holds on to while it is at it.
func BenchmarkImport(b *testing.B) {
	path := sharedGo(b)
	for b.Loop() {
		if _, err := Import(b.Context(), []string{path}, b.TempDir(), nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen says how much memory an open store takes.
func BenchmarkOpen(b *testing.B) {
	directory := b.TempDir()
	if _, err := Import(b.Context(), []string{sharedGo(b)}, directory, nil); err != nil {
		b.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s, err := Open(directory)
	if err != nil {
		b.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	s.Close()
	b.ReportMetric(float64(after.HeapInuse)-float64(before.HeapInuse), "heap-B")
	for b.Loop() {
		s, err := Open(directory)
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

package inventory_test

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/fstest"
	"time"

	"google.golang.org/protobuf/proto"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/services/scanner/internal/inventory"
)

// places are where the extractors look, one each.
var places = []string{
	"var/lib/dpkg/status", "var/lib/dpkg/status.d/libc6", "lib/apk/db/installed", "usr/bin/app", "app.jar", "usr/lib/node_modules/x/package.json",
	"usr/lib/python3/dist-packages/x-1.dist-info/METADATA", "usr/lib/ruby/specifications/x-1.gemspec", "etc/os-release",
}

// rpmPlaces are databases of three kinds.
var rpmPlaces = []string{"var/lib/rpm/Packages", "var/lib/rpm/Packages.db", "var/lib/rpm/rpmdb.sqlite"}

// collect looks at one file of the given content. Whatever that is, there is an error that is expected, or a report that passes its own
// check and can be sent.
func collect(t *testing.T, place string, content []byte, most time.Duration) {
	t.Helper()
	image := fstest.MapFS{
		"etc/os-release": {Data: []byte("ID=debian\nVERSION_ID=\"12\"\n"), Mode: 0o644},
		place:            {Data: content, Mode: 0o755},
	}
	ctx, cancel := context.WithTimeout(t.Context(), most)
	defer cancel()
	report, err := inventory.Collect(ctx, image)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, inventory.ErrTooMany) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := inventory.Check(report); err != nil {
		t.Errorf("Check = %v\n%v", err, report)
	}
	if _, err := proto.Marshal(report); err != nil {
		t.Error(err)
	}
}

func FuzzPackageDatabases(f *testing.F) {
	var jar bytes.Buffer
	archive := zip.NewWriter(&jar)
	w, err := archive.Create("META-INF/maven/a/b/pom.properties")
	if err != nil {
		f.Fatal(err)
	}
	if _, err := w.Write([]byte("groupId=a\nartifactId=b\nversion=1\n")); err != nil {
		f.Fatal(err)
	}
	if err := archive.Close(); err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		"Package: libgcc-s1\nStatus: install ok installed\nVersion: 12\nSource: gcc-12 (12.2)\nArchitecture: amd64\n\n",
		"P:musl\nV:1.2.5-r0\nA:x86_64\no:musl\n\n", jar.String(), `{"name": "x", "version": "1", "author": {"name": "y"}}`, "Metadata-Version: 2.1\nName: x\nVersion: 1\n\n",
		"Gem::Specification.new do |s|\n  s.name = \"x\".freeze\n  s.version = \"1\"\nend\n", "ID=alpine\nVERSION_ID=3.20\n", "\x7fELF\x02\x01\x01",
		"Package: \x1b[2J\xff\nStatus: install ok installed\nVersion: \x00\n\n",
	} {
		for place := range places {
			f.Add(uint8(place), []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, place uint8, content []byte) {
		collect(t, places[int(place)%len(places)], content, 20*time.Second)
	})
}

func FuzzRPMDatabases(f *testing.F) {
	for place := range rpmPlaces {
		f.Add(uint8(place), []byte("RpmP\x00\x00\x00\x00"))
		f.Add(uint8(place), []byte("SQLite format 3\x00\x10\x00\x01\x01"))
		f.Add(uint8(place), append(make([]byte, 12), 0x61, 0x15, 0x06, 0, 9, 0, 0, 0, 0, 16, 0, 0))
	}
	f.Fuzz(func(t *testing.T, place uint8, content []byte) {
		t.Setenv("TMPDIR", t.TempDir())
		collect(t, rpmPlaces[int(place)%len(rpmPlaces)], content, 2*time.Second)
	})
}

// FuzzCheck takes answers as a process that was taken over might write them.
func FuzzCheck(f *testing.F) {
	raw, err := proto.Marshal(&scannerv1.Report{Packages: []*scannerv1.Package{{Name: "musl", Version: "1", Locations: []string{"lib/apk/db/installed"}}}, Faults: []string{"x"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		report := &scannerv1.Report{}
		if proto.Unmarshal(raw, report) != nil || inventory.Check(report) != nil {
			return
		}
		for _, p := range report.GetPackages() {
			if p.GetName() == "" || len(p.GetName()) > 4096 || bytes.ContainsAny([]byte(p.GetName()+p.GetVersion()), "\x1b\n\x00") {
				t.Errorf("Check lets %q pass", p)
			}
		}
	})
}

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/containerdtest"
	"github.com/palisade-sec/palisade/internal/ociimage"
)

// strictly refuses an image with a vulnerability that is not excepted. Go's database rates none.
func strictly(serial int, more string) string {
	return fmt.Sprintf("version: 1\nserial: %d\nrules:\n  - name: no known vulnerabilities\n    on_error: deny\n"+
		"    vulnerability: {block: high, unrated: high%s}\n", serial, more)
}

// vulnerable is an image with a program of golang.org/x/text v0.3.0, which Go's database has CVE-2021-38561 against. What the executable says of itself
// counts, so the module's content is a stand-in.
func vulnerable(t *testing.T, daemon *containerdtest.Daemon) (name, digest string) {
	t.Helper()
	source := t.TempDir()
	for path, content := range map[string]string{
		"go.mod":             "module example.org/app\n\ngo 1.22\n\nrequire golang.org/x/text v0.3.0\n",
		"main.go":            "package main\n\nimport (\n\t\"time\"\n\n\t\"golang.org/x/text/language\"\n)\n\nfunc main() { println(language.Name); time.Sleep(time.Hour) }\n",
		"vendor/modules.txt": "# golang.org/x/text v0.3.0\n## explicit; go 1.22\ngolang.org/x/text/language\n",
		"vendor/golang.org/x/text/language/language.go": "package language\n\nconst Name = \"und\"\n",
	} {
		path = filepath.Join(source, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-mod=vendor", "-o", filepath.Join(source, "app"), ".")
	build.Dir, build.Env = source, append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	raw, err := os.ReadFile(filepath.Join(source, "app"))
	if err != nil {
		t.Fatal(err)
	}
	name = "registry.example/palisade/app:1"
	return name, daemon.Import(t, name, []ociimage.File{{Path: "app", Mode: 0o755, Content: raw}})
}

// TestVulnerableImageIsRefused: the image is scanned because a container was to be made of it; then the rule's severity refuses it, an exception lets it
// through, and an exception that has expired does not.
func TestVulnerableImageIsRefused(t *testing.T) {
	advisories := "../../../shared/osv/go.zip"
	if _, err := os.Stat(advisories); err != nil {
		t.Skip("no ../shared/osv/go.zip: Go's advisories are not here")
	}
	g := gate(t, strictly(1, ""))
	daemon := containerdtest.Start(t)
	image, digest := vulnerable(t, daemon)
	g.words = append(g.words, "--images", filepath.Dir(daemon.Socket))
	g.on(daemon)
	if out, err := exec.Command(filepath.Join(g.bin, "palisade"), "vulndb", "import", advisories, "--directory", filepath.Join(g.state, "advisories")).CombinedOutput(); err != nil {
		t.Fatalf("palisade vulndb import: %v: %s", err, out)
	}
	tries := 0
	try := func() (string, error) {
		tries++
		id := fmt.Sprintf("app-%d", tries)
		out, err := daemon.TryCtr("run", "--detach", "--snapshotter", "overlayfs", image, id, "/app")
		if err == nil {
			daemon.Remove(t, id)
		}
		return out, err
	}
	out, err := try()
	if err == nil || !strings.Contains(out, "try again in a moment") && !strings.Contains(out, "CVE-2021-38561") { // it may have been scanned ahead just now
		t.Fatalf("ctr run of an image that was never scanned = %v: %s, want it refused until it is", err, out)
	}
	if !eventually(60*time.Second, func() bool { out, err = try(); return err != nil && strings.Contains(out, "CVE-2021-38561") }) {
		t.Fatalf("ctr run = %v: %s, want the vulnerability named", err, out)
	}
	t.Logf("ctr run says:\n%s", out)
	for _, part := range []string{"no known vulnerabilities", "fixed in 0.3.7", "palisade scan " + image, "exception:"} {
		if !strings.Contains(out, part) {
			t.Errorf("the user was not told %q:\n%s", part, out)
		}
	}
	if w := g.foundBy("no known vulnerabilities").Workload; w.ImageDigest != digest {
		t.Errorf("the finding's workload = %+v, want digest %s", w, digest)
	}
	policy := filepath.Join(filepath.Dir(filepath.Dir(g.runc)), "admission/policy.yaml")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(policy, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// Every advisory against the stand-in's module, and the standard library's of the Go that built it.
	exceptions := func(until string) string {
		return ", exceptions: [{package: \"golang.org/x/text\", until: " + until + ", reason: test}, {package: stdlib, until: " + until + ", reason: test}]"
	}
	put(strictly(2, exceptions("2999-01-01")))
	if !eventually(20*time.Second, func() bool { out, err = try(); return err == nil }) {
		t.Errorf("ctr run with an exception = %v: %s, want the container created", err, out)
	}
	put(strictly(3, exceptions("2020-01-01")))
	if !eventually(20*time.Second, func() bool { out, err = try(); return err != nil && strings.Contains(out, "CVE-2021-38561") }) {
		t.Errorf("ctr run with an exception that has expired = %v: %s, want it refused", err, out)
	}
	// What was found is kept: without the node the same image is refused for the same reason.
	g.stop()
	if out, err = try(); err == nil || !strings.Contains(out, "CVE-2021-38561") {
		t.Errorf("ctr run without the node = %v: %s, want the vulnerability named", err, out)
	}
}

// TestImagesAreScannedAhead: an image that containerd gets while the node runs is scanned before a container of it is created, so that the first one is refused for
// what is known.
func TestImagesAreScannedAhead(t *testing.T) {
	advisories := "../../../shared/osv/go.zip"
	if _, err := os.Stat(advisories); err != nil {
		t.Skip("no ../shared/osv/go.zip: Go's advisories are not here")
	}
	g := gate(t, strictly(1, ""))
	if out, err := exec.Command(filepath.Join(g.bin, "palisade"), "vulndb", "import", advisories, "--directory", filepath.Join(g.state, "advisories")).CombinedOutput(); err != nil {
		t.Fatalf("palisade vulndb import: %v: %s", err, out)
	}
	daemon := containerdtest.Start(t)
	g.words = append(g.words, "--images", filepath.Dir(daemon.Socket))
	g.on(daemon)
	image, digest := vulnerable(t, daemon)
	if !eventually(60*time.Second, func() bool { out, _ := g.palisade("scan", "--list"); return strings.Contains(out, image) }) {
		t.Fatal("the image was not scanned")
	}
	out, err := daemon.TryCtr("run", "--snapshotter", "native", image, "first", "/app")
	if err == nil || !strings.Contains(out, "CVE-2021-38561") {
		t.Errorf("ctr run of the first container = %v: %s, want the vulnerability named", err, out)
	}
	if w := g.foundBy("no known vulnerabilities").Workload; w.ImageDigest != digest {
		t.Errorf("the finding's workload = %+v, want digest %s", w, digest)
	}
	// Nothing of the scan is left in containerd: one snapshot a layer, and no view.
	if !eventually(20*time.Second, func() bool {
		return !strings.Contains(daemon.Ctr(t, "snapshots", "--snapshotter", "native", "list"), "palisade-scan")
	}) {
		t.Errorf("left in containerd: %s", daemon.Ctr(t, "snapshots", "--snapshotter", "native", "list"))
	}
}

// foundBy waits for a finding of a rule.
func (g *gated) foundBy(rule string) finding {
	g.t.Helper()
	var found finding
	if !eventually(10*time.Second, func() bool {
		for _, f := range g.findings() {
			if f.Rule == rule {
				found = f
				return true
			}
		}
		return false
	}) {
		g.t.Errorf("no finding of rule %q", rule)
	}
	return found
}

package scan_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
)

// sharedGo is the path of Go's advisories, real data; without them the test is skipped.
func sharedGo(t *testing.T) string {
	t.Helper()
	for _, path := range []string{"../../../../../shared/osv/go.zip", "/work/shared/osv/go.zip"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skip("no ../shared/osv/go.zip: Go's advisories are not here")
	return ""
}

// TestVulnerableGoExecutable builds a program of golang.org/x/text v0.3.0, which Go's database has an advisory for. What the executable
// says of itself is what counts, so the module's content is a stand-in: nothing is fetched.
func TestVulnerableGoExecutable(t *testing.T) {
	advisories := sharedGo(t)
	source := t.TempDir()
	write(t, source, "go.mod", "module example.org/app\n\ngo 1.22\n\nrequire golang.org/x/text v0.3.0\n")
	write(t, source, "main.go", "package main\n\nimport \"golang.org/x/text/language\"\n\nfunc main() { println(language.Name) }\n")
	write(t, source, "vendor/modules.txt", "# golang.org/x/text v0.3.0\n## explicit; go 1.22\ngolang.org/x/text/language\n")
	write(t, source, "vendor/golang.org/x/text/language/language.go", "package language\n\nconst Name = \"und\"\n")
	top, bottom := t.TempDir(), t.TempDir()
	build := exec.Command("go", "build", "-mod=vendor", "-o", filepath.Join(bottom, "usr/bin/app"), ".")
	build.Dir = source
	build.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	n := serve(t, rpc.Operator, nil)
	n.imports(t, advisories)
	answer, err := n.Scan(t.Context(), &scannerv1.ScanRequest{Image: "app", ImageDigest: digest(7), Layers: []string{top, bottom}})
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(answer.GetReport().GetVulnerabilities(), func(v *scannerv1.Vulnerability) bool { return v.GetId() == "CVE-2021-38561" })
	if at < 0 {
		t.Fatalf("vulnerabilities = %v, want CVE-2021-38561 among them", ids(answer.GetReport()))
	}
	v := answer.GetReport().GetVulnerabilities()[at]
	if v.GetPackage() != "golang.org/x/text" || v.GetVersion() != "0.3.0" || v.GetFixedVersion() != "0.3.7" || !slices.Equal(v.GetLocations(), []string{"usr/bin/app"}) {
		t.Errorf("vulnerability = %v", v)
	}
	// The image's next version has the executable no more.
	if err := os.MkdirAll(filepath.Join(top, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mknod", filepath.Join(top, "usr/bin/app"), "c", "0", "0").CombinedOutput(); err != nil {
		t.Skipf("cannot make a whiteout here: %s", out)
	}
	answer, err = n.Scan(t.Context(), &scannerv1.ScanRequest{Image: "app", ImageDigest: digest(8), Layers: []string{top, bottom}})
	if err != nil || len(answer.GetReport().GetPackages()) != 0 {
		t.Errorf("behind a whiteout: %v, %v, want nothing", answer.GetReport().GetPackages(), err)
	}
}

// TestDebian scans a Debian root directory as debootstrap makes it, and compares with what dpkg itself says is in it.
func TestDebian(t *testing.T) {
	root := debianRoot(t)
	n := serve(t, rpc.Operator, nil)
	n.imports(t, "testdata/debian")
	answer, err := n.Scan(t.Context(), &scannerv1.ScanRequest{Image: "debian", Layers: []string{root}})
	if err != nil {
		t.Fatal(err)
	}
	report := answer.GetReport()
	out, err := exec.Command("dpkg-query", "--admindir="+filepath.Join(root, "var/lib/dpkg"), "-W",
		"-f=${Package} ${Version} ${source:Package} ${source:Version}\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(string(out)), "\n")
	var got []string
	for _, p := range report.GetPackages() {
		source, version := p.GetName(), p.GetVersion()
		if p.GetSource() != "" {
			source = p.GetSource()
		}
		if p.GetSourceVersion() != "" {
			version = p.GetSourceVersion()
		}
		got = append(got, strings.Join([]string{p.GetName(), p.GetVersion(), source, version}, " "))
		if p.GetEcosystem() != "Debian:12" {
			t.Errorf("%s: ecosystem %q, want Debian:12", p.GetName(), p.GetEcosystem())
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("packages (-dpkg +scanner):\n%s", diff)
	}
	if len(report.GetFaults()) != 0 {
		t.Errorf("faults = %q", report.GetFaults())
	}
	// testdata/debian has an advisory for each of these: by source package, without a fix, and one for a version long past.
	found := ids(report)
	if !slices.Contains(found, "apt CVE-2011-3374") || !slices.Contains(found, "zlib1g CVE-2023-45853") || slices.ContainsFunc(found, func(s string) bool { return strings.HasPrefix(s, "libc6 ") }) {
		t.Errorf("vulnerabilities = %q", found)
	}
}

// debianRoot makes a root directory of the release that this host has, from the mirror its own apt has. Later tests of the same day
// take the same.
func debianRoot(t *testing.T) string {
	t.Helper()
	debootstrap, err := exec.LookPath("debootstrap")
	if err != nil || os.Getuid() != 0 {
		t.Skip("no debootstrap here, or not root: make test-tools")
	}
	mirror := mirror(t)
	root := t.TempDir()
	run := exec.Command(debootstrap, "--variant=minbase", "bookworm", root, mirror)
	if out, err := run.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.Skipf("debootstrap from %s: %v: %s", mirror, err, lines[len(lines)-1])
	}
	return root
}

// mirror is where apt has bookworm from.
func mirror(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(CREATED_BY)").Output()
	if err != nil {
		t.Skipf("apt does not say where its packages are from: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[1] == "bookworm" && fields[2] == "Packages" {
			return fields[0]
		}
	}
	t.Skip("apt has no mirror of Debian bookworm here")
	return ""
}

package child_test

import (
	"archive/zip"
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/services/scanner/internal/child"
)

// binary is the scanner as it is released: static, without cgo.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "scanner-*")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "palisade-scanner")
	build := exec.Command("go", "build", "-o", binary, "../..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the scanner: %v\n%s", err, out)
		os.RemoveAll(dir)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func config(t *testing.T) child.Config {
	return child.Config{Binary: binary, Scratch: t.TempDir(), Time: time.Minute, Bounds: child.DefaultBounds()}
}

// scan looks at layers as the service does, and checks that nothing is left behind.
func scan(t *testing.T, cfg child.Config, layers ...string) (*scannerv1.Report, error) {
	t.Helper()
	report, err := child.Run(t.Context(), cfg, layers)
	if left, _ := os.ReadDir(cfg.Scratch); len(left) != 0 {
		t.Errorf("the scan left %v", left)
	}
	return report, err
}

func write(t *testing.T, root, name, content string) string {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func versions(r *scannerv1.Report) []string {
	var out []string
	for _, p := range r.GetPackages() {
		out = append(out, p.GetEcosystem()+" "+p.GetName()+" "+p.GetVersion())
	}
	return out
}

// TestGoExecutable: the scanner is a Go executable, and says itself what it was made of.
func TestGoExecutable(t *testing.T) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	layer := t.TempDir()
	write(t, layer, "usr/bin/app", string(raw))
	report, err := scan(t, config(t), layer)
	if err != nil {
		t.Fatal(err)
	}
	got := versions(report)
	for _, dep := range info.Deps {
		if dep.Replace != nil || !strings.HasPrefix(dep.Version, "v") {
			continue
		}
		if want := "Go " + dep.Path + " " + strings.TrimPrefix(dep.Version, "v"); !slices.Contains(got, want) {
			t.Errorf("packages = %q, want %q among them", got, want)
		}
	}
	if len(info.Deps) == 0 || len(report.GetFaults()) != 0 {
		t.Errorf("%d dependencies, faults %q", len(info.Deps), report.GetFaults())
	}
}

// TestInstalledPackages has one package of each kind, in two layers.
func TestInstalledPackages(t *testing.T) {
	top, bottom := t.TempDir(), t.TempDir()
	write(t, bottom, "etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n")
	write(t, bottom, "var/lib/dpkg/status", "Package: gone\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n")
	write(t, top, "var/lib/dpkg/status", `Package: libc6
Status: install ok installed
Version: 2.36-9+deb12u10
Architecture: amd64
Source: glibc

Package: libgcc-s1
Status: install ok installed
Version: 12.2.0-14+b1
Architecture: amd64
Source: gcc-12 (12.2.0-14)

Package: removed
Status: deinstall ok config-files
Version: 3
Architecture: all

`)
	write(t, top, "usr/lib/node_modules/left-pad/package.json", `{"name": "left-pad", "version": "1.3.0"}`)
	write(t, bottom, "usr/lib/python3/dist-packages/requests-2.31.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: requests\nVersion: 2.31.0\n\n")
	write(t, bottom, "usr/lib/ruby/gems/3.1.0/specifications/rack-2.2.7.gemspec", "Gem::Specification.new do |s|\n  s.name = \"rack\".freeze\n  s.version = \"2.2.7\"\nend\n")
	jar(t, filepath.Join(bottom, "app.jar"), map[string]string{
		"META-INF/maven/org.example/thing/pom.properties": "groupId=org.example\nartifactId=thing\nversion=1.2.3\n",
	})
	report, err := scan(t, config(t), top, bottom)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"Debian:12 libc6 2.36-9+deb12u10", "Debian:12 libgcc-s1 12.2.0-14+b1", "Maven org.example:thing 1.2.3", "PyPI requests 2.31.0", "RubyGems rack 2.2.7",
		"npm left-pad 1.3.0",
	}
	if diff := cmp.Diff(want, versions(report)); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	libc, libgcc := report.GetPackages()[0], report.GetPackages()[1]
	if libc.GetSource() != "glibc" || libc.GetSourceVersion() != "" || libgcc.GetSource() != "gcc-12" || libgcc.GetSourceVersion() != "12.2.0-14" {
		t.Errorf("sources: %v, %v", libc, libgcc)
	}
	if diff := cmp.Diff([]string{"var/lib/dpkg/status"}, libc.GetLocations()); diff != "" {
		t.Errorf("locations (-want +got):\n%s", diff)
	}
	if len(report.GetFaults()) != 0 {
		t.Errorf("faults = %q", report.GetFaults())
	}
}

func jar(t *testing.T, path string, files map[string]string) {
	t.Helper()
	var buffer bytes.Buffer
	archive := zip.NewWriter(&buffer)
	for name, content := range files {
		w, err := archive.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, content)
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, buffer.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestHostileImage is an image of what hurts scanners. It must be scanned, with its honest package, and with a line for what was not read.
func TestHostileImage(t *testing.T) {
	layer := t.TempDir()
	write(t, layer, "etc/os-release", "ID=alpine\nVERSION_ID=3.20.1\n")
	write(t, layer, "lib/apk/db/installed", "P:musl\nV:1.2.5-r0\nA:x86_64\no:musl\n\n")
	secret := write(t, t.TempDir(), "status", "Package: secret\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n")
	sparse(t, write(t, layer, "usr/lib/opkg/status", ""), 1<<30)
	sparse(t, write(t, layer, "usr/bin/huge", ""), 1<<30)
	sparse(t, write(t, layer, "opt/huge.jar", ""), 1<<30)
	sparse(t, write(t, layer, "var/lib/rpm/Packages", ""), 1<<30)
	for name, target := range map[string]string{"var/lib/dpkg/status": secret, "loop": "loop", "usr/bin/loop": "../bin", "out": "/", "usr/lib/os-release": "/etc/shadow"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(layer, name)), 0o755), os.Symlink(target, filepath.Join(layer, name))); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(layer, "usr/bin/fifo"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(layer, "usr/bin/zero"), unix.S_IFCHR|0o777, int(unix.Mkdev(1, 5))); err != nil && !errors.Is(err, unix.EPERM) {
		t.Fatal(err)
	}
	bomb(t, filepath.Join(layer, "opt/bomb.jar"))
	write(t, layer, "opt/short.jar", "PK\x03\x04"+strings.Repeat("x", 100))
	report, err := scan(t, config(t), layer)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"Alpine:v3.20 musl 1.2.5-r0"}, versions(report)); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	for _, want := range []string{"usr/lib/opkg/status", "opt/huge.jar", "var/lib/rpm/Packages", "opt/bomb.jar", "opt/short.jar"} {
		if !slices.ContainsFunc(report.GetFaults(), func(line string) bool { return strings.HasPrefix(line, want+": ") }) {
			t.Errorf("faults = %q, want one of %s", report.GetFaults(), want)
		}
	}
}

func sparse(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

// bomb is an archive with an archive of a gigabyte of zeros in it.
func bomb(t *testing.T, path string) {
	t.Helper()
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	archive := zip.NewWriter(out)
	w, err := archive.Create("inner.jar")
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range 1024 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestBoundsEndTheScan: what outgrows its bounds fails, and says with what.
func TestBoundsEndTheScan(t *testing.T) {
	layer := t.TempDir()
	for i := range 200 {
		write(t, layer, fmt.Sprintf("d/%d", i), "")
	}
	// One line of 60 MiB: read line by line, and so held in memory as a whole.
	write(t, layer, "var/lib/dpkg/status", "Package: "+strings.Repeat("x", 60<<20))
	for _, tt := range []struct {
		name   string
		change func(*child.Config)
	}{
		{"entries", func(c *child.Config) { c.Bounds.Files = 100 }},
		{"bytes read", func(c *child.Config) { c.Bounds.ReadMiB = 1 }},
		{"memory", func(c *child.Config) { c.Bounds.MemoryMiB = 64 }},
		{"time", func(c *child.Config) { c.Time = time.Millisecond }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config(t)
			tt.change(&cfg)
			if report, err := scan(t, cfg, layer); !errors.Is(err, child.ErrFailed) {
				t.Errorf("Run = %d packages, %v, want ErrFailed", len(report.GetPackages()), err)
			} else {
				t.Log(err)
			}
		})
	}
}

func TestAnEndedContextEndsTheScan(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := child.Run(ctx, config(t), []string{t.TempDir()}); !errors.Is(err, child.ErrFailed) {
		t.Errorf("Run(ended context) = %v, want ErrFailed", err)
	}
}

// TestLyingChild: whatever runs in the child's place, its answer is checked.
func TestLyingChild(t *testing.T) {
	for name, script := range map[string]string{
		"nothing sensible": "echo hello",
		"endless":          "exec cat /dev/zero",
		"fails":            "echo no >&2; exit 3",
		"dies":             "kill -9 $$",
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t)
			cfg.Binary = write(t, t.TempDir(), "liar", "#!/bin/sh\n"+script+"\n")
			if _, err := scan(t, cfg, t.TempDir()); !errors.Is(err, child.ErrFailed) {
				t.Errorf("Run = %v, want ErrFailed", err)
			}
		})
	}
}

package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/admission/kept"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/bundle"
)

// aloneOf builds the program that decides in the enforcer's place, as the Makefile does, and puts it beside a shim, with the enforcer's directory.
func aloneOf(t testing.TB, shim, directory string) {
	t.Helper()
	path := filepath.Join(built.directory, "palisade-runc-alone")
	if _, err := os.Stat(path); err != nil {
		build := exec.Command("go", "build", "-trimpath", "-ldflags", linkerFlags(), "-o", path, "./alone")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build palisade-runc-alone: %v: %s", err, out)
		}
	}
	program(t, filepath.Join(shim+".palisade", "alone"), path)
	if err := os.Symlink(directory, filepath.Join(shim+".palisade", "admission")); err != nil {
		t.Fatal(err)
	}
}

// policyOf puts a policy in force as the enforcer does.
func policyOf(t *testing.T, store *kept.Store, text string) *kept.Bundle {
	t.Helper()
	source := t.TempDir()
	must(t, os.Chmod(source, 0o755))
	must(t, os.WriteFile(filepath.Join(source, kept.PolicyName), []byte(text), 0o600))
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	der, err := x509.MarshalPKIXPublicKey(public)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(source, kept.KeyName), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600))
	must(t, os.WriteFile(filepath.Join(source, kept.SignatureName), ed25519.Sign(private, []byte(text)), 0o600))
	b, err := kept.ReadBundle(source)
	must(t, err)
	must(t, store.PutPolicy(b))
	return b
}

// overlaid makes the container's root an overlay, as an image's is, and returns its layers.
func (w *world) overlaid(t *testing.T) []string {
	t.Helper()
	root := filepath.Join(w.bundle, "rootfs")
	lower := filepath.Join(w.directory, "layer")
	must(t, os.Rename(root, lower))
	for _, name := range []string{"upper", "work"} {
		must(t, os.Mkdir(filepath.Join(w.directory, name), 0o755))
	}
	must(t, os.Mkdir(root, 0o755))
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, filepath.Join(w.directory, "upper"), filepath.Join(w.directory, "work"))
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		t.Skipf("no overlay here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	layers := bundle.Layers(w.bundle, bundle.Spec(w.bundle))
	if len(layers) != 1 || layers[0] != lower {
		t.Fatalf("layers = %q, want %q", layers, lower)
	}
	return layers
}

const blocks = `
version: 1
rules:
  - name: no critical vulnerabilities
    match: {images: ["shop:*"]}
    on_error: %s
    vulnerability: {block: critical}
`

var vulnerable = &enforcerv1.KnownImage{Image: "shop:1", Digest: "sha256:aa", Report: &scannerv1.Report{Vulnerabilities: []*scannerv1.Vulnerability{{
	Id: "CVE-2026-0001", Severity: scannerv1.Severity_SEVERITY_CRITICAL, Package: "openssl", Version: "1", FixedVersion: "2",
}}}}

// Who hangs the enforcer to get a container through meets what it kept. Every bad day has its documented outcome (docs/shim.md).
func TestB20WhatIsKeptDecidesWithoutTheEnforcer(t *testing.T) {
	clean := &enforcerv1.KnownImage{Image: "shop:2", Digest: "sha256:bb", Report: &scannerv1.Report{}}
	for _, tt := range []struct {
		name    string
		policy  string // "" is none
		image   *enforcerv1.KnownImage
		spoil   func(t *testing.T, kept string)
		refused string // a part of the text, "" if the container is created
		fault   string // a part of the line's, "" if there is none
		noLine  bool
	}{
		{name: "a known image that is vulnerable", policy: fmt.Sprintf(blocks, "allow"), image: vulnerable, refused: "CVE-2026-0001"},
		{name: "a known image that is not", policy: fmt.Sprintf(blocks, "deny"), image: clean},
		{name: "cache missing and on_error deny", policy: fmt.Sprintf(blocks, "deny"), refused: "no critical vulnerabilities"},
		{name: "cache missing and on_error allow", policy: fmt.Sprintf(blocks, "allow")},
		{name: "dry run", policy: "dry_run: true" + fmt.Sprintf(blocks, "deny"), image: vulnerable},
		{name: "configuration", policy: "version: 1\nrules:\n  - {name: root, compliance: {checks: {root-user: block}}}\n", refused: "root-user"},
		{name: "image cut off", policy: fmt.Sprintf(blocks, "deny"), image: vulnerable, refused: "no critical vulnerabilities", spoil: func(t *testing.T, d string) {
			files, err := filepath.Glob(filepath.Join(d, "images", "*"))
			must(t, err)
			must(t, os.Truncate(files[0], 40))
		}},
		{name: "policy corrupt", policy: fmt.Sprintf(blocks, "deny"), image: vulnerable, fault: "cut off or was changed", spoil: func(t *testing.T, d string) {
			must(t, os.Truncate(filepath.Join(d, "policy"), 100))
		}},
		{name: "policy unsigned", policy: fmt.Sprintf(blocks, "deny"), image: vulnerable, fault: kept.ErrUnsigned.Error(), spoil: func(t *testing.T, d string) {
			path := filepath.Join(d, "policy")
			raw, err := os.ReadFile(path)
			must(t, err)
			var b kept.Bundle
			must(t, json.Unmarshal(raw[sha256.Size:], &b))
			b.Signature = nil
			raw, err = json.Marshal(b)
			must(t, err)
			sum := sha256.Sum256(raw)
			must(t, os.WriteFile(path, append(sum[:], raw...), 0o600))
		}},
		{name: "policy another's", policy: fmt.Sprintf(blocks, "deny"), image: vulnerable, fault: "others than root", spoil: func(t *testing.T, d string) {
			must(t, os.Chown(filepath.Join(d, "policy"), 1, 1))
		}},
		{name: "no policy", image: vulnerable},
		{name: "nothing kept at all", policy: fmt.Sprintf(blocks, "deny"), image: vulnerable, noLine: true, spoil: func(t *testing.T, d string) {
			must(t, os.RemoveAll(d))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := container(t)
			w.shell("exit 0")
			layers := w.overlaid(t)
			directory := filepath.Join(t.TempDir(), "kept")
			store, err := kept.Open(directory)
			must(t, err)
			path := installed(t, t.TempDir(), "/nonexistent/socket")
			aloneOf(t, path, directory)
			if tt.policy != "" {
				policyOf(t, store, tt.policy)
			}
			if tt.image != nil {
				must(t, store.PutImage(kept.Key(layers), tt.image))
			}
			if tt.spoil != nil {
				tt.spoil(t, directory)
			}
			code, stderr, _ := runcExits(path, "--root", w.root, "create", "--bundle", w.bundle, w.id)
			switch {
			case tt.refused == "" && code != 0:
				t.Errorf("exit code %d: %s: want the container created", code, stderr)
			case tt.refused != "" && (code != 1 || !strings.Contains(stderr, tt.refused)):
				t.Errorf("exit code %d: %s: want a refusal with %q", code, stderr, tt.refused)
			}
			if tt.noLine {
				return
			}
			_, err = store.Take()
			must(t, err)
			lines, err := store.Take()
			must(t, err)
			if len(lines) != 1 || lines[0].Container != w.id || lines[0].Denied != (tt.refused != "") || !strings.Contains(lines[0].Fault, tt.fault) {
				t.Errorf("lines = %+v, want one, fault %q", lines, tt.fault)
			}
		})
	}
}

// The enforcer hangs, and then the one who decides in its place comes in: all that together is what a container waits for at most.
func TestB20TheWholeDelayIsBounded(t *testing.T) {
	w := container(t)
	w.shell("exit 0")
	directory := filepath.Join(t.TempDir(), "kept")
	store, err := kept.Open(directory)
	must(t, err)
	policyOf(t, store, "version: 1\nrules:\n  - {name: all, compliance: {alert: low}}\n")
	plain := program(t, filepath.Join(t.TempDir(), "runc"), runcs(t)[0])
	path := installed(t, t.TempDir(), enforce(t, hangs).socket)
	aloneOf(t, path, directory)
	_, _, _ = timesOf(t, w, plain) // the first ones read programs from disk
	_, _, _ = timesOf(t, w, path)
	_, _, base := timesOf(t, w, plain)
	create, start, both := timesOf(t, w, path)
	t.Logf("create %v, start %v: %v more than with runC alone", create, start, both-base)
	if both-base > 5*time.Second { // generous: the machine may be busy
		t.Errorf("%v more than with runC alone", both-base)
	}
}

func TestAloneBesideNoShimSaysSo(t *testing.T) {
	path := installed(t, t.TempDir(), "/nonexistent/socket")
	aloneOf(t, path, "/nonexistent")
	code, stderr, _ := runcExits(filepath.Join(built.directory, "palisade-runc-alone"), "--version")
	if code != 1 || !strings.Contains(stderr, "not beside a shim") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	want, err := exec.Command(runcs(t)[0], "--version").Output()
	must(t, err)
	got, err := exec.Command(path+".palisade/alone", "--version").Output()
	if err != nil || string(got) != string(want) {
		t.Errorf("beside a shim it says %s, %v, want what runC says", got, err)
	}
}

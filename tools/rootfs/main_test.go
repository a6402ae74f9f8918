package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/daemon"
)

// build makes images of binaries that only say their names.
func build(t *testing.T) map[string]map[string]*tar.Header {
	t.Helper()
	bin, out := t.TempDir(), t.TempDir()
	names := []string{"collector", "correlator", "gate", "enforcer", "scanner", "uplink", "console"}
	for _, name := range append([]string{"palisade"}, names...) {
		if name != "palisade" {
			name = "palisade-" + name
		}
		if err := os.WriteFile(filepath.Join(bin, name), []byte(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(t.Context(), daemon.Env{Name: "rootfs", Args: []string{"-bin", bin, "-out", out}, Stdout: io.Discard}); err != nil {
		t.Fatal(err)
	}
	images := map[string]map[string]*tar.Header{}
	for _, name := range names {
		raw, err := os.ReadFile(filepath.Join(out, name+".tar"))
		if err != nil {
			t.Fatal(err)
		}
		images[name] = map[string]*tar.Header{}
		for archive := tar.NewReader(bytes.NewReader(raw)); ; {
			header, err := archive.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			images[name][header.Name] = header
		}
	}
	return images
}

func TestImagesHoldOneProgramAndItsDirectories(t *testing.T) {
	images := build(t)
	tests := []struct{ image, file, want string }{
		{"collector", "usr/bin/palisade-collector", "-rwxr-xr-x 0:0"},
		{"collector", "run/palisade/", "dtrwxrwx--- 0:10000"},
		{"correlator", "var/lib/palisade/correlator/", "drwx------ 10002:10002"},
		{"enforcer", "usr/bin/palisade", "-rwxr-xr-x 0:0"},
		{"enforcer", "var/lib/palisade/enforcer/", "drwx------ 0:0"},
		{"scanner", "var/lib/palisade/scanner/", "drwx------ 10006:10006"},
		{"scanner", "usr/bin/palisade-scanner", "-rwxr-xr-x 0:0"},
		{"uplink", "var/lib/palisade/enroll/", "dgrwxr-x--- 10005:10004"},
		{"console", "var/lib/palisade/enroll/", "dgrwxr-x--- 10005:10004"},
		{"console", "var/lib/palisade/", "drwxr-xr-x 0:0"},
	}
	for _, tt := range tests {
		header, ok := images[tt.image][tt.file]
		if !ok {
			t.Errorf("%s has no %s", tt.image, tt.file)
			continue
		}
		if got := fmt.Sprintf("%v %d:%d", header.FileInfo().Mode(), header.Uid, header.Gid); got != tt.want {
			t.Errorf("%s: %s is %s, want %s", tt.image, tt.file, got, tt.want)
		}
	}
	for image, files := range images {
		var programs int
		for _, header := range files {
			if header.Typeflag == tar.TypeReg {
				programs++
			}
		}
		if want := map[bool]int{true: 2, false: 1}[image == "enforcer"]; programs != want {
			t.Errorf("%s holds %d programs, want %d", image, programs, want)
		}
	}
}

func TestFileCapabilities(t *testing.T) {
	// What `setcap cap_net_admin,cap_perfmon,cap_bpf+ep` writes: capabilities 12, 38 and 39.
	want := "\x01\x00\x00\x02" + "\x00\x10\x00\x00" + "\x00\x00\x00\x00" + "\xc0\x00\x00\x00" + "\x00\x00\x00\x00"
	all := map[string]string{
		"usr/bin/palisade-collector": want,
		// cap_dac_read_search is 2.
		"usr/bin/palisade-scanner": "\x01\x00\x00\x02" + "\x04\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00",
	}
	for image, files := range build(t) {
		for name, header := range files {
			if value := header.PAXRecords[capabilityRecord]; value != all[name] {
				t.Errorf("%s: %s has capabilities %x, want %x", image, name, value, all[name])
			}
		}
	}
	if os.Getuid() != 0 {
		t.Skip("asking the kernel about the value needs root")
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(file, "security.capability", []byte(want), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Errorf("the kernel refuses the value: %v", err)
	}
}

package runcshim

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/palisade-sec/palisade/internal/runcshim/nri"
)

// nriHost is testHost with a hook beside the shim's binary, and a runtime's socket.
func nriHost(t *testing.T) (h Host, socket string) {
	t.Helper()
	requireRoot(t)
	h = testHost(t)
	raw, err := os.ReadFile(h.Binary)
	if err != nil {
		t.Fatal(err)
	}
	h.Binary = filepath.Join(t.TempDir(), ShimName)
	write(t, h.Binary, string(raw), 0o755)
	write(t, filepath.Join(filepath.Dir(h.Binary), nri.HookName), "#!/bin/sh\n", 0o755)
	h.Root, err = os.MkdirTemp("", "nri") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(h.Root) })
	for _, directory := range []string{"run", "var/lib", "opt"} {
		if err := os.MkdirAll(filepath.Join(h.Root, directory), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(h.Root, "usr/sbin/runc"), fakeRunC("1.0"), 0o755)
	write(t, filepath.Join(h.Root, "usr/bin/containerd"), "#!/bin/sh\n", 0o755)
	socket = "/run/nri.sock"
	listener, err := net.Listen("unix", filepath.Join(h.Root, socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return h, socket
}

func nriStatus(t *testing.T, h Host) *Status {
	t.Helper()
	all, err := h.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		if one.Mode == modeNRI {
			return &one
		}
	}
	return nil
}

// The plugin's files come and go without a trace, and what is wrong with them is told.
func TestNRIComesAndGoes(t *testing.T) {
	h, socket := nriHost(t)
	before := tree(t, h.Root)
	for range 2 { // to install twice is to install once
		if err := h.InstallNRI(t.Context(), socket); err != nil {
			t.Fatalf("InstallNRI() = %v", err)
		}
	}
	if one := nriStatus(t, h); one == nil || one.State != Installed || one.Advice != "" || one.Path != filepath.Join(h.Root, socket) {
		t.Errorf("Status() = %+v, want it installed on %s", one, socket)
	}
	if checked, problems, err := h.Verify(t.Context()); checked != 1 || len(problems) > 0 || err != nil {
		t.Errorf("Verify() = %d, %q, %v, want one, and nothing wrong", checked, problems, err)
	}
	file := filepath.Join(h.Root, hook())
	for want, spoil := range map[string]func() error{
		"is another version": func() error { return os.WriteFile(file, []byte("#!/bin/bash\n"), 0o755) }, //nolint:gosec // a program
		"the hook is gone":   func() error { return os.Remove(file) },
		"nothing decides":    func() error { return os.Remove(filepath.Join(file+KeptSuffix, "alone")) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if _, problems, _ := h.Verify(t.Context()); !strings.Contains(strings.Join(problems, "\n"), want) {
			t.Errorf("Verify() = %q, want %q", problems, want)
		}
		if err := h.InstallNRI(t.Context(), socket); err != nil {
			t.Errorf("InstallNRI() after %q = %v", want, err)
		}
	}
	if _, problems, _ := h.Verify(t.Context()); len(problems) > 0 {
		t.Errorf("Verify() = %q, want nothing wrong: install puts everything back", problems)
	}
	for range 2 {
		if err := h.UninstallNRI(t.Context()); err != nil {
			t.Fatalf("UninstallNRI() = %v", err)
		}
	}
	if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

// Nothing is changed where the plugin could not work, or would ask a second time.
func TestNRIIsRefused(t *testing.T) {
	h, socket := nriHost(t)
	if err := h.InstallNRI(t.Context(), "/run/nobody.sock"); err == nil || !strings.Contains(err.Error(), "no container runtime serves NRI at /run/nobody.sock") {
		t.Errorf("InstallNRI() without a runtime = %v", err)
	}
	dry := h
	dry.DryRun = true
	before := tree(t, h.Root)
	if err := dry.InstallNRI(t.Context(), socket); err != nil {
		t.Errorf("a dry run: %v", err)
	}
	if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
		t.Errorf("a dry run changed (-before +after):\n%s", diff)
	}
	mustInstall(t, h)
	if err := h.InstallNRI(t.Context(), socket); err == nil || !strings.Contains(err.Error(), "the shim stands at /usr/sbin/runc already") {
		t.Errorf("InstallNRI() beside a shim = %v", err)
	}
}

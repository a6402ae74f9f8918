package command_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/cli/internal/command"
)

// shimRoot is a host's root with a runC and an engine, and a file that is taken for the shim.
func shimRoot(t *testing.T) (root, binary string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	root, binary = t.TempDir(), filepath.Join(t.TempDir(), "palisade-runc")
	if err := os.MkdirAll(filepath.Join(root, "var/lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{
		filepath.Join(root, "usr/sbin/runc"): "#!/bin/sh\necho runc version 1.0\n", filepath.Join(root, "usr/bin/containerd"): "",
		binary: "\x7fELF palisade-runc", binary + "-alone": "#!/bin/sh\n",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root, binary
}

func palisade(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = command.Execute(args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestShimExitCodes(t *testing.T) {
	root, binary := shimRoot(t)
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"nothing", nil, 2, "say what to do"},
		{"an unknown word", []string{"instal"}, 2, "there is no `palisade shim instal`"},
		{"an unknown mode", []string{"install", "--mode", "magic"}, 2, `--mode: "magic" is not`},
		{"a relative path", []string{"install", "--path", "runc"}, 2, `"runc" is not an absolute path`},
		{"an argument", []string{"status", "x"}, 2, "unexpected argument"},
		{"a path for configuration", []string{"install", "--mode", "dropin", "--path", "/usr/sbin/runc"}, 2, "--engine says"},
		{"an engine for NRI", []string{"install", "--mode", "nri", "--engine", "docker"}, 2, "--nri-socket says"},
		{"a socket for configuration", []string{"install", "--nri-socket", "/run/nri.sock"}, 2, "--nri-socket is for --mode nri"},
		{"no runtime with NRI", []string{"install", "--binary", binary, "--mode", "nri", "--nri-socket", "/run/nobody.sock"}, 1, "serves NRI at /run/nobody.sock"},
		{"no shim", []string{"install", "--binary", "/bin/sh"}, 1, "is not the shim"},
		{"an engine without drop-ins", []string{"install", "--binary", binary, "--mode", "dropin", "--engine", "cri-o"}, 1, "--mode replace covers"},
		{"a path that is not there", []string{"install", "--binary", binary, "--path", "/usr/lib/runc"}, 1, "/usr/lib/runc: there is no such file"},
		{"nothing is installed", []string{"uninstall"}, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, out, errs := palisade(append([]string{"shim", "--root", root}, tt.args...)...)
			if code != tt.code || !strings.Contains(errs, tt.want) {
				t.Errorf("code %d, want %d; said %q %q, want %q", code, tt.code, out, errs, tt.want)
			}
		})
	}
	for pattern, want := range map[string]int{"*": 2, "usr/sbin/*": 1, "var/lib/*": 0} {
		if found, err := filepath.Glob(filepath.Join(root, pattern)); err != nil || len(found) != want {
			t.Errorf("%s is %q, %v, want %d files", pattern, found, err, want)
		}
	}
}

func TestShimInstallStatusUninstall(t *testing.T) {
	root, binary := shimRoot(t)
	status := func() map[string]any {
		t.Helper()
		code, out, errs := palisade("shim", "status", "--root", root, "-o", "json")
		var all []map[string]any
		if err := json.Unmarshal([]byte(out), &all); code != 0 || err != nil || len(all) != 1 {
			t.Fatalf("status: %d, %v: %s%s", code, err, out, errs)
		}
		return all[0]
	}
	if got := status(); got["state"] != "not installed" || got["runc"] != "1.0" {
		t.Errorf("status = %v", got)
	}
	if code, out, errs := palisade("shim", "install", "--root", root, "--binary", binary, "--dry-run"); code != 0 || !strings.Contains(out, "would put the shim at /usr/sbin/runc\n") {
		t.Errorf("install --dry-run: %d: %s%s", code, out, errs)
	}
	if code, out, errs := palisade("shim", "install", "--root", root, "--binary", binary); code != 0 || strings.Contains(out, "would") {
		t.Errorf("install: %d: %s%s", code, out, errs)
	}
	if got := status(); got["state"] != "installed" || got["mode"] != "replace" {
		t.Errorf("status = %v", got)
	}
	// What was installed here is no program, so a verify finds that nothing runs.
	if code, _, errs := palisade("shim", "verify", "--root", root); code != 1 || !strings.Contains(errs, "runC does not run through the shim") {
		t.Errorf("verify: %d: %s", code, errs)
	}
	if code, out, errs := palisade("shim", "uninstall", "--root", root, "-o", "json"); code != 0 || out != "{\"done\":true,\"todo\":[]}\n" {
		t.Errorf("uninstall: %d: %s%s", code, out, errs)
	}
	if got := status(); got["state"] != "not installed" {
		t.Errorf("status = %v", got)
	}
}

package sandbox_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// attack builds the attacker, statically as the scanner is, and returns what came of each attempt.
func attack(t *testing.T, words ...string) (map[string]string, *os.ProcessState) {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "attacker")
	build := exec.Command("go", "build", "-o", binary, "./testdata/attacker")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	layer, scratch, secret := filepath.Join(dir, "layer"), filepath.Join(dir, "scratch"), filepath.Join(dir, "secret")
	for _, d := range []string{layer, scratch} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{filepath.Join(layer, "file"), secret} {
		if err := os.WriteFile(f, []byte("content"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(binary, append([]string{layer, scratch, secret, secret}, words...)...)
	out, err := cmd.Output()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	results := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, result, _ := strings.Cut(strings.TrimSpace(line), ": ")
		results[name] = result
	}
	if results["enter"] != "" || len(results) == 0 {
		t.Fatalf("attacker: %v, %s", err, out)
	}
	if left, err := os.ReadDir(layer); err != nil || len(left) != 1 {
		t.Errorf("the layer after the attack: %v, %v", left, err)
	}
	return results, cmd.ProcessState
}

// TestNothingIsLeft has a process that is restricted as a scan's try what an attacker would.
func TestNothingIsLeft(t *testing.T) {
	results, state := attack(t, "192")
	if !state.Success() {
		t.Errorf("the attacker ended with %v; a refusal is an error, not a death", state)
	}
	t.Log(results)
	allowed := map[string]bool{"read a layer": true, "write scratch": true, "a goroutine with a thread": true}
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Fatal(err)
	}
	if results["list the root"] == "ok" {
		t.Log("this kernel has no Landlock: what it would refuse is not looked at")
		for _, name := range []string{"list the root", "read outside", "read outside over ..", "write a layer", "remove from a layer", "link into a layer", "write beside"} {
			delete(results, name)
		}
	}
	for name, result := range results {
		if (result == "ok") != allowed[name] {
			t.Errorf("%s: %s", name, result)
		}
	}
	if len(results) < 15 {
		t.Errorf("%d attempts: %v", len(results), results)
	}
}

// TestMemoryIsBounded has it fill its memory: it must die before it has a gigabyte.
func TestMemoryIsBounded(t *testing.T) {
	results, state := attack(t, "96", "hoard")
	if state.Success() || results["memory"] == "ok" {
		t.Errorf("it filled a gigabyte: %v", state)
	}
}

// TestNoFileIsOpenedByHandle: as root it would be, out of any container that mounts one directory of the file system.
func TestNoFileIsOpenedByHandle(t *testing.T) {
	results, _ := attack(t, "handles")
	if results["open by handle"] != "operation not permitted" || results["read outside"] != "ok" {
		t.Errorf("%v, want that one refused, and only that", results)
	}
}

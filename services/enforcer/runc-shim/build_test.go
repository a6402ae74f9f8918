package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// entry is where the shim begins, as versions.mk says it: one that is built without it restores no signals.
const entry = "github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/handover.entry"

func linkerFlags() string {
	if runtime.GOARCH != "amd64" {
		return "-s -w"
	}
	return "-s -w -E " + entry
}

// circleVariable makes the test binary a program that becomes the shim it names.
const circleVariable = "PALISADE_SHIM_TEST_CIRCLE"

func TestMain(m *testing.M) {
	if path := os.Getenv(circleVariable); path != "" {
		_ = syscall.Exec(path, os.Args, os.Environ())
	}
	if path := os.Getenv(strangerVariable); path != "" {
		refuseAll(path)
		return
	}
	code := m.Run()
	os.RemoveAll(built.directory)
	os.Exit(code)
}

// built is the shim, made once.
var built struct {
	once      sync.Once
	directory string
	err       error
	output    []byte
}

// shim builds the shim as the Makefile does and returns its path.
func shim(tb testing.TB) string {
	tb.Helper()
	built.once.Do(func() {
		if built.directory, built.err = os.MkdirTemp("", "palisade-runc-"); built.err != nil {
			return
		}
		build := exec.Command("go", "build", "-trimpath", "-ldflags", linkerFlags(), "-o", filepath.Join(built.directory, "palisade-runc"), ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		built.output, built.err = build.CombinedOutput()
	})
	if built.err != nil {
		tb.Fatalf("build the shim: %v: %s", built.err, built.output)
	}
	return filepath.Join(built.directory, "palisade-runc")
}

// program copies a program to a path and returns that.
func program(tb testing.TB, path, from string) string {
	tb.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o755); err != nil {
		tb.Fatal(err)
	}
	return path
}

// runcs are the real runCs: the host's, and those that PALISADE_TEST_RUNC names, with colons between them.
func runcs(tb testing.TB) []string {
	tb.Helper()
	host, err := exec.LookPath("runc")
	if err != nil {
		tb.Skip("there is no runC on this host: install Debian's package runc")
	}
	return append([]string{host}, filepath.SplitList(os.Getenv("PALISADE_TEST_RUNC"))...)
}

// requireContainers skips a test where runC cannot make containers.
func requireContainers(tb testing.TB) {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Skip("only root makes containers here")
	}
}

func TestTheMakefileLinksTheShimThatIsTestedHere(t *testing.T) {
	raw, err := os.ReadFile("../../../versions.mk")
	if err != nil {
		t.Skip("the project's versions.mk is not here")
	}
	for _, want := range []string{"\nldflags := -s -w\n", ",-E " + entry + ")\n", "\nshim_ldflags := $(ldflags) $(shim_entry)\n"} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("versions.mk does not say %q", want)
		}
	}
}

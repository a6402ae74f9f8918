package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	"github.com/palisade-sec/palisade/internal/admission/kept"
)

// hooked builds the hook as the Makefile does, and gives it to the container, with what is beside it.
func (w *world) hooked(t *testing.T, socket string) (hook string) {
	t.Helper()
	path := filepath.Join(built.directory, "palisade-runc-hook")
	shim(t) // makes the directory
	if _, err := os.Stat(path); err != nil {
		build := exec.Command("go", "build", "-trimpath", "-ldflags", linkerFlags(), "-o", path, "./hook")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build palisade-runc-hook: %v: %s", err, out)
		}
	}
	hook = program(t, filepath.Join(w.directory, "nri", "palisade-runc-hook"), path)
	must(t, os.MkdirAll(hook+".palisade", 0o755))
	must(t, os.Symlink(socket, filepath.Join(hook+".palisade", "socket")))
	w.configure(func(spec map[string]any) {
		spec["hooks"] = map[string]any{"createRuntime": []any{map[string]any{"path": hook, "args": []string{"palisade-runc-hook"}}}}
	})
	return hook
}

// runC asks by the hook what the shim asks, refuses what it refuses, and says to its user why.
func TestTheHookAsks(t *testing.T) {
	for name, answer := range map[string]answerer{"allowed": allows, "refused": denies} {
		t.Run(name, func(t *testing.T) {
			w := container(t)
			e := enforce(t, answer)
			layers := w.overlaid(t)
			w.hooked(t, e.socket)
			code, stderr, _ := runcExits(runcs(t)[0], "--root", w.root, "create", "--bundle", w.bundle, w.id)
			heard := e.heard()
			if len(heard) == 0 || heard[0].GetContainerId() != w.id || heard[0].GetBundle() != w.bundle || len(heard[0].GetSpec()) == 0 ||
				strings.Join(heard[0].GetLayers(), ":") != strings.Join(layers, ":") {
				t.Fatalf("the enforcer heard %v, want the container, its bundle, configuration and layers %q", heard, layers)
			}
			if name == "refused" {
				if code == 0 || !strings.Contains(stderr, "critical CVE-2026-0001 in openssl 1, fixed in 2") || len(heard) != 1 {
					t.Errorf("runc create: exit code %d, %q, %d questions, want the refusal and one", code, stderr, len(heard))
				}
				if _, err := os.Stat(filepath.Join(w.root, w.id)); !os.IsNotExist(err) {
					t.Errorf("the container's state: %v, want none", err)
				}
				return
			}
			if code != 0 || len(heard) != 2 || heard[1].GetEvent() != enforcerv1.AdmissionEvent_ADMISSION_EVENT_START {
				t.Fatalf("runc create: exit code %d, %q, questions %v, want it created and registered", code, stderr, heard)
			}
			if want := cgroupOf(t, w); heard[1].GetCgroupId() != want {
				t.Errorf("registered with cgroup %d, want %d", heard[1].GetCgroupId(), want)
			}
		})
	}
}

// cgroupOf is the id of a created container's cgroup by runC's state, which is another way than the hook's; 0 on a host without cgroup v2.
func cgroupOf(t *testing.T, w *world) uint64 {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(w.root, w.id, "state.json"))
	must(t, err)
	var state struct {
		Paths map[string]string `json:"cgroup_paths"`
	}
	must(t, json.Unmarshal(raw, &state))
	if state.Paths[""] == "" {
		return 0
	}
	var stat syscall.Stat_t
	must(t, syscall.Stat(state.Paths[""], &stat))
	return stat.Ino
}

// The hook keeps nobody from a container that the shim would not: without an enforcer what is kept decides, without that nobody.
func TestB20TheHookWithoutTheEnforcer(t *testing.T) {
	for _, tt := range []struct {
		name, onError string // onError "" is no policy
		alone         bool
		refused       bool
	}{
		{name: "nobody decides"},
		{name: "nothing is kept", alone: true},
		{name: "a known image that is vulnerable", onError: "allow", alone: true, refused: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := container(t)
			layers := w.overlaid(t)
			hook := w.hooked(t, filepath.Join(w.directory, "nobody"))
			directory := filepath.Join(w.directory, "kept")
			if tt.onError != "" {
				store, err := kept.Open(directory)
				must(t, err)
				policyOf(t, store, fmt.Sprintf(blocks, tt.onError))
				must(t, store.PutImage(kept.Key(layers), vulnerable))
			}
			if tt.alone {
				aloneOf(t, hook, directory)
			}
			code, stderr, _ := runcExits(runcs(t)[0], "--root", w.root, "create", "--bundle", w.bundle, w.id)
			if tt.refused != (code != 0) || tt.refused && !strings.Contains(stderr, "CVE-2026-0001") {
				t.Errorf("runc create: exit code %d, %q, want it refused: %v", code, stderr, tt.refused)
			}
		})
	}
}

// Whatever comes in, a hook that nobody can make sense of refuses nothing.
func TestTheHookRefusesNothingItDoesNotUnderstand(t *testing.T) {
	w := container(t)
	hook := w.hooked(t, filepath.Join(w.directory, "nobody"))
	for _, in := range []string{"", "{", "[]", `{"id":1}`, `{"id":"x"}`, `{"id":"x","bundle":"/nonexistent","pid":-1}`, strings.Repeat("x", 5<<20)} {
		cmd := exec.Command(hook)
		cmd.Stdin = strings.NewReader(in)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("hook of %.40q: %v: %s", in, err, out)
		}
	}
}

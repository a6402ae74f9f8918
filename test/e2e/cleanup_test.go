package e2e

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// TestStopLeavesNothing compares the host before a node ran and after, with state that is thrown away, as make run has
// it.
func TestStopLeavesNothing(t *testing.T) {
	n := layNode(t)
	n.ephemeral = true
	before := takeInventory(t)
	n.start()
	running := n.processes()
	during := takeInventory(t).without(before)
	if len(during.programs) == 0 || len(during.cgroups) == 0 || len(during.sockets) == 0 {
		t.Errorf("a running node adds %+v: the comparison would prove nothing", during)
	}
	n.demo()
	n.stop()
	for name, p := range running {
		if alive(p.PID, "palisade-"+name) {
			t.Errorf("%s still runs as pid %d", name, p.PID)
		}
	}
	if _, err := os.Stat(n.run); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", n.run, err)
	}
	state := "/var/lib/palisade-ephemeral-" + strings.ReplaceAll(strings.Trim(n.run, "/"), "/", "-")
	if _, err := os.Stat(state); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", state, err)
	}
	var left inventory
	nothing := func() bool { left = takeInventory(t).without(before); return left.empty() }
	if !eventually(20*time.Second, nothing) { // the kernel frees programs after a grace period
		t.Errorf("left behind: %+v", left)
	}
}

// inventory is what a node could leave behind.
type inventory struct {
	programs []ebpf.ProgramID
	mounts   []string
	cgroups  []string
	sockets  []string
}

// without is what i has and other has not.
func (i inventory) without(other inventory) inventory {
	return inventory{
		programs: difference(i.programs, other.programs), mounts: difference(i.mounts, other.mounts),
		cgroups: difference(i.cgroups, other.cgroups), sockets: difference(i.sockets, other.sockets),
	}
}

func (i inventory) empty() bool {
	return len(i.programs)+len(i.mounts)+len(i.cgroups)+len(i.sockets) == 0
}

func difference[T comparable](all, known []T) []T {
	return slices.DeleteFunc(slices.Clone(all), func(item T) bool { return slices.Contains(known, item) })
}

func takeInventory(t *testing.T) inventory {
	t.Helper()
	var inv inventory
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		inv.programs = append(inv.programs, next)
		id = next
	}
	inv.mounts = lines(t, "/proc/self/mountinfo")
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		ours := strings.Contains(path, "palisade-e2e") || strings.Contains(path, "palisade-demo")
		if err == nil && entry.IsDir() && ours {
			inv.cgroups = append(inv.cgroups, path)
		}
		return nil // cgroups of others come and go while we look
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines(t, "/proc/net/unix") {
		if fields := strings.Fields(line); len(fields) == 8 && strings.Contains(fields[7], "palisade-e2e") &&
			!strings.Contains(fields[7], "containerd") {
			inv.sockets = append(inv.sockets, fields[7])
		}
	}
	return inv
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(raw)), "\n")
}

package kerneltest

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// workload is a cgroup of the test's own: what is recorded or lost there is the test's doing and nobody else's.
type workload struct {
	directory string
	id        uint64
}

// newWorkload makes a cgroup, which is removed when the test ends and all that ran in it has.
func newWorkload(t *testing.T) workload {
	t.Helper()
	directory, err := os.MkdirTemp(cgroup2(t), "palisade-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeGroup(t, directory) })
	return workload{directory: directory, id: inodeOf(t, directory)}
}

// nested makes a cgroup so many levels below the workload's, which is removed when the test ends; 0 is its own.
func (w workload) nested(t *testing.T, levels int) string {
	t.Helper()
	directory := w.directory
	for range levels {
		next, err := os.MkdirTemp(directory, "n")
		if err != nil {
			t.Fatal(err)
		}
		directory = next
		t.Cleanup(func() { removeGroup(t, next) })
	}
	return directory
}

func removeGroup(t *testing.T, directory string) {
	t.Helper()
	err := unix.Rmdir(directory)
	for deadline := time.Now().Add(patience); errors.Is(err, unix.EBUSY) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond) // who was killed is not gone yet
		err = unix.Rmdir(directory)
	}
	if err != nil {
		t.Errorf("remove cgroup: %v", err)
	}
}

// cgroup2 is the root of the hierarchy that workloads are told apart by.
func cgroup2(t *testing.T) string {
	t.Helper()
	for _, path := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var at unix.Statfs_t
		if unix.Statfs(path, &at) == nil && at.Type == unix.CGROUP2_SUPER_MAGIC {
			return path
		}
	}
	t.Skip("no cgroup2 hierarchy is mounted")
	return ""
}

// add moves a process into the cgroup.
func (w workload) add(t *testing.T, pid int) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.directory, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Fatal(err)
	}
}

// shortfall sums up what is missing of the workload's records of a kind.
func (w workload) shortfall(t *testing.T, set *probe.Set, kind record.Kind) probe.Shortfall {
	t.Helper()
	all, err := set.Shortfalls()
	if err != nil {
		t.Fatal(err)
	}
	var sum probe.Shortfall
	for account, short := range all {
		if account.CgroupID == w.id && account.Kind == kind {
			sum.Lost += short.Lost
			sum.Dropped += short.Dropped
		}
	}
	return sum
}

// fullVariable asks for the whole of every count: `make test-full`.
const fullVariable = "PALISADE_TEST_FULL"

// scaled is how often something is done: all of it when asked for, else a twentieth, which a loaded machine and a VM of the
// matrix, whose processor is emulated, do in bearable time.
func scaled(n int) int {
	if os.Getenv(fullVariable) != "" {
		return n
	}
	return n / 20
}

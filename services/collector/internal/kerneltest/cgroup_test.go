package kerneltest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
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
	root, _ := hierarchy(t)
	directory, err := os.MkdirTemp(root, "palisade-test-")
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

// hierarchies are where the one that workloads are told apart by may be mounted, best first.
var hierarchies = []struct {
	root  string
	magic int64
}{
	{"/sys/fs/cgroup", unix.CGROUP2_SUPER_MAGIC}, {"/sys/fs/cgroup/unified", unix.CGROUP2_SUPER_MAGIC},
	{"/sys/fs/cgroup/memory", unix.CGROUP_SUPER_MAGIC}, // if cgroup2 is not in use
}

// hierarchy is its root, and whether it is cgroup2.
func hierarchy(t *testing.T) (root string, second bool) {
	t.Helper()
	for _, h := range hierarchies {
		var at unix.Statfs_t
		if unix.Statfs(h.root, &at) == nil && int64(at.Type) == h.magic {
			return h.root, h.magic == unix.CGROUP2_SUPER_MAGIC
		}
	}
	t.Skip("no cgroup hierarchy is mounted in which workloads are told apart")
	return "", false
}

// startIn starts a command in a cgroup: from its first instruction on.
func startIn(t *testing.T, cmd *exec.Cmd, directory string) error {
	t.Helper()
	root, second := hierarchy(t)
	if second {
		group, err := os.Open(directory)
		if err != nil {
			t.Fatal(err)
		}
		defer group.Close()
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
		return cmd.Start()
	}
	// The first version lets a thread be elsewhere than its process; what it forks is where it is.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := os.WriteFile(filepath.Join(directory, "tasks"), []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	err := cmd.Start()
	if err := os.WriteFile(filepath.Join(root, "tasks"), []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	return err
}

// runIn is cmd.CombinedOutput in a cgroup.
func runIn(t *testing.T, cmd *exec.Cmd, directory string) (string, error) {
	t.Helper()
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	err := startIn(t, cmd, directory)
	if err == nil {
		err = cmd.Wait()
	}
	return strings.TrimSpace(output.String()), err
}

// performIn is perform in a cgroup.
func performIn(t *testing.T, directory, role string, args ...string) (pid uint32, output string) {
	t.Helper()
	cmd := actor(t, role, args...)
	out, err := runIn(t, cmd, directory)
	if err != nil {
		t.Fatalf("role %s: %v: %s", role, err, out)
	}
	return uint32(cmd.Process.Pid), out
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

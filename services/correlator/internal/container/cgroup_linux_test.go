package container

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// cgroupID is the inode of the directory of a process's cgroup, in the cgroup2 hierarchy if it is in one below the
// root, else in the v1 memory hierarchy: what the kernel's programs report.
func cgroupID(t *testing.T, pid uint32) uint64 {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatalf("read the container's cgroup: %v", err)
	}
	for line := range strings.SplitSeq(string(raw), "\n") {
		parts := strings.SplitN(line, ":", 3)
		if len(parts) != 3 || parts[2] == "/" {
			continue
		}
		for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup", "/sys/fs/cgroup/" + parts[1]} {
			info, err := os.Stat(filepath.Join(root, parts[2]))
			if err != nil {
				continue
			}
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				return stat.Ino
			}
		}
	}
	t.Skipf("no cgroup directory for %q", raw)
	return 0
}

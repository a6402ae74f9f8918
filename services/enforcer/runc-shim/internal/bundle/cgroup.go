package bundle

import (
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// CgroupOf is CgroupID of a process: by /proc/PID/cgroup, and the place where version 2's hierarchy is mounted.
func CgroupOf(pid int) uint64 {
	if pid <= 0 {
		return 0
	}
	path, ok := unified(string(readProc("/proc/" + strconv.Itoa(pid) + "/cgroup")))
	if !ok {
		return 0
	}
	mount, ok := cgroup2(string(readProc("/proc/self/mountinfo")))
	var stat syscall.Stat_t
	if !ok || syscall.Stat(filepath.Join(mount, path), &stat) != nil || stat.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return 0
	}
	return stat.Ino
}

// unified is the path in version 2's hierarchy (cgroups(7), /proc/PID/cgroup): "0::/path".
func unified(cgroups string) (string, bool) {
	for line := range strings.Lines(cgroups) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return path, filepath.IsAbs(path) && filepath.Clean(path) == path
		}
	}
	return "", false
}

// cgroup2 is where version 2's whole hierarchy is mounted.
func cgroup2(mounts string) (string, bool) {
	for line := range strings.Lines(mounts) {
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		fields := strings.Fields(before)
		if ok && len(fields) > 4 && fields[3] == "/" && strings.HasPrefix(after, "cgroup2 ") {
			return unescape(fields[4]), true
		}
	}
	return "", false
}

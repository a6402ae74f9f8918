package bundle

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestCgroupOf(t *testing.T) {
	for in, want := range map[string]string{
		"12:pids:/docker/x\n0::/docker/y\n": "/docker/y",
		"0::/\n":                            "/",
		"0::/..\n":                          "", // of another cgroup namespace
		"0::relative\n":                     "",
		"12:pids:/docker/x\n":               "",
		"":                                  "",
	} {
		if got, ok := unified(in); ok != (want != "") || ok && got != want {
			t.Errorf("unified(%q) = %q, %v, want %q", in, got, ok, want)
		}
	}
	mount, ok := cgroup2(string(readProc("/proc/self/mountinfo")))
	path, here := unified(string(readProc("/proc/self/cgroup")))
	if !ok || !here {
		t.Skip("no cgroup v2 on this machine")
	}
	var stat syscall.Stat_t
	if err := syscall.Stat(filepath.Join(mount, path), &stat); err != nil {
		t.Skip(err)
	}
	if got := CgroupOf(os.Getpid()); got != stat.Ino {
		t.Errorf("CgroupOf(this process) = %d, want %d, the inode of %s below %s", got, stat.Ino, path, mount)
	}
	for _, pid := range []int{0, -1, 1 << 30} {
		if got := CgroupOf(pid); got != 0 {
			t.Errorf("CgroupOf(%d) = %d, want 0", pid, got)
		}
	}
}

func FuzzCgroup(f *testing.F) {
	f.Add("0::/a\n", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
	f.Add("0::", "30 23 0:26 / ")
	f.Fuzz(func(t *testing.T, cgroups, mounts string) {
		if path, ok := unified(cgroups); ok && filepath.Clean("/"+path) != path {
			t.Errorf("unified(%q) = %q, want an absolute path that is clean", cgroups, path)
		}
		if mount, ok := cgroup2(mounts); ok && mount == "" {
			t.Errorf("cgroup2(%q) is empty", mounts)
		}
	})
}

// Package cgroup caps what each Palisade process may use, on cgroup v2, v1 and hybrid hosts. It writes the handful of
// files itself: the libraries for it bring an eBPF loader and a D-Bus client, which the supervisor is better without.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/privilege"
)

// root is where hosts mount their cgroups (file-hierarchy(7)).
const root = "/sys/fs/cgroup"

// cpuPeriod is the period CPU quotas are counted in, microseconds (kernel's default).
const cpuPeriod = 100_000

// Group is one process's cgroup: a directory on v2, one in each controller's hierarchy on v1.
type Group struct {
	directories []string
}

// Create makes the group parent/name with the limits, replacing an empty one of that name.
func Create(parent, name string, limits privilege.Limits) (*Group, error) {
	if unified() {
		return createV2(parent, name, limits)
	}
	return createV1(parent, name, limits)
}

// unified reports whether the host mounts cgroup v2 alone.
func unified() bool {
	var stat unix.Statfs_t
	return unix.Statfs(root, &stat) == nil && stat.Type == unix.CGROUP2_SUPER_MAGIC
}

func createV2(parent, name string, limits privilege.Limits) (*Group, error) {
	top := filepath.Join(root, parent)
	directory := filepath.Join(top, name)
	for _, dir := range []string{root, top} {
		if err := makeDirectory(dir); err != nil {
			return nil, err
		}
		if err := write(dir, "cgroup.subtree_control", "+memory +cpu +pids"); err != nil {
			return nil, err
		}
	}
	if err := makeDirectory(directory); err != nil {
		return nil, err
	}
	g := &Group{directories: []string{directory}}
	quota := int64(limits.CPUs * cpuPeriod)
	err := errors.Join(
		write(directory, "memory.max", strconv.FormatInt(limits.MemoryBytes(), 10)),
		write(directory, "cpu.max", fmt.Sprintf("%d %d", quota, cpuPeriod)),
		write(directory, "pids.max", strconv.FormatInt(limits.PIDs, 10)),
	)
	if err != nil {
		return nil, errors.Join(err, g.Remove())
	}
	return g, nil
}

func createV1(parent, name string, limits privilege.Limits) (*Group, error) {
	settings := []struct{ controller, file, value string }{
		{"memory", "memory.limit_in_bytes", strconv.FormatInt(limits.MemoryBytes(), 10)},
		{"cpu", "cpu.cfs_quota_us", strconv.FormatInt(int64(limits.CPUs*cpuPeriod), 10)},
		{"pids", "pids.max", strconv.FormatInt(limits.PIDs, 10)},
	}
	g := &Group{}
	for _, s := range settings {
		directory := filepath.Join(root, s.controller, parent, name)
		err := makeDirectory(filepath.Dir(directory))
		if err == nil {
			err = makeDirectory(directory)
		}
		if err == nil {
			g.directories = append(g.directories, directory)
			err = write(directory, s.file, s.value)
		}
		if err != nil {
			return nil, errors.Join(err, g.Remove())
		}
	}
	return g, nil
}

// Procs are the files a process writes 0 to in order to enter the group.
func (g *Group) Procs() []string {
	procs := make([]string, len(g.directories))
	for i, directory := range g.directories {
		procs[i] = filepath.Join(directory, "cgroup.procs")
	}
	return procs
}

// Remove removes the group, and its parent if that is empty then. The kernel may take a moment to forget a process
// that has just died, so a busy group is tried again for a second.
func (g *Group) Remove() error {
	var errs []error
	for _, directory := range g.directories {
		errs = append(errs, removeBusy(directory))
		_ = os.Remove(filepath.Dir(directory)) // the last group takes the parent with it
	}
	return errors.Join(errs...)
}

// RemoveLeft removes the group parent/name that a supervisor which was killed has left, and returns its directories.
func RemoveLeft(parent, name string) ([]string, error) {
	var left []string
	for _, hierarchy := range []string{root, filepath.Join(root, "*")} {
		found, err := filepath.Glob(filepath.Join(hierarchy, parent, name))
		if err != nil {
			return nil, fmt.Errorf("find cgroups: %w", err)
		}
		left = append(left, found...)
	}
	return left, (&Group{directories: left}).Remove()
}

func removeBusy(directory string) error {
	var err error
	for range 100 {
		err = os.Remove(directory)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("remove cgroup: %w", err)
}

func makeDirectory(path string) error {
	//nolint:gosec // the mode of every other cgroup: their figures are for all to read
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create cgroup: %w", err)
	}
	return nil
}

func write(directory, file, value string) error {
	path := filepath.Join(directory, file)
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		hint := ""
		if strings.HasSuffix(file, "subtree_control") {
			hint = " (does another manager own this hierarchy?)"
		}
		return fmt.Errorf("limit cgroup: write %s to %s: %w%s", value, path, err, hint)
	}
	return nil
}

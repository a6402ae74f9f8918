package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/privilege"
)

// Where Palisade pins: a directory of the host's BPF file system.
const (
	bpffs     = "/sys/fs/bpf"
	pinsOfAll = bpffs + "/palisade"
	// mountMark is there if that file system was mounted by us; a supervisor that is killed cannot remember it.
	mountMark = bpffs + "/palisade-mounted"
)

// makePins makes the directory in which the collector's programs outlive it, and mounts the BPF file system if the host has not.
// What an earlier node's collector left there is taken over.
func makePins(path string, uid int) error {
	var at unix.Statfs_t
	if err := unix.Statfs(bpffs, &at); err != nil {
		return fmt.Errorf("pin programs: %s: %w: mount /sys", bpffs, err)
	}
	if at.Type != unix.BPF_FS_MAGIC {
		if err := unix.Mount("bpf", bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755"); err != nil {
			return fmt.Errorf("pin programs: mount a BPF file system at %s: %w", bpffs, err)
		}
		if err := os.Mkdir(mountMark, 0o700); err != nil {
			return fmt.Errorf("pin programs: %w", err)
		}
	}
	//nolint:gosec // the collector, another user, must get through to its own
	if err := os.Mkdir(pinsOfAll, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("pin programs: %w", err)
	}
	if err := (directory{path: path, mode: 0o700, uid: uid, gid: uid}).make(); err != nil {
		return fmt.Errorf("pin programs: %w", err)
	}
	return nil
}

// removePins takes one node's programs out of the kernel. If they were the last, the directory of all goes, and the mount if it
// was ours and nobody else has pinned anything there.
func removePins(path string) error {
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("unpin programs: %w", err)
	}
	err := os.Remove(pinsOfAll)
	if errors.Is(err, unix.ENOTEMPTY) {
		return nil // another node's
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unpin programs: %w", err)
	}
	return unmount()
}

// RemovePins takes the programs out of the kernel that a collector in a container pinned below this name, and returns the path if it
// was there.
func RemovePins(name string) (removed []string, err error) {
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		return nil, fmt.Errorf("--pins: %q is not a name of a directory in %s", name, pinsOfAll)
	}
	path := filepath.Join(pinsOfAll, name)
	if _, err := os.Stat(path); err == nil {
		removed = []string{path}
	}
	return removed, removePins(path)
}

// HandOverPins gives the collector's uid a directory that is mounted from a BPF file system and, until then, root's.
func HandOverPins(path string) error {
	table, err := privilege.Load()
	if err != nil {
		return err
	}
	collector, err := table.Row("collector")
	if err != nil {
		return err
	}
	// By a descriptor: what is looked at is what is handed over.
	directory, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return handedOver(path, int(collector.UID), err)
	}
	defer directory.Close()
	var at unix.Statfs_t
	if err := unix.Fstatfs(int(directory.Fd()), &at); err != nil {
		return fmt.Errorf("hand over pins: %s: %w", path, err)
	}
	if at.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("hand over pins: %s is not in a BPF file system: mount one on the host (mount -t bpf bpf %s)", path, bpffs)
	}
	// Mode first: nobody but the owner may change it without CAP_FOWNER.
	if err := errors.Join(directory.Chmod(0o700), directory.Chown(int(collector.UID), int(collector.UID))); err != nil {
		return fmt.Errorf("hand over pins: %w", err)
	}
	return nil
}

// handedOver makes nothing of a directory that cannot be opened because it is the collector's already.
func handedOver(path string, uid int, err error) error {
	var now unix.Stat_t
	if errors.Is(err, fs.ErrPermission) && unix.Lstat(path, &now) == nil && int(now.Uid) == uid {
		return nil
	}
	return fmt.Errorf("hand over pins: %w", err)
}

func unmount() error {
	if _, err := os.Stat(mountMark); err != nil {
		return nil //nolint:nilerr // not ours
	}
	left, err := os.ReadDir(bpffs)
	if err != nil {
		return fmt.Errorf("unmount %s: %w", bpffs, err)
	}
	for _, entry := range left {
		// The kernel itself puts the latter two into every BPF file system (CONFIG_BPF_PRELOAD).
		if name := bpffs + "/" + entry.Name(); name != mountMark && name != bpffs+"/maps.debug" && name != bpffs+"/progs.debug" {
			return nil // somebody else's pins
		}
	}
	if err := unix.Unmount(bpffs, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", bpffs, err)
	}
	return nil
}

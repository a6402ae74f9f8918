package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Where Palisade pins: a directory of the host's BPF file system.
const (
	bpffs     = "/sys/fs/bpf"
	pinsOfAll = bpffs + "/palisade"
)

// pinned is the directory in which the collector's programs outlive it.
type pinned struct {
	directory string
	// mounted says that the BPF file system is there because of us.
	mounted bool
}

// makePins makes the directory for the collector, and mounts the BPF file system if the host has not. What an earlier node's
// collector left there is taken over.
func makePins(path string, uid int) (*pinned, error) {
	p := &pinned{directory: path}
	var at unix.Statfs_t
	if err := unix.Statfs(bpffs, &at); err != nil {
		return nil, fmt.Errorf("pin programs: %s: %w: mount /sys", bpffs, err)
	}
	if at.Type != unix.BPF_FS_MAGIC {
		if err := unix.Mount("bpf", bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755"); err != nil {
			return nil, fmt.Errorf("pin programs: mount a BPF file system at %s: %w", bpffs, err)
		}
		p.mounted = true
	}
	if err := os.Mkdir(pinsOfAll, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return p, fmt.Errorf("pin programs: %w", err)
	}
	if err := (&directory{path: path, mode: 0o700, uid: uid, gid: uid}).make(); err != nil {
		return p, fmt.Errorf("pin programs: %w", err)
	}
	return p, nil
}

// remove takes the programs out of the kernel, and the mount if it was ours and nobody else has pinned anything meanwhile.
func (p *pinned) remove() error {
	if p == nil {
		return nil
	}
	if err := removePins(p.directory); err != nil {
		return err
	}
	if !p.mounted {
		return nil
	}
	if left, err := os.ReadDir(bpffs); err != nil || len(left) > 0 {
		return err // somebody else's pins
	}
	if err := unix.Unmount(bpffs, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", bpffs, err)
	}
	return nil
}

// removePins removes one node's pins, and the directory of all if it was the last.
func removePins(directory string) error {
	if err := os.RemoveAll(directory); err != nil {
		return fmt.Errorf("unpin programs: %w", err)
	}
	err := os.Remove(pinsOfAll)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTEMPTY) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unpin programs: %w", err)
	}
	return nil
}

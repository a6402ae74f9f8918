package runcshim

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// kind is what stands at a path.
type kind int

const (
	missing kind = iota
	program      // can be started, and is no shim
	shim         // a copy of palisade-runc, of whatever version
	strange      // no file, or a script that calls the shim: nothing that a shim could stand for
)

// What the shim itself goes by (services/enforcer/runc-shim/internal/realrunc); a test compares the two.
const (
	// ShimName is in every shim, and in nothing else that the shim would start.
	ShimName = "palisade-runc"
	// KeptSuffix is of the directory beside a shim that keeps the program in whose place it stands.
	KeptSuffix  = ".palisade"
	largestShim = 6 << 20
)

// look says what stands at a path, which must not be a symbolic link.
func look(path string) (kind, fs.FileInfo, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return missing, nil, nil
	}
	if err != nil {
		return strange, nil, err
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return strange, info, nil
	}
	if info.Size() > largestShim {
		return program, info, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return strange, info, err
	}
	switch {
	case !bytes.Contains(raw, []byte(ShimName)):
		return program, info, nil
	case bytes.HasPrefix(raw, []byte("\x7fELF")):
		return shim, info, nil
	}
	return strange, info, nil
}

// Hash is the SHA-256 of a file in hexadecimal digits, or "" with the error.
func Hash(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// copiesAttribute says whether a shim gets a runC's attribute: by the file's label SELinux decides which domain runC is in. Capabilities
// and signatures belong to the content.
func copiesAttribute(name string) bool {
	return name != "security.capability" && name != "security.ima" && name != "security.evm"
}

// copyFile copies content to a new file that has owner, mode and extended attributes of another, and is on disk. No process is started
// meanwhile: one that inherits the open file keeps everybody from executing it (ETXTBSY), until it executes something itself.
func copyFile(from, to string, like fs.FileInfo, likePath string, every bool) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	if stat, ok := like.Sys().(*syscall.Stat_t); ok && (int(stat.Uid) != os.Geteuid() || int(stat.Gid) != os.Getegid()) {
		if err := out.Chown(int(stat.Uid), int(stat.Gid)); err != nil {
			return err
		}
	}
	mode := like.Mode().Perm()
	if every {
		mode |= like.Mode() & (fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	}
	if err := out.Chmod(mode); err != nil {
		return err
	}
	if err := copyAttributes(likePath, int(out.Fd()), every); err != nil {
		return err
	}
	return out.Sync()
}

func copyAttributes(from string, to int, every bool) error {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(from, names)
	if errors.Is(err, unix.ENOTSUP) || n == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list attributes of %s: %w", from, err)
	}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if !every && !copiesAttribute(name) {
			continue
		}
		n, err := unix.Lgetxattr(from, name, value)
		if err == nil {
			err = unix.Fsetxattr(to, name, value[:n], 0)
		}
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("copy attribute %s of %s: %w", name, from, err)
		}
	}
	return nil
}

// exchange swaps two files in one step: there is no moment at which either name is of nothing, and what is taken out is what
// stood there in that moment, whoever put it there. errors.ErrUnsupported says that the file system cannot.
func exchange(a, b string) error {
	err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return errors.ErrUnsupported
	}
	if err != nil {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return nil
}

// syncDirectory writes a directory's names to disk.
func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	defer directory.Close()
	if err := directory.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// changeable says why a file cannot be replaced: without changing anything.
func changeable(path string) error {
	directory := filepath.Dir(path)
	var fsinfo unix.Statfs_t
	if err := unix.Statfs(directory, &fsinfo); err != nil {
		return fmt.Errorf("%s: %w", directory, err)
	}
	if fsinfo.Flags&unix.ST_RDONLY != 0 {
		return fmt.Errorf("%s is on a read-only file system: %w", directory, unix.EROFS)
	}
	if err := unix.Faccessat(unix.AT_FDCWD, directory, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("%s cannot be written: %w", directory, err)
	}
	for _, what := range []string{directory, path} {
		var stat unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, what, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &stat); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return fmt.Errorf("%s: %w", what, err)
		}
		if stat.Attributes&unix.STATX_ATTR_IMMUTABLE != 0 || stat.Attributes&unix.STATX_ATTR_APPEND != 0 {
			return fmt.Errorf("%s is immutable (chattr -i lifts it): %w", what, unix.EPERM)
		}
		if what == path && stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
			return fmt.Errorf("%s is a mount point, which nothing can take the place of: %w", what, unix.EBUSY)
		}
	}
	return nil
}

// running says whether a process still is this file. Shims live for some milliseconds.
func running(info fs.FileInfo) bool {
	processes, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return false
	}
	for _, process := range processes {
		if exe, err := os.Stat(process); err == nil && os.SameFile(exe, info) {
			return true
		}
	}
	return false
}

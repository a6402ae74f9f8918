// Package statedir opens the directory in which a process keeps what must survive it, for that process alone.
package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrInUse says that another process has the directory open.
var ErrInUse = errors.New("another process uses it")

// Dir is an open state directory. Nobody else can open it until Close.
type Dir struct {
	path string
	lock *os.File
}

// Open makes the directory with mode 0700 if it is not there, checks that it can be written, and locks it. The error
// names the directory and says what to do; it wraps ErrInUse if a live process holds the lock.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, advise(path, err)
	}
	if err := writable(path); err != nil {
		return nil, advise(path, err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, advise(path, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, advise(path, err)
	}
	return &Dir{path: path, lock: lock}, nil
}

// Path is where the directory is.
func (d *Dir) Path() string { return d.path }

// Close lets others open the directory.
func (d *Dir) Close() error { return d.lock.Close() }

// Check reports whether Open could work, and changes nothing: the directory is there and writable, or the nearest
// parent that exists lets us make it.
func Check(path string) error {
	for nearest := path; ; nearest = filepath.Dir(nearest) {
		info, err := os.Stat(nearest)
		if errors.Is(err, fs.ErrNotExist) && nearest != filepath.Dir(nearest) {
			continue
		}
		if err == nil && !info.IsDir() {
			err = syscall.ENOTDIR
		}
		if err == nil {
			err = writable(nearest)
		}
		return advise(path, err)
	}
}

// writable asks the kernel with the effective ids; root passes unless the file system is read-only.
func writable(path string) error {
	return unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
}

func advise(path string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrInUse) {
		return fmt.Errorf("state directory %s: %w: stop it, or give this one a directory of its own", path, err)
	}
	return fmt.Errorf("state directory %s: %w: make it, owned by uid %d with mode 0700", path, err, os.Geteuid())
}

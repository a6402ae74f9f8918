// Package unixsock makes the sockets between Palisade's processes and says who is at the other end.
//
// Neither side trusts a name in the file system: the server learns the caller's uid from the kernel, and the caller
// learns the server's, so a process that squats on a socket's path is found out before a byte of ours is sent.
package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// ErrInUse says that a live process serves the socket.
var ErrInUse = errors.New("another process is serving it")

// Listener is a listening unix socket that removes its name when closed.
type Listener struct {
	*net.UnixListener
	path  string
	inode uint64
	once  sync.Once
}

// Listen makes a stream socket at path with mode 0660 and the given group, and replaces one that a dead process of
// the same uid left there. It returns ErrInUse if that process is alive, fs.ErrPermission if the name belongs to
// another uid.
//
// chmod after listen would leave a moment in which anyone may connect, and a umask belongs to all threads. So the
// socket is made inside a directory that only we can enter, gets its mode and group there, and is renamed.
func Listen(path string, group int) (*Listener, error) {
	if err := refuseLive(path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	private, err := os.MkdirTemp(filepath.Dir(path), ".listen-")
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer os.RemoveAll(private)
	hidden := filepath.Join(private, "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	listener.SetUnlinkOnClose(false)
	inode, err := publish(hidden, path, group)
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &Listener{UnixListener: listener, path: path, inode: inode}, nil
}

func publish(hidden, path string, group int) (inode uint64, err error) {
	if err := os.Chmod(hidden, 0o660); err != nil { //nolint:gosec // the group is how the others get in
		return 0, err
	}
	if err := os.Chown(hidden, -1, group); err != nil {
		return 0, err
	}
	inode, err = inodeOf(hidden)
	if err != nil {
		return 0, err
	}
	return inode, os.Rename(hidden, path)
}

// refuseLive reports ErrInUse if somebody answers at path.
func refuseLive(path string) error {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return ErrInUse
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	return err
}

// Close stops listening and removes the name, unless a successor has taken it over already.
func (l *Listener) Close() error {
	err := l.UnixListener.Close()
	l.once.Do(func() {
		if inode, statErr := inodeOf(l.path); statErr == nil && inode == l.inode {
			err = errors.Join(err, os.Remove(l.path))
		}
	})
	return err
}

func inodeOf(path string) (uint64, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("stat %s: no inode", path)
	}
	return stat.Ino, nil
}

package overlay

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// node is what a name leads to: a directory of the view, or something else in one of the layers.
type node struct {
	directory *directory
	at        member
	stat      unix.Stat_t
}

// resolve follows a name, and the links on the way, within the view.
func (f *FS) resolve(name string) (node, error) {
	at := f.root
	rest := components(name)
	// A directory that was found before needs no walk: its path has no links in it.
	if slash := strings.LastIndexByte(name, '/'); slash > 0 && f.cached[name[:slash]] != nil {
		at, rest = f.cached[name[:slash]], []string{name[slash+1:]}
	}
	links := 0
	for len(rest) > 0 {
		next := rest[0]
		rest = rest[1:]
		if next == ".." { // at the root, the root itself
			at = at.parent
			continue
		}
		n, err := f.lookup(at, next)
		if err != nil {
			return node{}, err
		}
		switch {
		case n.directory != nil:
			at = n.directory
		case n.stat.Mode&unix.S_IFMT == unix.S_IFLNK:
			target, err := f.readlink(n.at)
			if err != nil {
				return node{}, err
			}
			if links++; links > maxLinks {
				return node{}, unix.ELOOP
			}
			if strings.HasPrefix(target, "/") {
				at = f.root
			}
			rest = append(components(target), rest...)
			if len(rest) > maxPath {
				return node{}, unix.ENAMETOOLONG
			}
		case len(rest) > 0:
			return node{}, unix.ENOTDIR
		default:
			return n, nil
		}
	}
	return node{directory: at, stat: at.stat}, nil
}

// components are the names in a path, those that mean nothing left out.
func components(name string) []string {
	var names []string
	for part := range strings.SplitSeq(name, "/") {
		if part != "" && part != "." {
			names = append(names, part)
		}
	}
	return names
}

// lookup finds a name in a directory of the view, from the topmost layer down.
func (f *FS) lookup(d *directory, name string) (node, error) {
	found := &directory{path: child(d.path, name), parent: d}
	if known := f.cached[found.path]; known != nil {
		return node{directory: known, stat: known.stat}, nil
	}
	if len(found.path) >= maxPath {
		return node{}, unix.ENAMETOOLONG
	}
	for i, m := range d.members {
		below := member{layer: m.layer, path: child(m.path, name)}
		stat, opaque, err := f.look(below, i+1 < len(d.members))
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return node{}, err
		}
		if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
			if len(found.members) == 0 && !whiteout(&stat) {
				return node{at: below, stat: stat}, nil
			}
			break // hidden by the directory above, or hides what is below
		}
		if len(found.members) == 0 {
			found.stat = stat
		}
		found.members = append(found.members, below)
		if opaque {
			break
		}
	}
	if len(found.members) == 0 {
		return node{}, unix.ENOENT
	}
	if len(f.cached) >= maxCached {
		clear(f.cached)
	}
	f.cached[found.path] = found
	return node{directory: found, stat: found.stat}, nil
}

// beneath opens something in a layer: no link is followed, no other file system entered (/proc in a root directory, for example),
// nothing left.
func (f *FS) beneath(m member, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(f.layers[m.layer], m.path, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// look is the state of something in a layer, and whether it is a directory that hides what is below it. That is asked only if
// something is below.
func (f *FS) look(m member, more bool) (stat unix.Stat_t, opaque bool, err error) {
	fd, err := f.beneath(m, unix.O_PATH)
	if err != nil {
		return stat, false, err
	}
	defer shut(fd)
	if err := unix.Fstat(fd, &stat); err != nil {
		return stat, false, err
	}
	return stat, more && stat.Mode&unix.S_IFMT == unix.S_IFDIR && isOpaque(fd), nil
}

// opaqueAttributes mark a directory that hides those below it. The first is seen by who has CAP_SYS_ADMIN only (xattr(7)).
var opaqueAttributes = []string{"trusted.overlay.opaque", "user.overlay.opaque"}

func isOpaque(fd int) bool {
	var value [1]byte
	for _, name := range opaqueAttributes {
		// fgetxattr refuses a descriptor that was opened with O_PATH.
		if n, err := unix.Getxattr(descriptor(fd), name, value[:]); err == nil && n == 1 && value[0] == 'y' {
			return true
		}
	}
	return false
}

// descriptor is a path that leads to what is open, and to nothing else.
func descriptor(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// whiteout says whether something stands for what is not there.
func whiteout(stat *unix.Stat_t) bool {
	return stat.Mode&unix.S_IFMT == unix.S_IFCHR && stat.Rdev == 0
}

func (f *FS) readlink(m member) (string, error) {
	fd, err := f.beneath(m, unix.O_PATH)
	if err != nil {
		return "", err
	}
	defer shut(fd)
	target := make([]byte, maxPath)
	n, err := unix.Readlinkat(fd, "", target)
	if err != nil {
		return "", err
	}
	return string(target[:n]), nil
}

// open opens a regular file. To open a device or a FIFO does something, so what it is is asked first, and then what was asked
// about is opened, whatever its name leads to by now.
func (f *FS) open(n node) (*os.File, error) {
	fd, err := f.beneath(n.at, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer shut(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return nil, err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%w: not a regular file", fs.ErrPermission)
	}
	opened, err := unix.Open(descriptor(fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(opened), "layer"), nil
}

// each lists a directory of a layer.
func (f *FS) each(m member, found func(name string, stat *unix.Stat_t) error) error {
	fd, err := f.beneath(m, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), "layer")
	defer file.Close()
	for {
		names, err := file.Readdirnames(1024)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f.take(&f.entries, int64(len(names))); err != nil {
			return err
		}
		for _, name := range names {
			var stat unix.Stat_t
			err := unix.Fstatat(fd, name, &stat, unix.AT_SYMLINK_NOFOLLOW)
			if errors.Is(err, unix.ENOENT) {
				continue // gone in the meantime
			}
			if err != nil {
				return err
			}
			if err := found(name, &stat); err != nil {
				return err
			}
		}
	}
}

// shut closes what nothing was written to.
func shut(fd int) { _ = unix.Close(fd) }

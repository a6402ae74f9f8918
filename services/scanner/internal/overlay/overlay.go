// Package overlay shows the layers of an image, directories on the host, as the one read-only file system that a container of it
// would see: overlayfs's whiteouts and opaque directories hide what is below them, and symbolic links lead where they would lead in
// the container, never out of the layers.
//
// What is in the layers is foreign and may be hostile. Names are looked up one by one, by the kernel, beneath a layer's directory and
// without following links (openat2 with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS); the links are followed here. Only regular files are
// opened, after a look at what they are. How many entries are listed and how many bytes are read is bounded.
//
// https://docs.kernel.org/filesystems/overlayfs.html
package overlay

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Bounds that nobody changes.
const (
	// maxLinks is how many symbolic links one name may lead through, as in Linux (path_resolution(7)).
	maxLinks = 40
	// maxPath bounds a name, and what a link adds to one, in bytes; Linux's PATH_MAX.
	maxPath = 4096
	// maxCached bounds the directories that are remembered.
	maxCached = 4096
	// maxDirectory bounds the entries of one directory.
	maxDirectory = 200_000
)

// ErrExhausted says that a bound was reached. Whatever is asked after that fails with it too.
var ErrExhausted = errors.New("the layers have more in them than is read")

// Limits bound what is read in all.
type Limits struct {
	// Entries of directories, over all layers.
	Entries int64
	// Bytes read from files. Reading one twice counts twice.
	Bytes int64
}

// FS is the merged view. It implements fs.FS, fs.ReadDirFS and fs.StatFS, and is safe for concurrent use.
type FS struct {
	layers  []int // directories opened with O_PATH, the topmost first
	entries atomic.Int64
	bytes   atomic.Int64
	failed  atomic.Bool // a bound was reached

	mu     sync.Mutex
	root   *directory
	cached map[string]*directory // by path, without links
}

// directory is a directory of the merged view.
type directory struct {
	path    string // in the view; "." is the root
	parent  *directory
	members []member // where it is, the topmost first
	stat    unix.Stat_t
}

// member is a directory of a layer.
type member struct {
	layer int
	path  string
}

// New opens the layers, absolute paths, the topmost first. They may themselves be reached over links: the host names them, not the
// image.
func New(layers []string, limits Limits) (*FS, error) {
	f := &FS{cached: map[string]*directory{}}
	f.entries.Store(limits.Entries)
	f.bytes.Store(limits.Bytes)
	root := &directory{path: "."}
	for i, layer := range layers {
		fd, err := unix.Open(layer, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open layer %d of %d: %w", i+1, len(layers), err), f.Close())
		}
		f.layers = append(f.layers, fd)
		root.members = append(root.members, member{layer: i, path: "."})
	}
	if len(layers) == 0 {
		return nil, errors.New("there are no layers")
	}
	if err := unix.Fstat(f.layers[0], &root.stat); err != nil {
		return nil, errors.Join(fmt.Errorf("look at the topmost layer: %w", err), f.Close())
	}
	root.parent = root
	f.root = root
	return f, nil
}

// Close closes the layers. Files that are open stay so.
func (f *FS) Close() error {
	var errs []error
	for _, fd := range f.layers {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}

// Exhausted says whether a bound was reached: then what was found is not all.
func (f *FS) Exhausted() bool { return f.failed.Load() }

// take counts towards a bound.
func (f *FS) take(left *atomic.Int64, n int64) error {
	if left.Add(-n) < 0 {
		f.failed.Store(true)
	}
	if f.failed.Load() {
		return ErrExhausted
	}
	return nil
}

// Open opens a regular file for reading or a directory for listing, following links. Anything else is fs.ErrPermission.
func (f *FS) Open(name string) (fs.File, error) {
	n, err := f.find("open", name)
	if err != nil {
		return nil, err
	}
	if n.directory != nil {
		return &listing{fs: f, info: n.info(name), directory: n.directory}, nil
	}
	file, err := f.open(n)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &regular{file: file, fs: f, info: n.info(name)}, nil
}

// Stat looks at a file, following links.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	n, err := f.find("stat", name)
	if err != nil {
		return nil, err
	}
	return n.info(name), nil
}

// ReadDir lists a directory by name. Links in it are not followed.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := f.find("readdir", name)
	if err != nil {
		return nil, err
	}
	if n.directory == nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: unix.ENOTDIR}
	}
	entries, err := f.list(n.directory)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	return entries, nil
}

func (f *FS) find(op, name string) (node, error) {
	if !fs.ValidPath(name) {
		return node{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	if f.failed.Load() {
		return node{}, &fs.PathError{Op: op, Path: name, Err: ErrExhausted}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.resolve(name)
	if err != nil {
		return node{}, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return n, nil
}

// list merges the listings of a directory's members: what a layer has hides what is called the same below it.
func (f *FS) list(d *directory) ([]fs.DirEntry, error) {
	var entries []fs.DirEntry
	seen := map[string]bool{}
	for _, m := range d.members {
		err := f.each(m, func(name string, stat *unix.Stat_t) error {
			if seen[name] {
				return nil
			}
			if len(seen) >= maxDirectory {
				f.failed.Store(true)
				return ErrExhausted
			}
			seen[name] = true
			if !whiteout(stat) {
				entries = append(entries, fs.FileInfoToDirEntry(info{name: name, stat: *stat}))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return compare(a.Name(), b.Name()) })
	return entries, nil
}

// child is a name's path below a directory of the view or of a layer.
func child(directory, name string) string { return path.Join(directory, name) }

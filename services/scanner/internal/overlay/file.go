package overlay

import (
	"cmp"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

func compare(a, b string) int { return cmp.Compare(a, b) }

func (n node) info(name string) info { return info{name: path.Base(name), stat: n.stat} }

// info is fs.FileInfo of what a layer has.
type info struct {
	name string
	stat unix.Stat_t
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.stat.Size }
func (i info) ModTime() time.Time { return time.Unix(i.stat.Mtim.Unix()) }
func (i info) IsDir() bool        { return i.Mode().IsDir() }
func (i info) Sys() any           { return nil }

// modes are the types of files.
var modes = map[uint32]fs.FileMode{
	unix.S_IFBLK: fs.ModeDevice, unix.S_IFCHR: fs.ModeDevice | fs.ModeCharDevice, unix.S_IFDIR: fs.ModeDir, unix.S_IFIFO: fs.ModeNamedPipe,
	unix.S_IFLNK: fs.ModeSymlink, unix.S_IFREG: 0, unix.S_IFSOCK: fs.ModeSocket,
}

func (i info) Mode() fs.FileMode {
	mode, ok := modes[i.stat.Mode&unix.S_IFMT]
	if !ok {
		mode = fs.ModeIrregular
	}
	return mode | fs.FileMode(i.stat.Mode)&fs.ModePerm
}

// regular is an open file. It can be read at any place, which is what readers of executables and archives do.
type regular struct {
	file *os.File
	fs   *FS
	info info
}

func (r *regular) Stat() (fs.FileInfo, error) { return r.info, nil }
func (r *regular) Close() error               { return r.file.Close() }

// Read counts what it reads towards the bound.
func (r *regular) Read(p []byte) (int, error) {
	n, err := r.file.Read(p)
	return r.counted(n, err)
}

// ReadAt counts what it reads towards the bound.
func (r *regular) ReadAt(p []byte, offset int64) (int, error) {
	n, err := r.file.ReadAt(p, offset)
	return r.counted(n, err)
}

func (r *regular) counted(n int, err error) (int, error) {
	if bound := r.fs.take(&r.fs.bytes, int64(n)); bound != nil {
		return 0, bound
	}
	return n, err
}

// Seek implements io.Seeker.
func (r *regular) Seek(offset int64, whence int) (int64, error) { return r.file.Seek(offset, whence) }

// listing is an open directory.
type listing struct {
	fs        *FS
	info      info
	directory *directory
	listed    bool
	rest      []fs.DirEntry
}

func (l *listing) Stat() (fs.FileInfo, error) { return l.info, nil }
func (l *listing) Close() error               { return nil }
func (l *listing) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: l.directory.path, Err: unix.EISDIR}
}

// ReadDir implements fs.ReadDirFile.
func (l *listing) ReadDir(n int) ([]fs.DirEntry, error) {
	if !l.listed {
		entries, err := l.fs.list(l.directory)
		if err != nil {
			return nil, &fs.PathError{Op: "readdir", Path: l.directory.path, Err: err}
		}
		l.rest, l.listed = entries, true
	}
	if n <= 0 || n > len(l.rest) {
		if n > 0 && len(l.rest) == 0 {
			return nil, io.EOF
		}
		n = len(l.rest)
	}
	entries := l.rest[:n]
	l.rest = l.rest[n:]
	return entries, nil
}

// Package realrunc finds the runC that the shim stands in for.
//
// In: the shim's own file, the caller's PATH, fixed directories. Out: files to try, best first. It never looks in the
// working directory, which is a container's bundle, and never offers a shim: neither its own file, told by device and
// inode whatever the name, nor another copy, nor a script that calls one (shim.go).
package realrunc

import (
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// Name is the shim's name where it stands in nobody's place.
	Name = "palisade-runc"
	// KeptSuffix is of the directory beside a shim that keeps, under its own name, the program in whose place the shim
	// stands, or a symbolic link to it: /usr/sbin/runc.palisade/runc. It has its name there because processes are known
	// by the names of their files.
	KeptSuffix = ".palisade"

	runc = "runc"

	// scriptPatience and patience are how much processor time a process may have used when the shim begins, before it takes
	// this for a circle: a program leads to the shim and the shim to that program. Scripts are left out first, which
	// nearly always are what is wrong; then it gives up. One start takes some ms, and the time counts on over an execve.
	scriptPatience = time.Second
	patience       = 5 * time.Second
)

// ErrCircle says that a program that was taken for runC leads back to the shim.
var ErrCircle = errors.New("what stands for runC calls the shim, again and again")

// directories are looked in after PATH: those of distributions, and those of k3s, which runs its own runC.
var directories = []string{
	"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/var/lib/rancher/k3s/data/current/bin",
}

// Self is the shim's file.
type Self struct {
	// Path is where it is, or was: it may have been replaced since. "" if there is no /proc.
	Path string
	info fs.FileInfo
	used time.Duration // processor time of this process, of programs before this one, too
}

// FindSelf asks the kernel for the file that runs. The error is ErrCircle.
func FindSelf() (Self, error) {
	var self Self
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err == nil {
		self.used = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	if path, err := os.Readlink("/proc/self/exe"); err == nil {
		self.Path = strings.TrimSuffix(path, " (deleted)")
	}
	if info, err := os.Stat("/proc/self/exe"); err == nil {
		self.info = info
	}
	if self.used > patience {
		return self, ErrCircle
	}
	return self, nil
}

// Of is the shim at a path, for a program that belongs to it. The error is ErrCircle.
func Of(path string) (Self, error) {
	self, err := FindSelf()
	self.Path = path
	if info, statErr := os.Stat(path); statErr == nil {
		self.info = info
	}
	return self, err
}

// Kept is where the program is kept in whose place the shim stands.
func (s Self) Kept() string { return filepath.Join(s.Beside(), s.name()) }

// Beside is the directory of what belongs to the shim.
func (s Self) Beside() string { return s.Path + KeptSuffix }

// name is what the program is called in whose place the shim stands.
func (s Self) name() string {
	if name := filepath.Base(s.Path); s.Path != "" && name != Name {
		return name
	}
	return runc
}

// Candidates are absolute paths of programs that are no shim. They are looked for one by one, as they are asked for.
func (s Self) Candidates(searchPath string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, path := range s.places(searchPath) {
			if s.offers(path) && !yield(path) {
				return
			}
		}
	}
}

// places are all paths that are worth a look.
func (s Self) places(searchPath string) []string {
	var places []string
	if s.Path != "" {
		places = append(places, s.Kept())
	}
	names := []string{s.name()}
	if names[0] != runc {
		names = append(names, runc)
	}
	for _, name := range names {
		for _, directory := range append(filepath.SplitList(searchPath), directories...) {
			if !filepath.IsAbs(directory) {
				continue // "" and "." are the working directory
			}
			path := filepath.Join(directory, name)
			// If another shim stands there, what it stands for is beside it.
			places = append(places, path, filepath.Join(path+KeptSuffix, name))
		}
	}
	return places
}

// offers says whether a path is a program, and no shim.
func (s Self) offers(path string) bool {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return false
	}
	if s.info != nil && os.SameFile(s.info, info) {
		return false
	}
	if s.used > scriptPatience && isScript(path) {
		return false
	}
	return info.Size() > LargestShim || !marked(path)
}

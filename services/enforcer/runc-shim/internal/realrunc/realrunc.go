// Package realrunc finds the runC that the shim stands in for.
//
// In: the shim's own file, the caller's PATH, fixed directories. Out: files to try, best first. It never looks in the
// working directory, which is a container's bundle, and never offers a shim: neither its own file, told by device and
// inode whatever the name, nor another copy, nor a script that calls one (shim.go).
package realrunc

import (
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
)

const (
	// Name is the shim's name where it stands in nobody's place.
	Name = "palisade-runc"
	// KeptSuffix is of the directory beside a shim that keeps, under its own name, the program in whose place the shim
	// stands, or a symbolic link to it: /usr/sbin/runc.palisade/runc. It has its name there because processes are known
	// by the names of their files.
	KeptSuffix = ".palisade"

	runc = "runc"
)

// directories are looked in after PATH: those of distributions, and those of k3s, which runs its own runC.
var directories = []string{
	"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/var/lib/rancher/k3s/data/current/bin",
}

// Self is the shim's file.
type Self struct {
	// Path is where it is, or was: it may have been replaced since. "" if there is no /proc.
	Path string
	info fs.FileInfo
}

// FindSelf asks the kernel for the file that runs.
func FindSelf() Self {
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return Self{}
	}
	info, err := os.Stat("/proc/self/exe")
	if err != nil {
		return Self{Path: path}
	}
	return Self{Path: strings.TrimSuffix(path, " (deleted)"), info: info}
}

// Kept is where the program is kept in whose place the shim stands.
func (s Self) Kept() string {
	return filepath.Join(s.Path+KeptSuffix, s.name())
}

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
	return info.Size() > LargestShim || !marked(path)
}

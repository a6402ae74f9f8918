// Package engine finds the OCI runtimes that a host's container engines call.
//
// In: the engines' configuration files and the usual directories, below a root. Out: programs, each with who calls it and
// where that is written. Nothing is changed, and nothing is started. A file that cannot be understood is an error that
// names file and line: who cannot read a configuration must not guess what it says.
package engine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
)

// Names of engines, as people write them.
const (
	Docker     = "docker"
	Containerd = "containerd"
	Podman     = "podman"
	CRIO       = "cri-o"
	K3s        = "k3s"
)

// User is an engine that calls a runtime.
type User struct {
	Engine string
	// Handler is the engine's name for the runtime.
	Handler string
	// Where is file and line that say so, or empty: the engine looks in PATH.
	Where string
}

// Runtime is a program that engines call.
type Runtime struct {
	// Path is where it really is on the host, without the root and without symbolic links.
	Path string
	// Aliases are other paths that lead there, sorted.
	Aliases []string
	// Users are the engines that call it.
	Users []User
	// RunC says whether it goes by runC's name. Others are told of, because they are a way past the shim.
	RunC bool
}

// Engines are the names of its users, each once.
func (r Runtime) Engines() []string {
	var names []string
	for _, user := range r.Users {
		if !slices.Contains(names, user.Engine) {
			names = append(names, user.Engine)
		}
	}
	return names
}

// directories are PATH as distributions' units and shells have it.
var directories = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// runcName matches the file names of runC: runc, runc-1.2, docker-runc, runc.amd64.
var runcName = regexp.MustCompile(`^(docker-)?runc([-.][A-Za-z0-9.+~_-]+)?$`)

// IsRunC says whether a file's name is one of runC's.
func IsRunC(path string) bool { return runcName.MatchString(filepath.Base(path)) }

// Resolve follows symbolic links below root, and returns where on the host it ends.
func Resolve(root, path string) (string, error) {
	full, err := securejoin.SecureJoin(root, path)
	if err != nil {
		return "", err
	}
	relative, err := filepath.Rel(filepath.Join("/", root), full)
	return filepath.Join("/", relative), err
}

// Before says whether a runtime comes before the one at another path where programs are searched.
func Before(r Runtime, other string) bool {
	rank := func(paths ...string) int {
		for i, directory := range directories {
			if slices.ContainsFunc(paths, func(path string) bool { return filepath.Dir(path) == directory }) {
				return i
			}
		}
		return len(directories)
	}
	return rank(append(r.Aliases, r.Path)...) < rank(other)
}

// finder gathers what engines call.
type finder struct {
	root  string
	found map[string]*Runtime // by Path
	errs  []error
}

// Find returns the runtimes in use, in the order of their paths. Configuration that it could not read is in the error,
// and the rest is returned all the same.
func Find(root string) ([]Runtime, error) {
	f := &finder{root: root, found: map[string]*Runtime{}}
	for _, look := range []func(){f.docker, f.containerd, f.podman, f.crio, f.k3s} {
		look()
	}
	runtimes := make([]Runtime, 0, len(f.found))
	for _, runtime := range f.found {
		slices.Sort(runtime.Aliases)
		runtimes = append(runtimes, *runtime)
	}
	slices.SortFunc(runtimes, func(a, b Runtime) int { return strings.Compare(a.Path, b.Path) })
	return runtimes, errors.Join(f.errs...)
}

// fail keeps an error of a configuration.
func (f *finder) fail(err error) {
	if err != nil {
		f.errs = append(f.errs, err)
	}
}

// add notes a program. What is not there is none.
func (f *finder) add(path string, user User) bool {
	if !filepath.IsAbs(path) {
		return false
	}
	real, err := Resolve(f.root, path)
	if err != nil {
		f.fail(err)
		return false
	}
	info, err := os.Stat(filepath.Join(f.root, real))
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	runtime := f.found[real]
	if runtime == nil {
		runtime = &Runtime{Path: real, RunC: IsRunC(real)}
		f.found[real] = runtime
	}
	if clean := filepath.Clean(path); clean != real && !slices.Contains(runtime.Aliases, clean) {
		runtime.Aliases = append(runtime.Aliases, clean)
	}
	if !slices.Contains(runtime.Users, user) {
		runtime.Users = append(runtime.Users, user)
	}
	return true
}

// search adds every program of that name in the usual directories: which of them an engine takes depends on its PATH.
func (f *finder) search(name string, user User) {
	if name == "" || strings.Contains(name, "/") {
		return
	}
	for _, directory := range directories {
		f.add(filepath.Join(directory, name), user)
	}
}

// has says whether a program of that name is in the usual directories.
func (f *finder) has(names ...string) bool {
	for _, name := range names {
		for _, directory := range directories {
			if path, err := securejoin.SecureJoin(f.root, filepath.Join(directory, name)); err == nil {
				if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
					return true
				}
			}
		}
	}
	return false
}

// glob returns host paths.
func (f *finder) glob(pattern string) []string {
	matches, err := fs.Glob(os.DirFS(filepath.Join("/", f.root)), strings.TrimPrefix(filepath.Clean(pattern), "/"))
	f.fail(err)
	for i := range matches {
		matches[i] = filepath.Join("/", matches[i])
	}
	return matches
}

// k3s looks for the runCs that k3s and RKE2 unpack, one for each version of theirs.
func (f *finder) k3s() {
	for _, pattern := range []string{"/var/lib/rancher/k3s/data/*/bin/runc", "/var/lib/rancher/rke2/data/*/bin/runc"} {
		for _, path := range f.glob(pattern) {
			f.add(path, User{Engine: K3s, Handler: "runc"})
		}
	}
}

package engine

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
)

// ContainerdConfig is where containerd's configuration is.
const ContainerdConfig = "/etc/containerd/config.toml"

// Ids of the plugin that makes the CRI's containers, by version of the configuration.
const (
	criVersion2 = "io.containerd.grpc.v1.cri"
	criVersion3 = "io.containerd.cri.v1.runtime"
)

// maxImports bounds how many files a configuration may name, whatever it imports from where.
const maxImports = 64

// Server is what of containerd's configuration is about runtimes.
type Server struct {
	Version int            `toml:"version"`
	Imports []string       `toml:"imports"`
	State   string         `toml:"state"`
	Plugins map[string]any `toml:"plugins"`
}

// ParseServer reads a config.toml of version 1 to 3. Errors name file and line.
func ParseServer(path string, raw []byte) (Server, error) {
	var server Server
	if err := decodeTOML(path, raw, &server); err != nil {
		return Server{}, err
	}
	if server.Version < 0 || server.Version > 3 {
		return Server{}, fmt.Errorf("%s:%d: version %d is not known here", path, lineOf(raw, "version"), server.Version)
	}
	return server, nil
}

// Plugin is the id of the plugin that makes the CRI's containers.
func (s Server) Plugin() string {
	switch s.Version {
	case 3:
		return criVersion3
	case 2:
		return criVersion2
	}
	return "cri"
}

// Binaries are the runtimes' names, and the program that each is told to call: "" for runC in PATH.
func (s Server) Binaries() map[string]string {
	binaries := map[string]string{}
	for name, value := range table(s.Plugins, s.Plugin(), "containerd", "runtimes") {
		runtime, _ := value.(map[string]any)
		kind, _ := runtime["runtime_type"].(string)
		if kind != "" && kind != "io.containerd.runc.v2" && kind != "io.containerd.runc.v1" {
			continue // calls no runC
		}
		binaries[name], _ = table(runtime, "options")["BinaryName"].(string)
	}
	return binaries
}

// table walks down tables; what is none is empty.
func table(from map[string]any, keys ...string) map[string]any {
	for _, key := range keys {
		from, _ = from[key].(map[string]any)
	}
	return from
}

// containerd looks for those of the CRI, and for what `ctr` and others call if they do not say: runC in PATH.
func (f *finder) containerd() {
	files := f.imports(ContainerdConfig, map[string]bool{})
	if len(files) == 0 && !f.has("containerd") {
		return
	}
	f.search("runc", User{Engine: Containerd, Handler: "runc"})
	for _, file := range files {
		for name, binary := range file.server.Binaries() {
			user := User{Engine: Containerd, Handler: name, Where: fmt.Sprintf("%s:%d", file.path, lineOf(file.raw, "runtimes."+name))}
			if binary == "" {
				continue
			}
			user.Where = fmt.Sprintf("%s:%d", file.path, lineOf(file.raw, binary))
			if !f.add(binary, user) {
				f.search(binary, user)
			}
		}
	}
}

// serverFile is a file of containerd's configuration.
type serverFile struct {
	path   string
	raw    []byte
	server Server
}

// imports reads a file, then what it imports, once each.
func (f *finder) imports(path string, seen map[string]bool) []serverFile {
	if seen[path] || len(seen) >= maxImports {
		return nil
	}
	seen[path] = true
	file := serverFile{path: path}
	if !f.config(path, func(path string, raw []byte) (err error) {
		file.raw = raw
		file.server, err = ParseServer(path, raw)
		return err
	}) {
		return nil
	}
	files := []serverFile{file}
	for _, pattern := range file.server.Imports {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(path), pattern)
		}
		for _, match := range f.glob(pattern) {
			files = append(files, f.imports(match, seen)...)
		}
	}
	return files
}

// ServerFile is a file of containerd's configuration, as Servers tells it.
type ServerFile struct {
	Path   string
	Server Server
}

// Servers are the files of containerd's configuration, the main one first; none if there is none.
func Servers(root string) ([]ServerFile, error) {
	f := &finder{root: root}
	var files []ServerFile
	for _, file := range f.imports(ContainerdConfig, map[string]bool{}) {
		files = append(files, ServerFile{Path: file.path, Server: file.server})
	}
	if len(f.errs) > 0 {
		return nil, f.errs[0]
	}
	return files, nil
}

// Handlers are a configuration's names of runtimes that call runC, sorted; runc if it names none, as it is by default.
func Handlers(files []ServerFile) []string {
	names := map[string]bool{}
	for _, file := range files {
		for name := range file.Server.Binaries() {
			names[name] = true
		}
	}
	if len(names) == 0 {
		return []string{"runc"}
	}
	return slices.Sorted(maps.Keys(names))
}

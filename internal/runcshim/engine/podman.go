package engine

import (
	"fmt"
	"maps"
	"slices"
)

// containersConfigs are where Podman's configuration is, in the order in which it is read.
var containersConfigs = []string{
	"/usr/share/containers/containers.conf", "/etc/containers/containers.conf", "/etc/containers/containers.conf.d/*.conf",
}

// containersConf is what of containers.conf is about runtimes.
type containersConf struct {
	Engine struct {
		Runtime  string              `toml:"runtime"`
		Runtimes map[string][]string `toml:"runtimes"`
	} `toml:"engine"`
}

// ParseContainersConf reads a containers.conf, and returns the default runtime, "" if it says nothing, and the runtimes' paths.
func ParseContainersConf(path string, raw []byte) (byDefault string, runtimes map[string][]string, err error) {
	var conf containersConf
	if err := decodeTOML(path, raw, &conf); err != nil {
		return "", nil, err
	}
	return conf.Engine.Runtime, conf.Engine.Runtimes, nil
}

// podman looks for Podman's: it takes the first path of a runtime at which something is.
func (f *finder) podman() {
	paths, where := map[string][]string{}, map[string]string{}
	for _, pattern := range containersConfigs {
		for _, path := range f.glob(pattern) {
			f.config(path, func(path string, raw []byte) error {
				_, runtimes, err := ParseContainersConf(path, raw)
				for name := range runtimes {
					where[name] = fmt.Sprintf("%s:%d", path, lineOf(raw, name))
				}
				maps.Copy(paths, runtimes)
				return err
			})
		}
	}
	if len(paths) == 0 && !f.has("podman") {
		return
	}
	f.search("runc", User{Engine: Podman, Handler: "runc"})
	f.search("crun", User{Engine: Podman, Handler: "crun"})
	for _, name := range slices.Sorted(maps.Keys(paths)) {
		for _, path := range paths[name] {
			f.add(path, User{Engine: Podman, Handler: name, Where: where[name]})
		}
	}
}

// crioConfigs are CRI-O's.
var crioConfigs = []string{"/etc/crio/crio.conf", "/etc/crio/crio.conf.d/*", "/usr/share/crio/crio.conf.d/*"}

// crio looks for CRI-O's: it brings runC along in directories of its own.
func (f *finder) crio() {
	present := f.has("crio")
	for _, pattern := range crioConfigs {
		for _, path := range f.glob(pattern) {
			var conf struct {
				CRIO struct {
					Runtime struct {
						Runtimes map[string]struct {
							Path string `toml:"runtime_path"`
						} `toml:"runtimes"`
					} `toml:"runtime"`
				} `toml:"crio"`
			}
			var raw []byte
			present = f.config(path, func(path string, content []byte) error {
				raw = content
				return decodeTOML(path, content, &conf)
			}) || present
			for name, runtime := range conf.CRIO.Runtime.Runtimes {
				user := User{Engine: CRIO, Handler: name, Where: fmt.Sprintf("%s:%d", path, lineOf(raw, "runtimes."+name))}
				if !f.add(runtime.Path, user) {
					f.search(name, user)
				}
			}
		}
	}
	if !present {
		return
	}
	for _, path := range []string{"/usr/libexec/crio/runc", "/usr/lib/cri-o-runc/sbin/runc"} {
		f.add(path, User{Engine: CRIO, Handler: "runc"})
	}
	f.search("runc", User{Engine: CRIO, Handler: "runc"})
}

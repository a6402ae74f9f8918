package engine

import (
	"fmt"
)

// DockerConfig is where dockerd's configuration is.
const DockerConfig = "/etc/docker/daemon.json"

// Daemon is what of dockerd's configuration is about runtimes.
type Daemon struct {
	Default  string                   `json:"default-runtime"`
	Runtimes map[string]DaemonRuntime `json:"runtimes"`
	DataRoot string                   `json:"data-root"`
	PIDFile  string                   `json:"pidfile"`
}

// PID is where dockerd writes its pid.
func (d Daemon) PID() string {
	if d.PIDFile == "" {
		return "/var/run/docker.pid"
	}
	return d.PIDFile
}

// DaemonRuntime is one of its runtimes: a program that is called as runC is, or a shim of containerd's with options.
type DaemonRuntime struct {
	Path    string `json:"path"`
	Type    string `json:"runtimeType"`
	Options struct {
		BinaryName string `json:"BinaryName"`
	} `json:"options"`
}

// ParseDaemon reads a daemon.json. Errors name file and line.
func ParseDaemon(path string, raw []byte) (Daemon, error) {
	var daemon Daemon
	err := decodeJSON(path, raw, &daemon)
	return daemon, err
}

// docker looks for dockerd's: runC in PATH unless told otherwise, and those with names.
func (f *finder) docker() {
	var raw []byte
	var daemon Daemon
	configured := f.config(DockerConfig, func(path string, content []byte) (err error) {
		raw = content
		daemon, err = ParseDaemon(path, content)
		return err
	})
	if configured || f.has("dockerd") {
		f.search("runc", User{Engine: Docker, Handler: "runc"})
		f.search("docker-runc", User{Engine: Docker, Handler: "runc"})
	}
	for name, runtime := range daemon.Runtimes {
		user := User{Engine: Docker, Handler: name, Where: fmt.Sprintf("%s:%d", DockerConfig, lineOf(raw, `"`+name+`"`))}
		for _, path := range []string{runtime.Path, runtime.Options.BinaryName} {
			if !f.add(path, user) {
				f.search(path, user)
			}
		}
	}
}

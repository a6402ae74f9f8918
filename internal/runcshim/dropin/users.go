package dropin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxUserFile bounds what is read of a container's files, in bytes.
const maxUserFile = 1 << 20

// DockerUsers are ids of Docker's containers that name the shim's runtime, stopped ones too: Docker does not start a
// container whose runtime it does not know.
func DockerUsers(root, dataRoot string) ([]string, error) {
	if dataRoot == "" {
		dataRoot = "/var/lib/docker"
	}
	files, err := filepath.Glob(filepath.Join(root, dataRoot, "containers/*/hostconfig.json"))
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, path := range files {
		var config struct{ Runtime string }
		raw, err := read(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err == nil {
			err = json.Unmarshal(raw, &config)
		}
		if err != nil {
			return nil, fmt.Errorf("it is not known whether this container names the runtime: %s: %w", path, err)
		}
		if config.Runtime == Runtime {
			ids = append(ids, filepath.Base(filepath.Dir(path)))
		}
	}
	return ids, nil
}

// bundles are where containerd's shims keep the options that a running container was made with: containerd's own, that of
// a dockerd which started it, k3s'.
var bundles = []string{
	"run/containerd", "run/docker/containerd/daemon", "var/run/docker/containerd/daemon", "run/k3s/containerd",
}

// ContainerdUsers are ids of running containers whose shim of containerd's goes on calling a program whose path begins with prefix.
func ContainerdUsers(root, state, prefix string) ([]string, error) {
	places := bundles
	if state != "" {
		places = append([]string{state}, places...)
	}
	var ids []string
	for _, place := range places {
		files, err := filepath.Glob(filepath.Join(root, place, "io.containerd.runtime.v2.task/*/*"))
		if err != nil {
			return nil, err
		}
		for _, bundle := range files {
			for _, name := range []string{"runtime", "options.json"} {
				raw, err := read(filepath.Join(bundle, name))
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					return nil, fmt.Errorf("it is not known whether this container calls the shim: %w", err)
				}
				if strings.Contains(string(raw), prefix) {
					ids = append(ids, filepath.Base(bundle))
					break
				}
			}
		}
	}
	return ids, nil
}

// read reads a container's file, which is small.
func read(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxUserFile))
}

// Package dropin writes what engines' configurations must say for the shim to be a runtime of theirs, and unwrites it.
//
// In: configuration as it is. Out: configuration as it is to be, or the reason why it is left alone, which names file and line. It
// changes no file. What is a drop-in file here is recognised by its first line, and is ours as a whole.
package dropin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sort"
	"strings"

	"github.com/palisade-sec/palisade/internal/runcshim/engine"
)

// Runtime is the name that Docker knows the shim by.
const Runtime = "palisade"

// Header is the first line of files that are ours.
const Header = "# Written by `palisade shim install`; `palisade shim uninstall` removes it.\n"

// Names of drop-in files. They are read after others, by their names.
const (
	PodmanFile     = "/etc/containers/containers.conf.d/90-palisade.conf"
	ContainerdFile = "90-palisade.toml"
)

// ErrLeftAlone says that a configuration cannot be changed without taking something from somebody.
var ErrLeftAlone = errors.New("nothing was changed")

// IsOurs says whether a drop-in file is.
func IsOurs(raw []byte) bool { return bytes.HasPrefix(raw, []byte(Header)) }

// AddDocker returns a daemon.json that names the shim as runtime, and as the default one. raw is the one that is there,
// nil if there is none. A default that is not runC is somebody's decision, and is left alone.
func AddDocker(path string, raw []byte, shim string) ([]byte, error) {
	daemon, err := engine.ParseDaemon(path, raw)
	if err != nil {
		return nil, err
	}
	if daemon.Default != "" && daemon.Default != "runc" && daemon.Default != Runtime {
		return nil, fmt.Errorf("%s: the default runtime is %q, not runC: %w: use --mode replace, which covers the runC that it calls", path, daemon.Default, ErrLeftAlone)
	}
	if other, ok := daemon.Runtimes[Runtime]; ok && other.Path != shim {
		return nil, fmt.Errorf("%s: a runtime %q is there already, at %q: %w: rename it", path, Runtime, other.Path, ErrLeftAlone)
	}
	whole, runtimes, err := open(path, raw)
	if err != nil {
		return nil, err
	}
	if runtimes[Runtime], err = json.Marshal(map[string]string{"path": shim}); err != nil {
		return nil, err
	}
	whole["default-runtime"] = json.RawMessage(`"` + Runtime + `"`)
	return seal(whole, runtimes)
}

// RemoveDocker returns a daemon.json without the shim, nil if nothing else is in it. between is for the time in which containers
// and a running dockerd still know the runtime: it stays, and runC is the default by name, because a dockerd that reads its
// configuration again goes on with the default that it has if that does not say another.
func RemoveDocker(path string, raw []byte, between bool) ([]byte, error) {
	daemon, err := engine.ParseDaemon(path, raw)
	if err != nil {
		return nil, err
	}
	whole, runtimes, err := open(path, raw)
	if err != nil {
		return nil, err
	}
	switch {
	case between:
		whole["default-runtime"] = json.RawMessage(`"runc"`)
	case daemon.Default == Runtime:
		delete(whole, "default-runtime")
	}
	if !between {
		delete(runtimes, Runtime)
	}
	return seal(whole, runtimes)
}

func open(path string, raw []byte) (whole, runtimes map[string]json.RawMessage, err error) {
	whole, runtimes = map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if len(bytes.TrimSpace(raw)) > 0 {
		if err := json.Unmarshal(raw, &whole); err != nil {
			return nil, nil, fmt.Errorf("%s:1: %w", path, err)
		}
	}
	if part, ok := whole["runtimes"]; ok {
		if err := json.Unmarshal(part, &runtimes); err != nil {
			return nil, nil, fmt.Errorf("%s: runtimes: %w", path, err)
		}
	}
	if whole == nil { // the file says null
		whole = map[string]json.RawMessage{}
	}
	if runtimes == nil {
		runtimes = map[string]json.RawMessage{}
	}
	return whole, runtimes, nil
}

func seal(whole, runtimes map[string]json.RawMessage) ([]byte, error) {
	delete(whole, "runtimes")
	if len(runtimes) > 0 {
		part, err := json.Marshal(runtimes)
		if err != nil {
			return nil, err
		}
		whole["runtimes"] = part
	}
	if len(whole) == 0 {
		return nil, nil
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "    ")
	err := encoder.Encode(whole)
	return out.Bytes(), err
}

// Podman returns a drop-in by which Podman's runtime runc is the shim first, and runC itself where the shim is gone. The
// runtime keeps its name, so that containers that were made with either go on with the other.
func Podman(shim string, runc []string) []byte {
	paths := make([]string, 0, len(runc)+1)
	for _, path := range append([]string{shim}, runc...) {
		paths = append(paths, quote(path))
	}
	return []byte(Header + "[engine.runtimes]\nrunc = [" + strings.Join(paths, ", ") + "]\n")
}

// Containerd returns a drop-in by which each runtime, by its name, calls the program given for it.
func Containerd(server engine.Server, binaries map[string]string) []byte {
	return []byte(fmt.Sprintf("%sversion = %d\n\n%s", Header, server.Version, ContainerdLines(server, binaries)))
}

// ContainerdLines are the lines of it that can stand in any file of containerd's.
func ContainerdLines(server engine.Server, binaries map[string]string) string {
	names := make([]string, 0, len(binaries))
	for name := range binaries {
		names = append(names, name)
	}
	sort.Strings(names)
	var out strings.Builder
	for _, name := range names {
		fmt.Fprintf(&out, "[plugins.%s.containerd.runtimes.%s.options]\n  BinaryName = %s\n", quote(server.Plugin()), quote(name), quote(binaries[name]))
	}
	return out.String()
}

// ContainerdDirectory is where a drop-in of containerd's goes, so that nothing of the configuration is lost by it. The error says
// why there is no such place: containerd 1 takes the last file's whole table of a plugin, and forgets what others say of it.
func ContainerdDirectory(files []engine.ServerFile) (string, error) {
	if len(files) == 0 {
		return "", fmt.Errorf("%s: there is none: %w", engine.ContainerdConfig, ErrLeftAlone)
	}
	server := files[0].Server
	if server.Version < 2 {
		return "", fmt.Errorf("%s: it is of version %d: %w: containerd config migrate", files[0].Path, server.Version, ErrLeftAlone)
	}
	for _, file := range files {
		if server.Version == 2 && file.Server.Plugins[server.Plugin()] != nil && filepath.Base(file.Path) != ContainerdFile {
			return "", fmt.Errorf("%s: it has a table of %s, which containerd would forget for that of a drop-in: %w", file.Path, server.Plugin(), ErrLeftAlone)
		}
	}
	for _, pattern := range server.Imports {
		if ok, err := filepath.Match(filepath.Base(pattern), ContainerdFile); err == nil && ok && !strings.ContainsAny(filepath.Dir(pattern), "*?[") {
			if filepath.IsAbs(pattern) {
				return filepath.Dir(pattern), nil
			}
			return filepath.Join(filepath.Dir(files[0].Path), filepath.Dir(pattern)), nil
		}
	}
	return "", fmt.Errorf("%s: its imports name no directory of *.toml: %w", files[0].Path, ErrLeftAlone)
}

// quote writes a TOML string.
func quote(text string) string {
	var out strings.Builder
	out.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			out.WriteByte('\\')
			out.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&out, `\u%04X`, r)
		default:
			out.WriteRune(r)
		}
	}
	out.WriteByte('"')
	return out.String()
}

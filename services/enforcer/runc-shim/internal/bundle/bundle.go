// Package bundle reads what a container is about to be made of: its configuration, its image's layers and, once it is made, its cgroup.
//
// In: paths of runC's command line. Out: bytes and paths. What cannot be read is missing in the answer, never an error that stops anybody:
// runC will say what is wrong with it. Nothing is opened but regular files, and no more is read than a bound says.
package bundle

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const (
	// maxSpec bounds config.json in bytes; it is about 20 KiB, and no check looks at one above 4 MiB.
	maxSpec = 4 << 20
	// maxState bounds runC's state.json.
	maxState = 8 << 20
	// maxMounts bounds mountinfo: a node with thousands of containers has some MiB.
	maxMounts = 16 << 20
	// maxLayers is the kernel's, for overlayfs (OVL_MAX_STACK).
	maxLayers = 500

	// defaultRoot is where runC keeps state if nothing else is said and root calls it.
	defaultRoot = "/run/runc"
)

// Spec is the content of config.json in a bundle, nil if there is none that can be read.
func Spec(directory string) []byte { return read(filepath.Join(directory, "config.json"), maxSpec) }

// read returns nil for what is no regular file, or too long.
func read(path string, most int64) []byte {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() > most {
		return nil
	}
	raw := make([]byte, info.Size())
	if _, err := io.ReadFull(file, raw); err != nil {
		return nil
	}
	return raw
}

// readProc is what the kernel writes, of which it tells no size; nil if it cannot be read.
func readProc(path string) []byte {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, maxMounts))
	if err != nil {
		return nil
	}
	return raw
}

// Layers are the directories of the image's layers, the topmost first, links resolved. nil if the container's root is no overlay.
func Layers(directory string, spec []byte) []string {
	var config struct{ Root struct{ Path string } }
	if json.Unmarshal(spec, &config) != nil || config.Root.Path == "" {
		return nil
	}
	root := config.Root.Path
	if !filepath.IsAbs(root) {
		root = filepath.Join(directory, root)
	}
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil
	}
	raw := readProc("/proc/self/mountinfo")
	layers := overlay(string(raw), root)
	for i := range layers {
		if layers[i], err = filepath.EvalSymlinks(layers[i]); err != nil || !filepath.IsAbs(layers[i]) {
			return nil
		}
	}
	return layers
}

// overlay finds the overlay that is mounted at root, and returns its lower directories, without the one that Docker puts above an image's.
func overlay(mounts, root string) []string {
	options := ""
	for line := range strings.Lines(mounts) {
		// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue (proc(5), /proc/pid/mountinfo)
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if ok && len(fields) > 4 && len(rest) > 2 && rest[0] == "overlay" && unescape(fields[4]) == root {
			options = unescape(rest[2]) // the last one is on top
		}
	}
	var lower, upper string
	for option := range strings.SplitSeq(options, ",") {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "lowerdir":
			lower = value
		case "lowerdir+": // Linux 6.5, one a layer
			lower = strings.TrimPrefix(lower+":"+value, ":")
		case "upperdir":
			upper = value
		}
	}
	if lower == "" {
		return nil
	}
	layers := split(lower)
	// Docker's overlay2: ID/diff is above ID-init/diff, which holds mount points for files of the container's own.
	if init := strings.TrimSuffix(upper, "/diff") + "-init"; len(layers) > 1 && upper != "" && initOf(layers[0], init) {
		layers = layers[1:]
	}
	if len(layers) > maxLayers {
		return nil
	}
	return layers
}

// initOf says whether a layer, which may be named by a link, is the directory's.
func initOf(layer, init string) bool {
	real, err := filepath.EvalSymlinks(layer)
	if err != nil {
		real = layer
	}
	return real == filepath.Join(init, "diff")
}

// split takes a list apart at its colons. One with a backslash before it is part of a name (Documentation/filesystems/overlayfs.rst).
func split(list string) []string {
	var out []string
	var name strings.Builder
	for i := 0; i < len(list); i++ {
		switch {
		case list[i] == '\\' && i+1 < len(list):
			i++
			name.WriteByte(list[i])
		case list[i] == ':':
			out = append(out, name.String())
			name.Reset()
		default:
			name.WriteByte(list[i])
		}
	}
	out = append(out, name.String())
	return slices.DeleteFunc(out, func(name string) bool { return name == "" }) // "::" begins data-only layers
}

// unescape undoes what the kernel does to blanks and backslashes (seq_path, show_mountinfo): \040 and the like.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			out.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

func octal(c byte) bool { return '0' <= c && c <= '7' }

// CgroupID is that of the cgroup of a container that was created, as the kernel numbers it: the inode of the cgroup's directory (kernfs). 0 if it is
// not known, or the host has no cgroup v2.
func CgroupID(root, container string) uint64 {
	if root == "" {
		root = defaultRoot
	}
	if container == "" || container != filepath.Base(container) {
		return 0
	}
	var state struct {
		Paths map[string]string `json:"cgroup_paths"`
	}
	if json.Unmarshal(read(filepath.Join(root, container, "state.json"), maxState), &state) != nil {
		return 0
	}
	path := state.Paths[""] // version 1 has one for each controller
	var stat syscall.Stat_t
	if !filepath.IsAbs(path) || syscall.Stat(path, &stat) != nil || stat.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return 0
	}
	return stat.Ino
}

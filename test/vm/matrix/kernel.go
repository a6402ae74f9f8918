package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// modules are inserted in the VM, in this order; a cloud kernel has the rest of what the tests need built in.
var modules = []string{"overlay"}

// kernel is one that lies ready to boot: vmlinux, release, and modules/*.ko, none of them compressed.
type kernel struct {
	directory string
	// release is what uname says.
	release string
}

func (k kernel) vmlinux() string { return filepath.Join(k.directory, "vmlinux") }

func (k kernel) module(name string) string {
	return filepath.Join(k.directory, "modules", name+".ko")
}

// store keeps a kernel for each suite below its directory, for good: remove the directory for newer ones.
type store struct {
	directory string
	progress  io.Writer
}

// fetch returns the kernel of a suite, from the archive only if it is not there yet.
func (s store) fetch(ctx context.Context, suite string) (kernel, error) {
	directory := filepath.Join(s.directory, suite)
	k, err := openKernel(directory)
	if err == nil {
		return k, nil
	}
	fmt.Fprintf(s.progress, "kernels: fetching the kernel of %s\n", suite)
	if err := os.RemoveAll(directory); err != nil {
		return kernel{}, err
	}
	if err := os.MkdirAll(s.directory, 0o750); err != nil {
		return kernel{}, err
	}
	work, err := os.MkdirTemp(s.directory, "."+suite+"-")
	if err != nil {
		return kernel{}, err
	}
	defer os.RemoveAll(work)
	packages, err := download(ctx, work, suite)
	if err != nil {
		return kernel{}, fmt.Errorf("fetch the kernel of %s: %w", suite, err)
	}
	if err := unpack(ctx, work, packages); err != nil {
		return kernel{}, fmt.Errorf("unpack the kernel of %s: %w", suite, err)
	}
	if err := os.Rename(filepath.Join(work, "ready"), directory); err != nil {
		return kernel{}, err
	}
	return openKernel(directory)
}

// openKernel fails if anything is missing.
func openKernel(directory string) (kernel, error) {
	release, err := os.ReadFile(filepath.Join(directory, "release"))
	if err != nil {
		return kernel{}, err
	}
	k := kernel{directory: directory, release: strings.TrimSpace(string(release))}
	needed := []string{k.vmlinux()}
	for _, name := range modules {
		needed = append(needed, k.module(name))
	}
	for _, path := range needed {
		if _, err := os.Stat(path); err != nil {
			return kernel{}, err
		}
	}
	return k, nil
}

// unpack makes work/ready of the packages.
func unpack(ctx context.Context, work string, packages []string) error {
	root, ready := filepath.Join(work, "root"), filepath.Join(work, "ready")
	if err := os.MkdirAll(filepath.Join(ready, "modules"), 0o750); err != nil {
		return err
	}
	for _, path := range packages {
		if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", path, root).CombinedOutput(); err != nil {
			return fmt.Errorf("dpkg-deb -x %s: %w: %s", path, err, out)
		}
	}
	image, err := find(root, "vmlinuz") // in boot, or from sid's packages on beside the modules
	if err != nil {
		return err
	}
	first, err := find(root, modules[0]+".ko")
	if err != nil {
		return err
	}
	k := kernel{directory: ready, release: releaseOf(first)}
	raw, err := os.ReadFile(image)
	if err != nil {
		return err
	}
	elf, err := extractVmlinux(ctx, raw)
	if err != nil {
		return fmt.Errorf("%s: %w", image, err)
	}
	if err := os.WriteFile(k.vmlinux(), elf, 0o600); err != nil {
		return err
	}
	for _, name := range modules {
		if err := unpackModule(ctx, root, k, name); err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	// Last, because it makes the kernel one that openKernel finds.
	return os.WriteFile(filepath.Join(ready, "release"), []byte(k.release+"\n"), 0o600)
}

// releaseOf a module's path: below modules/ there is a directory for each release.
func releaseOf(module string) string {
	_, rest, _ := strings.Cut(filepath.ToSlash(module), "/lib/modules/")
	release, _, _ := strings.Cut(rest, "/")
	return release
}

func unpackModule(ctx context.Context, root string, k kernel, name string) error {
	path, err := find(root, name+".ko")
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if filepath.Ext(path) != ".ko" {
		if raw, err = decompress(ctx, raw); err != nil {
			return err
		}
	}
	return os.WriteFile(k.module(name), raw, 0o600)
}

// find returns the file below root whose name begins with prefix.
func find(root, prefix string) (string, error) {
	var found string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && strings.HasPrefix(entry.Name(), prefix) {
			found = path
			return fs.SkipAll
		}
		return err
	})
	if err != nil {
		return "", err
	}
	if found == "" {
		return "", errors.New("not in the packages: " + prefix + "*")
	}
	return found, nil
}

package selftest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// ground is what operations are done on, made when it is needed first.
type ground struct {
	candidates []string // where a directory may be made, best first
	directory  string
	names      int
	memory     int // a memory file's descriptor, or -1
}

// newGround is one whose directory is in one of these, its own before everybody's. In a BPF file system there are no regular
// files, and none are needed.
func newGround(own string) *ground {
	g := &ground{candidates: []string{"/dev/shm", os.TempDir()}, memory: -1}
	if own != "" {
		g.candidates = append([]string{own}, g.candidates...)
	}
	return g
}

// fresh is the path of nothing yet.
func (g *ground) fresh() (string, error) {
	var errs []error
	for i := 0; g.directory == "" && i < len(g.candidates); i++ {
		made, err := os.MkdirTemp(g.candidates[i], "palisade-self-test-")
		errs = append(errs, err)
		g.directory = made
	}
	if g.directory == "" {
		return "", fmt.Errorf("no directory that may be written: %w", errors.Join(errs...))
	}
	g.names++
	return filepath.Join(g.directory, strconv.Itoa(g.names)), nil
}

// link makes a symbolic link, the one kind of file that every file system lets us make.
func (g *ground) link() (string, error) {
	path, err := g.fresh()
	if err != nil {
		return "", err
	}
	return path, unix.Symlink("nowhere", path)
}

// file is a memory file, for what needs a regular one.
func (g *ground) file() (int, error) {
	if g.memory >= 0 {
		return g.memory, nil
	}
	fd, err := unix.MemfdCreate("palisade-self-test", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("make a memory file: %w", err)
	}
	g.memory = fd
	return fd, nil
}

// remove leaves nothing.
func (g *ground) remove() error {
	var errs []error
	if g.memory >= 0 {
		errs = append(errs, unix.Close(g.memory))
	}
	if g.directory != "" {
		errs = append(errs, os.RemoveAll(g.directory))
	}
	return errors.Join(errs...)
}

// Package beside lays what a runC shim needs into the directory beside it: the program that decides when the enforcer does not answer, and links to
// where a node is that is not in the usual place.
//
// In: a directory, and what belongs there. Out: files, each whole or not there. Without any of them the shim becomes runC.
package beside

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/palisade-sec/palisade/internal/statedir"
)

// AloneProgram is how the build calls the program that decides in the enforcer's place.
const AloneProgram = "palisade-runc-alone"

// Names in the directory, as the shim has them (services/enforcer/runc-shim).
const (
	Alone  = "alone"
	Socket = "socket"
	Kept   = "admission"
)

// Set is what belongs to a shim.
type Set struct {
	// Alone is a file of this process: AloneProgram. "" is none.
	Alone string
	// Socket and Kept are of the node, on the host: the enforcer's socket for shims, and its directory with what it keeps. "" is the usual place.
	Socket, Kept string
}

// mode is of the program.
const mode = 0o755

// Steps take each change, or only tell of it.
type Steps func(what string, act func() error) error

// Lay makes a directory hold the set and nothing else of its kind. name is the directory's on the host.
func (s Set) Lay(directory, name string, do Steps) error {
	err := link(directory, name, Socket, s.Socket, do)
	err = errors.Join(err, link(directory, name, Kept, s.Kept, do))
	if err != nil || s.Alone == "" {
		return err
	}
	raw, err := os.ReadFile(s.Alone)
	if err != nil {
		return fmt.Errorf("the program that decides when the enforcer does not answer: %w", err)
	}
	path := filepath.Join(directory, Alone)
	info, err := os.Lstat(path)
	if now, readErr := os.ReadFile(path); err == nil && readErr == nil && info.Mode() == mode && slices.Equal(now, raw) {
		return nil
	}
	return do("put what decides without the enforcer at "+filepath.Join(name, Alone), func() error {
		syscall.ForkLock.RLock() // a process that inherits the open file would keep others from executing it
		defer syscall.ForkLock.RUnlock()
		return statedir.WriteFile(path, raw, mode)
	})
}

// link makes a symbolic link, or removes it if there is to be none.
func link(directory, name, as, to string, do Steps) error {
	path := filepath.Join(directory, as)
	now, err := os.Readlink(path)
	if to == now && (err == nil || errors.Is(err, fs.ErrNotExist)) {
		return nil
	}
	if to == "" {
		return do("remove "+filepath.Join(name, as), func() error { return gone(path) })
	}
	return do("link "+filepath.Join(name, as)+" to "+to, func() error {
		temp := path + ".new"
		return errors.Join(gone(temp), os.Symlink(to, temp), os.Rename(temp, path))
	})
}

// Clear removes what Lay laid.
func Clear(directory string) error {
	var errs []error
	for _, name := range []string{Alone, Socket, Kept, Socket + ".new", Kept + ".new"} {
		errs = append(errs, gone(filepath.Join(directory, name)))
	}
	left, err := filepath.Glob(filepath.Join(directory, ".new-*")) // of an interrupted write
	for _, path := range left {
		errs = append(errs, gone(path))
	}
	return errors.Join(append(errs, err)...)
}

func gone(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return err
	}
	return nil
}

// Lacks says what is wrong in a directory, "" if nothing is.
func (s Set) Lacks(directory string) string {
	if s.Alone == "" {
		return ""
	}
	info, err := os.Lstat(filepath.Join(directory, Alone))
	switch {
	case err != nil:
		return "nothing decides there when the enforcer does not answer: every container is created then: palisade shim install puts it there"
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return Alone + " is no program: palisade shim install puts the right one there"
	}
	want, wantErr := os.ReadFile(s.Alone)
	got, err := os.ReadFile(filepath.Join(directory, Alone))
	if err == nil && wantErr == nil && !slices.Equal(want, got) {
		return Alone + " is another version than " + s.Alone + ": palisade shim install puts that there"
	}
	return ""
}

// Package runcshim puts the runC shim in the place of every runC of a host, and takes it out again.
//
// In: the shim's binary, and the host's root. Out: files beside each runC, and a record. A place is always of one of two files, the
// shim or a runC, each of which works: the kernel exchanges them in one step. Nothing but what is on disk is needed to
// finish what was interrupted, or to undo it.
//
// The caller must be root. Programs are started by package ask alone, to hear versions.
package runcshim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/palisade-sec/palisade/internal/runcshim/beside"
	"github.com/palisade-sec/palisade/internal/runcshim/engine"
)

// Host is a machine with container engines.
type Host struct {
	// Root is the host's root directory as this process sees it, "/" if it is its own.
	Root string
	// Binary is the shim that is installed, a path of this process.
	Binary string
	// Beside is what belongs to each shim.
	Beside beside.Set
	// DryRun tells of steps, and takes none.
	DryRun bool
	// ByHand puts shims in place for configuration that a person will write: drop-in mode only.
	ByHand bool
	// Say is told each step before it is taken. It may be nil.
	Say func(step string)

	after    func(step int) error    // a test's crash
	exchange func(a, b string) error // a test's file system
	now      func() time.Time        // a test's clock
}

// Selection is which runCs are meant.
type Selection struct {
	// Paths are on the host. If there are none, all are meant.
	Paths []string
	// Engines are names of package engine's. If there are none, whoever calls them.
	Engines []string
}

// found is a runC with its place.
type found struct {
	engine.Runtime
	place
}

func (h Host) place(path string, s *steps) place {
	exchanging := h.exchange
	if exchanging == nil {
		exchanging = exchange
	}
	return place{path: path, file: filepath.Join(h.Root, path), steps: s, exchange: exchanging}
}

func (h Host) newSteps() *steps { return &steps{dry: h.DryRun, say: h.Say, after: h.after} }

// Install puts the shim in the place of those that are meant. Nothing is changed if one of them cannot be.
// Where it stands already, nothing is done. The error says what to do.
func (h Host) Install(ctx context.Context, which Selection) error {
	if err := h.checkBinary(); err != nil {
		return err
	}
	places, err := h.chosen(which, true)
	if err != nil {
		return err
	}
	if len(places) == 0 {
		return errors.New("no runC was found: install a container engine first, or name its runC with --path")
	}
	return h.locked(func(r *record) error {
		var errs []error
		for _, p := range places {
			err := p.install(ctx, h.Binary)
			if err == nil && !h.DryRun { // a dry run has no directory to look into
				err = h.Beside.Lay(p.directory(), p.path+KeptSuffix, p.steps.do)
			}
			if err == nil && !h.DryRun {
				err = h.note(r, p.place)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

// Uninstall gives the places that are meant back. What is not installed is left alone.
func (h Host) Uninstall(ctx context.Context, which Selection) error {
	places, err := h.chosen(which, false)
	if err != nil {
		return err
	}
	if len(places) == 0 {
		return nil
	}
	return h.locked(func(r *record) error {
		var errs []error
		for _, p := range places {
			err := p.uninstall(ctx)
			if err == nil && !h.DryRun {
				r.forget(p.path)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

// locked does something that nobody else does meanwhile, and keeps the record.
func (h Host) locked(act func(*record) error) (err error) {
	if h.DryRun {
		return act(&record{})
	}
	lock, err := h.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	r := h.readRecord()
	err = act(&r)
	return errors.Join(err, h.writeRecord(r), h.clean(r))
}

// note writes down what stands at a place.
func (h Host) note(r *record, p place) error {
	entry := Entry{Path: p.path, Time: h.time()}
	var err error
	if entry.ShimHash, err = Hash(p.file); err != nil {
		return err
	}
	if entry.RuncHash, err = Hash(p.kept()); err != nil {
		return err
	}
	if old, ok := r.entry(p.path); ok && old.ShimHash == entry.ShimHash && old.RuncHash == entry.RuncHash {
		return nil
	}
	r.forget(p.path)
	r.Entries = append(r.Entries, entry)
	return nil
}

func (h Host) time() time.Time {
	if h.now != nil {
		return h.now()
	}
	return time.Now().UTC().Truncate(time.Second)
}

func (h Host) checkBinary() error {
	stands, _, err := look(h.Binary)
	if err != nil {
		return err
	}
	if stands != shim {
		return fmt.Errorf("%s is not the shim: build it with `make build`, or name it with --binary", h.Binary)
	}
	if h.Beside.Alone == "" {
		return nil
	}
	if _, err := os.Stat(h.Beside.Alone); err != nil {
		return fmt.Errorf("what decides when the enforcer does not answer: %w: build it with `make build`, and put it beside the shim", err)
	}
	return nil
}

// all finds every runC and every place that was one, and keeps what engines' configurations could not tell as the error.
func (h Host) all(s *steps) ([]found, error) {
	runtimes, err := engine.Find(h.Root)
	known := map[string]bool{}
	var places []found
	for _, runtime := range runtimes {
		if runtime.RunC || h.beside(runtime.Path) {
			known[runtime.Path] = true
			places = append(places, found{Runtime: runtime, place: h.place(runtime.Path, s)})
		}
	}
	for _, path := range h.left() {
		if !known[path] {
			known[path] = true
			places = append(places, found{Runtime: engine.Runtime{Path: path, RunC: true}, place: h.place(path, s)})
		}
	}
	slices.SortFunc(places, func(a, b found) int { return strings.Compare(a.path, b.path) })
	return places, err
}

// beside says whether a directory of ours is beside a path.
func (h Host) beside(path string) bool {
	info, err := os.Lstat(filepath.Join(h.Root, path) + KeptSuffix)
	return err == nil && info.IsDir() && filepath.Base(path) != ShimName
}

// left are places that the record or directories tell of, whatever stands there now.
func (h Host) left() []string {
	var paths []string
	for _, entry := range h.readRecord().Entries {
		if filepath.IsAbs(entry.Path) && h.beside(entry.Path) {
			paths = append(paths, filepath.Clean(entry.Path))
		}
	}
	for _, directory := range []string{
		"usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "var/lib/rancher/*/data/*/bin", "usr/libexec/crio", "usr/lib/cri-o-runc/sbin",
	} {
		matches, err := fs.Glob(os.DirFS(h.Root), directory+"/*"+KeptSuffix)
		if err != nil {
			continue
		}
		for _, match := range matches {
			path, err := engine.Resolve(h.Root, strings.TrimSuffix(match, KeptSuffix))
			if err == nil && h.beside(path) {
				paths = append(paths, path)
			}
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// chosen finds those that are meant and checks that each can be changed.
func (h Host) chosen(which Selection, installing bool) ([]found, error) {
	s := h.newSteps()
	places, err := h.all(s)
	if err != nil && installing {
		return nil, fmt.Errorf("an engine's configuration cannot be understood, so it is not known which runC it calls: %w", err)
	}
	for _, path := range which.Paths {
		if !slices.ContainsFunc(places, func(p found) bool { return p.path == path || slices.Contains(p.Aliases, path) }) {
			real, err := engine.Resolve(h.Root, path)
			if err != nil {
				return nil, err
			}
			if _, err := os.Lstat(filepath.Join(h.Root, real)); err != nil && !h.beside(real) {
				return nil, fmt.Errorf("nothing was changed: %s: there is no such file on this host", path)
			}
			places = append(places, found{Runtime: engine.Runtime{Path: real, Aliases: []string{path}}, place: h.place(real, s)})
		}
	}
	places = slices.DeleteFunc(places, func(p found) bool { return !which.means(p.Runtime) })
	var errs []error
	for _, p := range places {
		state, err := p.state()
		if err == nil && (installing || state != NotInstalled || h.beside(p.path)) {
			err = changeable(p.file)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("nothing was changed: %w", err)
	}
	return places, nil
}

// means says whether a runtime is selected.
func (s Selection) means(r engine.Runtime) bool {
	if len(s.Paths) > 0 && !slices.ContainsFunc(s.Paths, func(path string) bool { return path == r.Path || slices.Contains(r.Aliases, path) }) {
		return false
	}
	return len(s.Engines) == 0 || slices.ContainsFunc(r.Engines(), func(name string) bool { return slices.Contains(s.Engines, name) })
}

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/palisade-sec/palisade/cli/internal/cgroup"
)

// Remove takes away what a node that does not run has left on the host, and returns the paths that were there: programs pinned in
// the kernel, cgroups, run-time directory, and with state what it kept. It returns ErrRunning if the node runs.
func Remove(settings Settings, state bool) (removed []string, err error) {
	table, lock, err := claim(settings)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.Remove(lock.Name()), lock.Close()) }()
	note := func(path string) {
		if _, err := os.Stat(path); err == nil {
			removed = append(removed, path)
		}
	}
	note(settings.pins())
	note(settings.Runtime)
	errs := []error{removePins(settings.pins()), settings.removeRuntime(ownRuntime(table))}
	for _, row := range table.Processes {
		paths, err := cgroup.RemoveLeft(flatten(settings.Runtime), row.Name)
		removed, errs = append(removed, paths...), append(errs, err)
	}
	if state {
		note(settings.State)
		if err := os.RemoveAll(settings.State); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove state: %w", err))
		}
	}
	return removed, errors.Join(errs...)
}

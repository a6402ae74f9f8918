package runcshim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/palisade-sec/palisade/internal/runcshim/dropin"
	"github.com/palisade-sec/palisade/internal/runcshim/engine"
)

// UninstallDropIn takes the shim out of the engines' configurations, then away. If containers or a running engine still name it,
// a link to runC stays in its place, so that nothing of theirs dangles; the error wraps ErrInUse and says what to wait for.
// reload sends dockerd the signal by which it reads its configuration: new containers do not pass the shim then.
func (h Host) UninstallDropIn(ctx context.Context, engines []string, reload bool) error {
	means := func(name string) bool {
		return len(engines) == 0 || strings.Contains(" "+strings.Join(engines, " ")+" ", " "+name+" ")
	}
	s := h.newSteps()
	return h.locked(func(r *record) error {
		var errs []error
		for _, one := range []struct {
			name   string
			remove func(*steps, *record, bool) ([]string, error)
		}{{engine.Docker, h.leaveDocker}, {engine.Podman, h.leavePodman}, {engine.Containerd, h.leaveContainerd}} {
			if !means(one.name) {
				continue
			}
			names, err := one.remove(s, r, reload)
			if err == nil {
				err = h.removeShims(s, one.name, names)
			}
			if err == nil && !h.DryRun {
				r.forgetEngine(one.name)
			}
			errs = append(errs, err)
			if ctx.Err() != nil {
				break
			}
		}
		return errors.Join(errs...)
	})
}

// removeShims removes an engine's shims, or leaves links to runC in their places for those who still name them.
func (h Host) removeShims(s *steps, name string, users []string) error {
	directories, err := filepath.Glob(filepath.Join(h.Root, ShimDirectory, name+"*"))
	if err != nil {
		return err
	}
	for _, directory := range directories {
		file := filepath.Join(directory, ShimName)
		if len(users) == 0 {
			if err := s.do("remove "+filepath.Join(ShimDirectory, filepath.Base(directory)), func() error { return os.RemoveAll(directory) }); err != nil {
				return err
			}
			continue
		}
		if info, err := os.Lstat(file); err == nil && info.Mode().IsRegular() {
			target, err := os.Readlink(filepath.Join(file+KeptSuffix, "runc"))
			if err != nil {
				return fmt.Errorf("it is not known which runC the shim in %s is for: %w", directory, err)
			}
			// The link is as far from the root as the shim's own is, less a directory.
			if err := s.do("put a link to runC in the shim's place", func() error {
				return linkTo(strings.TrimPrefix(target, "../"), file)
			}); err != nil {
				return err
			}
		}
	}
	if !h.DryRun { // those that are empty
		_ = os.Remove(filepath.Join(h.Root, ShimDirectory))
		_ = os.Remove(filepath.Join(h.Root, filepath.Dir(ShimDirectory)))
	}
	if len(users) > 0 && len(directories) > 0 {
		shown := users[:min(len(users), 5)]
		return fmt.Errorf("%s: the shim is out, and a link to runC is left in its place: %w by %s%s: repeat this when they are gone",
			name, ErrInUse, strings.Join(shown, ", "), more(len(users)-len(shown)))
	}
	return nil
}

func more(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}

// older are engines of a name that run since before a configuration was changed. Only the host's own can be found.
func (h Host) older(name string, since time.Time) ([]string, error) {
	if filepath.Clean(h.Root) != "/" || since.IsZero() {
		return nil, nil
	}
	pids, err := dropin.StartedBefore(name, since)
	var users []string
	for _, pid := range pids {
		users = append(users, stale(name, pid))
	}
	return users, err
}

// change writes what a configuration is to be. since is when it was changed, by this run or an earlier one that left a link.
func (h Host) change(s *steps, r *record, plan dropIn) (since time.Time, err error) {
	if before, ok := r.before(plan.config, plan.before); ok && !plan.between {
		plan.after = before
	}
	if string(plan.after) != string(plan.before) || (plan.after == nil) != (plan.before == nil) {
		if err := h.writeConfig(s, plan); err != nil {
			return time.Time{}, err
		}
	}
	switch {
	case h.DryRun:
	case plan.between:
		r.changedAgain(plan.config, plan.before, plan.after)
	default:
		r.forgetConfig(plan.config)
	}
	for path := filepath.Join(h.Root, plan.config); ; path = filepath.Dir(path) { // that of a file that is gone is its directory's
		if info, err := os.Stat(path); err == nil || path == "/" {
			if err != nil {
				return time.Time{}, err
			}
			return info.ModTime(), nil
		}
	}
}

func (h Host) leaveDocker(s *steps, r *record, reload bool) ([]string, error) {
	raw, err := h.readPlain(engine.DockerConfig)
	if err != nil {
		return nil, err
	}
	daemon, err := engine.ParseDaemon(engine.DockerConfig, raw)
	if err != nil {
		return nil, err
	}
	if _, named := daemon.Runtimes[dropin.Runtime]; !named && daemon.Default != dropin.Runtime && !h.hasShims(engine.Docker) {
		return nil, nil
	}
	containers, err := dropin.DockerUsers(h.Root, daemon.DataRoot)
	if err != nil {
		return nil, err
	}
	running, err := dropin.ContainerdUsers(h.Root, "", filepath.Join(ShimDirectory, engine.Docker))
	if err != nil {
		return nil, err
	}
	stale, err := h.staleDocker(daemon)
	if err != nil {
		return nil, err
	}
	users := append(unique(containers, running), stale...)
	if _, named := daemon.Runtimes[dropin.Runtime]; !named && daemon.Default != dropin.Runtime {
		return users, nil // the configuration says nothing of it any more
	}
	plan := dropIn{engine: engine.Docker, config: engine.DockerConfig, before: raw, between: len(containers)+len(stale) > 0}
	if plan.after, err = dropin.RemoveDocker(plan.config, raw, plan.between); err != nil {
		return nil, err
	}
	if _, ours := r.before(plan.config, raw); plan.after == nil && !ours {
		plan.after = []byte("{}\n") // whose file it was is not known
	}
	if _, err := h.change(s, r, plan); err != nil {
		return nil, err
	}
	if reload && !h.DryRun {
		return users, h.ReloadDocker()
	}
	return users, nil
}

// staleDocker are dockerds that run since before the configuration was changed. They know the shim until they are restarted: one that
// reads its configuration again takes up what that says, and forgets nothing of what it does not say any more.
func (h Host) staleDocker(daemon engine.Daemon) ([]string, error) {
	since := time.Now() // it is going to be changed
	if daemon.Default != dropin.Runtime {
		info, err := os.Stat(filepath.Join(h.Root, engine.DockerConfig))
		if errors.Is(err, fs.ErrNotExist) {
			info, err = os.Stat(filepath.Join(h.Root, filepath.Dir(engine.DockerConfig)))
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		since = info.ModTime()
	}
	users, err := h.older("dockerd", since)
	if err != nil || len(users) > 0 {
		return users, err
	}
	pid, err := dropin.DockerPID(filepath.Join(h.Root, daemon.PID()), since)
	if err != nil || pid == 0 {
		return nil, err
	}
	return []string{stale("dockerd", pid)}, nil
}

func stale(name string, pid int) string {
	return fmt.Sprintf("%s (process %d knows it until it is restarted)", name, pid)
}

// unique are container ids, each once: a running one of Docker's is in both lists.
func unique(lists ...[]string) []string {
	seen := map[string]bool{}
	var all []string
	for _, list := range lists {
		for _, id := range list {
			if !seen[id] {
				seen[id] = true
				all = append(all, fmt.Sprintf("container %.12s", id))
			}
		}
	}
	return all
}

func (h Host) hasShims(name string) bool {
	left, err := filepath.Glob(filepath.Join(h.Root, ShimDirectory, name+"*"))
	return err == nil && len(left) > 0
}

func (h Host) leavePodman(s *steps, r *record, _ bool) ([]string, error) {
	raw, err := h.readPlain(dropin.PodmanFile)
	if err != nil || raw == nil {
		return nil, err
	}
	if !dropin.IsOurs(raw) {
		return nil, fmt.Errorf("%s:1: is not ours any more: %w", dropin.PodmanFile, dropin.ErrLeftAlone)
	}
	_, err = h.change(s, r, dropIn{engine: engine.Podman, config: dropin.PodmanFile, before: raw})
	return nil, err
}

func (h Host) leaveContainerd(s *steps, r *record, _ bool) ([]string, error) {
	files, err := engine.Servers(h.Root)
	if err != nil {
		return nil, err
	}
	if !h.hasShims(engine.Containerd) {
		return nil, nil
	}
	var users []string
	var since time.Time
	state := ""
	for _, file := range files {
		state = max(state, file.Server.State)
		if filepath.Base(file.Path) == dropin.ContainerdFile {
			raw, err := h.readPlain(file.Path)
			if err != nil {
				return nil, err
			}
			if dropin.IsOurs(raw) {
				if since, err = h.change(s, r, dropIn{engine: engine.Containerd, config: file.Path, before: raw}); err != nil {
					return nil, err
				}
				continue
			}
		}
		for handler, binary := range file.Server.Binaries() {
			if strings.HasPrefix(binary, ShimDirectory+"/") {
				users = append(users, fmt.Sprintf("%s (runtime %s, written by hand: take BinaryName out of it, then restart containerd)", file.Path, handler))
			}
		}
	}
	running, err := dropin.ContainerdUsers(h.Root, state, filepath.Join(ShimDirectory, engine.Containerd))
	if err != nil {
		return nil, err
	}
	if since.IsZero() {
		since = h.changedLast(files)
	}
	stale, err := h.older("containerd", since)
	return append(append(users, unique(running)...), stale...), err
}

// changedLast is when containerd's configuration was changed last, as far as it is still there.
func (h Host) changedLast(files []engine.ServerFile) (last time.Time) {
	for _, file := range files {
		for _, path := range []string{file.Path, filepath.Dir(file.Path)} {
			if info, err := os.Stat(filepath.Join(h.Root, path)); err == nil && info.ModTime().After(last) {
				last = info.ModTime()
			}
		}
	}
	return last
}

// DropIns are the shims that configurations name, on the host, and whether each is in force: a link to runC is left of those that
// were taken out and are still named.
func (h Host) DropIns() (map[string]State, error) {
	files, err := filepath.Glob(filepath.Join(h.Root, ShimDirectory, "*", ShimName))
	if err != nil {
		return nil, err
	}
	states := map[string]State{}
	for _, file := range files {
		path := shimPath(filepath.Base(filepath.Dir(file)))
		stands, _, err := look(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		_, kept := os.Stat(filepath.Join(file+KeptSuffix, "runc"))
		switch {
		case stands == shim && kept == nil:
			states[path] = Installed
		case stands == shim:
			states[path] = Broken
		default:
			states[path] = Leaving
		}
	}
	return states, nil
}

// Leaving is the state of a drop-in that was taken out, and is still named.
const Leaving State = "a link to runC, still named"

// ReloadDocker has a dockerd that runs read its configuration again.
func (h Host) ReloadDocker() error {
	raw, err := h.readPlain(engine.DockerConfig)
	if err != nil {
		return err
	}
	daemon, err := engine.ParseDaemon(engine.DockerConfig, raw)
	if err != nil {
		return err
	}
	if err := dropin.ReloadDocker(filepath.Join(h.Root, daemon.PID())); err != nil && !errors.Is(err, dropin.ErrNotRunning) {
		return fmt.Errorf("reload docker: %w", err)
	}
	return nil
}

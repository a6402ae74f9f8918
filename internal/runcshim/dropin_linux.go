package runcshim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/palisade-sec/palisade/internal/runcshim/dropin"
	"github.com/palisade-sec/palisade/internal/runcshim/engine"
	"github.com/palisade-sec/palisade/internal/statedir"
)

// ShimDirectory is where the shims are that configurations name, each in a directory with its runC beside it.
const ShimDirectory = "/opt/palisade/shim"

// ErrInUse says that containers, or an engine that has not read its configuration again, still name a shim. There is only a link to
// runC in its place by then.
var ErrInUse = errors.New("still named")

// dropIn is a change of one engine's configuration.
type dropIn struct {
	engine string
	// config is the file, on the host. before is what is in it, nil if it is not there; after what is to be, nil to remove it.
	config        string
	before, after []byte
	// between says that after is not yet what is to be in the end.
	between bool
	// shims are the directories below ShimDirectory, each with the runC, on the host, that it is for.
	shims map[string]string
	// activate says what makes the engine go by it.
	activate string
}

func shimPath(name string) string { return filepath.Join(ShimDirectory, name, ShimName) }

// InstallDropIn makes the shim a runtime of the engines that are meant, by their configuration: of all that are there, if none
// is named. It returns what is to be done for it to take effect. Nothing is changed if one of them cannot be.
func (h Host) InstallDropIn(ctx context.Context, engines []string) (todo []string, err error) {
	if err := h.checkBinary(); err != nil {
		return nil, err
	}
	runtimes, err := engine.Find(h.Root)
	if err != nil {
		return nil, fmt.Errorf("nothing was changed: %w", err)
	}
	planners := map[string]func([]engine.Runtime) (dropIn, error){engine.Docker: h.planDocker, engine.Podman: h.planPodman, engine.Containerd: h.planContainerd}
	var plans []dropIn
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(planners)) {
		there := slices.ContainsFunc(runtimes, func(r engine.Runtime) bool { return slices.Contains(r.Engines(), name) })
		if asked := slices.Contains(engines, name); (!there && !asked) || (len(engines) > 0 && !asked) {
			continue
		}
		plan, err := planners[name](runtimes)
		if err == nil {
			err = h.changeableAll(plan)
		}
		errs, plans = append(errs, err), append(plans, plan)
	}
	for _, name := range engines {
		if planners[name] == nil {
			errs = append(errs, fmt.Errorf("%q has no drop-in configuration here: docker, podman or containerd have; --mode replace covers every engine", name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("nothing was changed: %w", err)
	}
	if len(plans) == 0 {
		return nil, errors.New("no engine was found that takes drop-in configuration: docker, podman, containerd")
	}
	s := h.newSteps()
	return todo, h.locked(func(r *record) error {
		for _, plan := range plans {
			if err := h.apply(ctx, s, r, plan); err != nil {
				return err
			}
			todo = append(todo, plan.activate)
		}
		return nil
	})
}

// apply puts the shims there first, then the configuration that names them.
func (h Host) apply(ctx context.Context, s *steps, r *record, plan dropIn) error {
	for _, name := range slices.Sorted(maps.Keys(plan.shims)) {
		if err := h.placeShim(s, name, plan.shims[name]); err != nil {
			return err
		}
	}
	if string(plan.before) == string(plan.after) {
		return ctx.Err()
	}
	if !h.DryRun { // before the change: an interrupted one can be told by it
		r.noteConfig(plan)
		if err := h.writeRecord(*r); err != nil {
			return err
		}
	}
	if err := h.writeConfig(s, plan); err != nil {
		return err
	}
	return ctx.Err()
}

// placeShim puts a shim with a link to its runC below ShimDirectory.
func (h Host) placeShim(s *steps, name, runc string) error {
	file := filepath.Join(h.Root, shimPath(name))
	link := filepath.Join(file+KeptSuffix, "runc")
	target, err := filepath.Rel(filepath.Dir(filepath.Join(shimPath(name)+KeptSuffix, "runc")), runc)
	if err != nil {
		return err
	}
	if now, err := os.Readlink(link); err != nil || now != target {
		if err := s.do("link "+shimPath(name)+KeptSuffix+"/runc to "+runc, func() error {
			if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil { //nolint:gosec // rootless engines read it
				return err
			}
			return linkTo(target, link)
		}); err != nil {
			return err
		}
	}
	if err := h.Beside.Lay(file+KeptSuffix, shimPath(name)+KeptSuffix, s.do); err != nil && !h.DryRun {
		return err
	}
	if stands, _, err := look(file); err == nil && stands == shim {
		if same, err := sameContent(file, h.Binary); err != nil || same {
			return err
		}
	}
	return s.do("put the shim at "+shimPath(name), func() error {
		raw, err := os.ReadFile(h.Binary)
		if err != nil {
			return err
		}
		syscall.ForkLock.RLock() // as copyFile does
		defer syscall.ForkLock.RUnlock()
		return statedir.WriteFile(file, raw, 0o755)
	})
}

// linkTo makes a symbolic link, or makes an old name one, in one step.
func linkTo(target, path string) error {
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, temp); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// writeConfig writes a configuration with the owner and mode that it has, or removes it.
func (h Host) writeConfig(s *steps, plan dropIn) error {
	path := filepath.Join(h.Root, plan.config)
	if plan.after == nil {
		return s.do("remove "+plan.config, func() error {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		})
	}
	return s.do("write "+plan.config, func() error {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as packages make it
			return err
		}
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return statedir.WriteFile(path, plan.after, 0o644)
		}
		if err != nil {
			return err
		}
		temp := path + ".palisade-new"
		if err := os.WriteFile(temp, plan.after, 0o600); err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && (int(stat.Uid) != os.Geteuid() || int(stat.Gid) != os.Getegid()) {
			if err := os.Chown(temp, int(stat.Uid), int(stat.Gid)); err != nil {
				return err
			}
		}
		return errors.Join(os.Chmod(temp, info.Mode().Perm()), os.Rename(temp, path), syncDirectory(filepath.Dir(path)))
	})
}

// changeableAll says why a plan cannot be carried out, before anything is changed.
func (h Host) changeableAll(plan dropIn) error {
	var paths []string
	if plan.config != "" {
		paths = append(paths, plan.config)
	}
	for name := range plan.shims {
		paths = append(paths, shimPath(name))
	}
	var errs []error
	for _, path := range paths {
		file := filepath.Join(h.Root, path)
		for { // the nearest directory that is there
			if _, err := os.Lstat(filepath.Dir(file)); !errors.Is(err, fs.ErrNotExist) || filepath.Dir(file) == file {
				break
			}
			file = filepath.Dir(file)
		}
		errs = append(errs, changeable(file))
	}
	return errors.Join(errs...)
}

// readPlain reads a configuration that is a file of its own: whoever links to another has reasons that are not known here.
func (h Host) readPlain(path string) ([]byte, error) {
	info, err := os.Lstat(filepath.Join(h.Root, path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return nil, fmt.Errorf("%s:1: is a symbolic link: %w: change what it leads to by hand, or use --mode replace", path, dropin.ErrLeftAlone)
	}
	return engine.ReadConfig(h.Root, path)
}

func (h Host) planDocker(runtimes []engine.Runtime) (plan dropIn, err error) {
	plan = dropIn{engine: engine.Docker, config: engine.DockerConfig, activate: "docker: systemctl reload docker (or --reload); containers that there are keep their runtime"}
	if plan.shims, err = shimsFor(runtimes, plan.engine, "docker"); err != nil {
		return plan, err
	}
	if plan.before, err = h.readPlain(plan.config); err != nil {
		return plan, err
	}
	plan.after, err = dropin.AddDocker(plan.config, plan.before, shimPath("docker"))
	if daemon, parseErr := engine.ParseDaemon(plan.config, plan.before); parseErr == nil && daemon.Default == dropin.Runtime {
		plan.after = plan.before // it is so already, however it is written
	}
	return plan, err
}

func (h Host) planPodman(runtimes []engine.Runtime) (plan dropIn, err error) {
	plan = dropIn{engine: engine.Podman, config: dropin.PodmanFile, activate: "podman: nothing, it reads its configuration each time"}
	if plan.shims, err = shimsFor(runtimes, plan.engine, "podman"); err != nil {
		return plan, err
	}
	if plan.before, err = h.readPlain(plan.config); err != nil {
		return plan, err
	}
	if plan.before != nil && !dropin.IsOurs(plan.before) {
		return plan, fmt.Errorf("%s:1: is not ours: %w", plan.config, dropin.ErrLeftAlone)
	}
	plan.after = dropin.Podman(shimPath("podman"), []string{plan.shims["podman"]})
	return plan, nil
}

func (h Host) planContainerd(runtimes []engine.Runtime) (plan dropIn, err error) {
	plan = dropIn{engine: engine.Containerd, shims: map[string]string{}, activate: "containerd: systemctl restart containerd"}
	files, err := engine.Servers(h.Root)
	if err != nil {
		return plan, err
	}
	binaries := map[string]string{}
	for _, handler := range engine.Handlers(files) {
		if handler != filepath.Base(handler) || strings.HasPrefix(handler, ".") {
			return plan, fmt.Errorf("%s: a runtime is called %q: %w", engine.ContainerdConfig, handler, dropin.ErrLeftAlone)
		}
		name := "containerd-" + handler
		runc, err := runcOf(runtimes, engine.Containerd, handler)
		if err != nil {
			return plan, err
		}
		plan.shims[name], binaries[handler] = runc, shimPath(name)
	}
	server := engine.Server{Version: 2}
	if len(files) > 0 {
		server = files[0].Server
	}
	directory, err := dropin.ContainerdDirectory(files)
	if err != nil && h.ByHand {
		plan.activate = "containerd: add these lines to " + engine.ContainerdConfig + " (or to the tables that are there), then systemctl restart containerd:\n" +
			dropin.ContainerdLines(server, binaries)
		return plan, nil
	}
	if err != nil {
		return plan, fmt.Errorf("%w\nadd these lines to the table that is there, when the shims are in place (--mode dropin --engine containerd --by-hand puts them there), or use --mode replace:\n%s",
			err, dropin.ContainerdLines(server, binaries))
	}
	plan.config = filepath.Join(directory, dropin.ContainerdFile)
	if plan.before, err = h.readPlain(plan.config); err != nil {
		return plan, err
	}
	if plan.before != nil && !dropin.IsOurs(plan.before) {
		return plan, fmt.Errorf("%s:1: is not ours: %w", plan.config, dropin.ErrLeftAlone)
	}
	plan.after = dropin.Containerd(server, binaries)
	return plan, nil
}

func shimsFor(runtimes []engine.Runtime, engineName, name string) (map[string]string, error) {
	runc, err := runcOf(runtimes, engineName, "runc")
	return map[string]string{name: runc}, err
}

// runcOf is the runC that an engine calls by a handler: the one it names, or else the first in PATH.
func runcOf(runtimes []engine.Runtime, name, handler string) (string, error) {
	best := ""
	for _, r := range runtimes {
		for _, user := range r.Users {
			if user.Engine != name || !r.RunC {
				continue
			}
			if user.Handler == handler && user.Where != "" {
				return r.Path, nil
			}
			if user.Handler == "runc" && (best == "" || engine.Before(r, best)) {
				best = r.Path
			}
		}
	}
	if best == "" {
		return "", fmt.Errorf("%s: no runC was found for its runtime %q: install runC first", name, handler)
	}
	return best, nil
}

package runcshim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/palisade-sec/palisade/internal/runcshim/beside"
	"github.com/palisade-sec/palisade/internal/runcshim/nri"
	"github.com/palisade-sec/palisade/internal/statedir"
)

const (
	// NRIDirectory holds, on the host, the hook that the NRI plugin gives to containers, what is beside it, and a link to the runtime's socket.
	NRIDirectory = "/opt/palisade/nri"
	// DefaultNRISocket is the runtimes' (containerd/nri, pkg/api).
	DefaultNRISocket = "/run/nri/nri.sock"
	// runtimeLink is in NRIDirectory. Only while it is there is the plugin installed.
	runtimeLink = "runtime.sock"
	// defaultEnforcer is the enforcer's socket for shims.
	defaultEnforcer = "/run/palisade/enforcer-admission.sock"
	// underway is longer than a runtime waits for a plugin: a container that was given the hook before that has called it.
	underway = 3 * time.Second
)

// hook is the hook's path on the host.
func hook() string { return filepath.Join(NRIDirectory, nri.HookName) }

func (h Host) nriLink() string { return filepath.Join(h.Root, NRIDirectory, runtimeLink) }

// InstallNRI lays the hook, and names the socket (a path on the host) of the runtime that a watcher then connects to. It changes no runtime. It is refused where
// a shim asks already: one container would be asked about twice.
func (h Host) InstallNRI(ctx context.Context, socket string) error {
	if err := h.checkBinary(); err != nil {
		return err
	}
	if info, err := os.Stat(filepath.Join(h.Root, socket)); err != nil || info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("nothing was changed: no container runtime serves NRI at %s: containerd does from 2.0 on (1.7 if its configuration has "+
			`disable = false under plugins."io.containerd.nri.v1.nri"), and CRI-O; --nri-socket names another place. Without NRI: --mode replace`, socket)
	}
	all, err := h.Status(ctx)
	if err != nil {
		return err
	}
	for _, one := range all {
		if one.Mode != modeNRI && one.State == Installed && slices.ContainsFunc(one.Engines, speaksNRI) {
			return fmt.Errorf("nothing was changed: the shim stands at %s already, and asks about the same containers: palisade shim uninstall takes it out", one.Path)
		}
	}
	file := filepath.Join(filepath.Dir(h.Binary), nri.HookName)
	raw, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("the hook: %w: build it with `make build`, and put it beside the shim", err)
	}
	return h.locked(func(*record) error { return h.layNRI(raw, socket) })
}

// layNRI is repeatable: the link, which puts it in force, comes last.
func (h Host) layNRI(program []byte, socket string) error {
	s := h.newSteps()
	path := filepath.Join(h.Root, hook())
	if now, err := os.ReadFile(path); err != nil || !slices.Equal(now, program) {
		if err := s.do("put the hook at "+hook(), func() error {
			if err := os.MkdirAll(path+KeptSuffix, 0o755); err != nil { //nolint:gosec // programs are in it
				return err
			}
			syscall.ForkLock.RLock() // a process that inherits the open file would keep others from executing it
			defer syscall.ForkLock.RUnlock()
			return statedir.WriteFile(path, program, 0o755)
		}); err != nil {
			return err
		}
	}
	if !h.DryRun { // a dry run has no directory to look into
		if err := h.Beside.Lay(path+KeptSuffix, hook()+KeptSuffix, s.do); err != nil {
			return err
		}
	}
	to := filepath.Join(h.Root, socket)
	if now, err := os.Readlink(h.nriLink()); err == nil && now == to {
		return nil
	}
	return s.do("have the watcher (palisade up, palisade shim watch) connect to "+socket, func() error {
		temp := h.nriLink() + ".new"
		return errors.Join(gone(temp), os.Symlink(to, temp), os.Rename(temp, h.nriLink()))
	})
}

// UninstallNRI has the plugin leave, and removes the hook when no container that is being created needs it.
func (h Host) UninstallNRI(ctx context.Context) error {
	directory := filepath.Join(h.Root, NRIDirectory)
	if _, err := os.Lstat(directory); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return h.locked(func(*record) error {
		s := h.newSteps()
		if err := s.do("disconnect from the runtime that "+filepath.Join(NRIDirectory, runtimeLink)+" names", func() error { return gone(h.nriLink()) }); err != nil {
			return err
		}
		return s.do("remove "+NRIDirectory+" when containers that are being created have called the hook", func() error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(underway):
			}
			if err := os.RemoveAll(directory); err != nil {
				return err
			}
			_ = os.Remove(filepath.Dir(directory)) // if the drop-ins' shims are not there
			return nil
		})
	})
}

// gone removes a file that may not be there.
func gone(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// plugin is the one that runs while it is installed.
func (h Host) plugin(changed func(nri.State)) *nri.Plugin {
	path := filepath.Join(h.Root, hook())
	enforcer := func() string {
		if to, err := os.Readlink(filepath.Join(path+KeptSuffix, beside.Socket)); err == nil {
			return filepath.Join(h.Root, to)
		}
		return filepath.Join(h.Root, defaultEnforcer)
	}
	return &nri.Plugin{Socket: h.nriLink(), HookFile: path, Hook: hook(), Enforcer: enforcer, Changed: changed}
}

// modeNRI is Status's.
const modeNRI = "nri"

// speaksNRI says whether an engine's containers could get the hook.
func speaksNRI(engine string) bool {
	return slices.Contains([]string{"containerd", "cri-o", "k3s"}, engine)
}

// statusNRI is how the plugin's files stand; nil if it is not installed. Whether it is connected its watcher knows.
func (h Host) statusNRI() *Status {
	socket, err := os.Readlink(h.nriLink())
	if err != nil {
		return nil
	}
	one := &Status{Path: socket, Engines: []string{"cri"}, Mode: modeNRI, State: Installed, Shim: shimVersion(filepath.Join(h.Root, hook()))}
	if info, err := os.Stat(filepath.Join(h.Root, hook())); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		one.State, one.Advice = Broken, "the hook is gone: palisade shim install --mode nri puts it there"
	} else if _, err := os.Stat(h.nriLink()); err != nil {
		one.Advice = "no container runtime serves NRI there now: its containers are not asked about"
	}
	return one
}

// verifyNRI says what is wrong with it.
func (h Host) verifyNRI() (problems []string) {
	one := h.statusNRI()
	if one == nil {
		return nil
	}
	if one.Advice != "" {
		problems = append(problems, one.Path+": "+one.Advice)
	}
	want, err := os.ReadFile(filepath.Join(filepath.Dir(h.Binary), nri.HookName))
	got, gotErr := os.ReadFile(filepath.Join(h.Root, hook()))
	if err == nil && gotErr == nil && !slices.Equal(want, got) {
		problems = append(problems, hook()+" is another version than the one beside the shim: palisade shim install --mode nri puts that there")
	}
	return append(problems, h.lacks(hook(), filepath.Join(h.Root, hook())+KeptSuffix)...)
}

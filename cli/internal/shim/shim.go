// Package shim is `palisade shim`: it puts the runC shim in runC's place, takes it out, and says how that stands.
//
// In: a command line. Out: changes of the host's runCs or of engines' configurations, which package runcshim makes, and text or JSON.
// It needs root, and no node.
package shim

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/admission/kept"
	"github.com/palisade-sec/palisade/internal/runcshim"
	"github.com/palisade-sec/palisade/internal/runcshim/beside"
)

// Options are what the command line has for every command.
type Options struct {
	// Output is text or json.
	Output *string
	// Usage marks an error as the caller's.
	Usage func(error) error
}

// flags are those of the sub-commands.
type flags struct {
	Options
	root, binary, mode     string
	socket, kept, nri      string
	engines, paths         []string
	dryRun, reload, byHand bool
}

// The modes.
const (
	replace = "replace"
	dropIn  = "dropin"
	plugIn  = "nri"
)

// New returns the command with its sub-commands.
func New(options Options) *cobra.Command {
	f := &flags{Options: options}
	cmd := &cobra.Command{
		Use:   "shim",
		Short: "Put the runC shim in runC's place on this host, take it out, see how it stands",
		Long: `The runC shim is a program that engines call as they call runC, and that becomes runC. This puts it where every engine of the
host calls it, and takes it out again without a trace. At every moment, whatever is interrupted, what engines call is a runC that works.`,
		Example: `  palisade shim status
  palisade shim install --dry-run
  palisade shim install
  palisade shim verify
  palisade shim uninstall`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return f.Usage(fmt.Errorf("there is no `%s %s`: see `%s --help`", cmd.CommandPath(), args[0], cmd.CommandPath()))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.Usage(fmt.Errorf("say what to do: see `%s --help`", cmd.CommandPath()))
		},
	}
	cmd.PersistentFlags().StringVar(&f.root, "root", "/", "the host's root `directory`, for containers that have it mounted")
	cmd.PersistentFlags().StringVar(&f.binary, "binary", besideThis(), "the shim's `file`")
	for _, sub := range []*cobra.Command{f.install(), f.uninstall(), f.status(), f.verify(), f.watch()} {
		run := sub.RunE
		sub.RunE = func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd, args); err != nil {
				return err
			}
			return run(cmd, args)
		}
		cmd.AddCommand(sub)
	}
	return cmd
}

// besideThis is where the build puts the shim.
func besideThis() string {
	if path, err := os.Executable(); err == nil {
		return filepath.Join(filepath.Dir(path), runcshim.ShimName)
	}
	return runcshim.ShimName
}

func (f *flags) check(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return f.Usage(fmt.Errorf("unexpected argument %q: see `%s --help`", args[0], cmd.CommandPath()))
	}
	if err := f.checkMode(cmd); err != nil {
		return f.Usage(err)
	}
	for _, path := range append([]string{f.root, cmp.Or(f.nri, "/")}, f.paths...) {
		if !filepath.IsAbs(path) {
			return f.Usage(fmt.Errorf("%q is not an absolute path", path))
		}
	}
	if os.Geteuid() != 0 {
		return errors.New("only root may look after runC: try sudo")
	}
	return nil
}

func (f *flags) checkMode(cmd *cobra.Command) error {
	switch {
	case f.mode != "" && f.mode != replace && f.mode != dropIn && f.mode != plugIn:
		return fmt.Errorf("--mode: %q is not %s, %s or %s", f.mode, replace, dropIn, plugIn)
	case f.mode == dropIn && len(f.paths) > 0:
		return errors.New("--path is for --mode replace: --engine says whose configuration")
	case f.mode == plugIn && len(f.paths)+len(f.engines) > 0:
		return errors.New("--path and --engine are for the other modes: --nri-socket says which runtime")
	case f.byHand && f.mode != dropIn:
		return errors.New("--by-hand is for --mode dropin")
	case f.mode != plugIn && cmd.Flags().Changed("nri-socket"):
		return errors.New("--nri-socket is for --mode nri")
	}
	return nil
}

func (f *flags) host(cmd *cobra.Command) runcshim.Host {
	h := runcshim.Host{
		Root: f.root, Binary: f.binary, DryRun: f.dryRun, ByHand: f.byHand,
		Beside: beside.Set{Alone: filepath.Join(filepath.Dir(f.binary), beside.AloneProgram), Socket: f.socket, Kept: f.kept},
	}
	if *f.Output == "text" {
		h.Say = func(step string) {
			if f.dryRun {
				step = "would " + step
			}
			fmt.Fprintln(cmd.OutOrStdout(), step)
		}
	}
	return h
}

func (f *flags) changing(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringSliceVar(&f.engines, "engine", nil, "only what these `engines` call: docker, containerd, podman, cri-o, k3s")
	cmd.Flags().StringSliceVar(&f.paths, "path", nil, "only these `files`, which need not have been found (mode replace)")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "print each step, and take none")
	cmd.Flags().BoolVar(&f.reload, "reload", false, "have dockerd read its configuration again (mode dropin)")
	return cmd
}

func (f *flags) install() *cobra.Command {
	cmd := f.changing(&cobra.Command{
		Use:   "install",
		Short: "Put the shim in runC's place",
		Long: `Mode replace moves each runC that an engine calls into a directory beside it and puts the shim in its place, in one step each.
It is in force from the next call on, for every engine, and nothing is configured or restarted.

Mode dropin leaves runC where it is, and has the engines' configuration name the shim: Docker gets a default runtime, Podman a
file in containers.conf.d, containerd one in a directory that it imports. What would take something from a configuration is refused.
Mode nri leaves runC and every configuration as they are: a plugin, which runs in "palisade up" and "palisade shim watch", has the CRI of containerd (2.0 and
later) or CRI-O give each new container a hook that asks. Docker, Podman and ctr do not speak NRI.

What is installed already is left as it is; what was interrupted is completed. Nothing is changed if one place cannot be.`,
		Example: `  palisade shim install --dry-run
  palisade shim install
  palisade shim install --engine docker,podman
  palisade shim install --mode dropin --engine docker --reload
  palisade shim install --mode nri`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h := f.host(cmd)
			if f.mode == plugIn {
				return f.tell(cmd, h.InstallNRI(cmd.Context(), f.nri), nil)
			}
			if f.mode != dropIn {
				return f.tell(cmd, h.Install(cmd.Context(), runcshim.Selection{Paths: f.paths, Engines: f.engines}), nil)
			}
			todo, err := h.InstallDropIn(cmd.Context(), f.engines)
			if err == nil && f.reload && !f.dryRun {
				err = h.ReloadDocker()
			}
			return f.tell(cmd, err, todo)
		},
	})
	cmd.Flags().StringVar(&f.mode, "mode", replace, "replace, dropin or nri")
	cmd.Flags().StringVar(&f.nri, "nri-socket", runcshim.DefaultNRISocket, "the `socket` of the runtime that the plugin connects to (mode nri)")
	cmd.Flags().StringVar(&f.socket, "socket", "", "the enforcer's `socket` for shims, if it is not /run/palisade/enforcer-admission.sock")
	cmd.Flags().StringVar(&f.kept, "admission", "", "the `directory` where the enforcer keeps what decides without it, if it is not "+kept.DefaultDirectory)
	cmd.Flags().BoolVar(&f.byHand, "by-hand", false, "put the shims in place, and print the lines of containerd's configuration that you then write")
	return cmd
}

// tell ends a command that changes something.
func (f *flags) tell(cmd *cobra.Command, err error, todo []string) error {
	if err != nil {
		return err
	}
	if *f.Output == "json" {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"done": !f.dryRun, "todo": append([]string{}, todo...)})
	}
	for _, line := range todo {
		fmt.Fprintln(cmd.OutOrStdout(), "to do for", line)
	}
	return nil
}

func (f *flags) uninstall() *cobra.Command {
	return f.changing(&cobra.Command{
		Use:   "uninstall",
		Short: "Take the shim out again, without a trace",
		Long: `Gives every place back, with the very file that stood there, or the newer one that a package has put there since, and takes the
shim out of the engines' configuration. Containers go on.

Where containers, or an engine that has not read its configuration again, still name a shim of mode dropin, a link to runC is left in its place, and the
exit code is 1: repeat it when they are gone.`,
		Example: `  palisade shim uninstall --dry-run
  palisade shim uninstall
  palisade shim uninstall --path /usr/sbin/runc
  palisade shim uninstall --reload`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.tell(cmd, Uninstall(cmd.Context(), f.host(cmd), runcshim.Selection{Paths: f.paths, Engines: f.engines}, f.reload), nil)
		},
	})
}

// Uninstall takes out what any mode has put there.
func Uninstall(ctx context.Context, h runcshim.Host, which runcshim.Selection, reload bool) error {
	var configured, plugged error
	if len(which.Paths) == 0 {
		configured = h.UninstallDropIn(ctx, which.Engines, reload)
	}
	if len(which.Paths)+len(which.Engines) == 0 {
		plugged = h.UninstallNRI(ctx)
	}
	return errors.Join(configured, plugged, h.Uninstall(ctx, which))
}

func (f *flags) verify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Run every runC through its shim, and compare files with the record",
		Long: `Runs runC --version through each shim and without it, and compares hashes with what was installed. The exit code is 1 if
something is off; each line says what, and what to do.`,
		Example: "  palisade shim verify\n  palisade shim verify -o json | jq -r '.problems[]'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			checked, problems, err := f.host(cmd).Verify(cmd.Context())
			if err != nil {
				return err
			}
			if *f.Output == "json" {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"checked": checked, "problems": append([]string{}, problems...)})
			} else if len(problems) == 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "%d installed, all well\n", checked)
			}
			if err != nil || len(problems) == 0 {
				return err
			}
			return errors.New(strings.Join(problems, "; "))
		},
	}
}

func (f *flags) watch() *cobra.Command {
	var standing string
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Put the shim back whenever a package upgrade replaces it, until stopped",
		Long: `Watches the directories of the places where the shim stands. When a package puts a new runC over it, and has ended, the new runC goes
beside and the shim back in its place. Each event is a line; -o json has it for programs. An uninstall is not undone.

"palisade up" does the same for as long as it runs. For a node that runs otherwise, --standing names the enforcer's state directory: there is
written where the shim stands, which lets the node find containers that went around it.`,
		Example: "  palisade shim watch\n  palisade shim watch -o json --standing /var/lib/palisade/enforcer",
		RunE: func(cmd *cobra.Command, _ []string) error {
			h := f.host(cmd)
			h.Say = nil
			return runcshim.Watcher{Host: h, Standing: standing, Report: func(event runcshim.Event) {
				if *f.Output == "json" {
					_ = json.NewEncoder(cmd.OutOrStdout()).Encode(event) // a reader that is gone misses it
					return
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s %s %s: %s\n", event.Time.Format("2006-01-02 15:04:05"), event.Path, event.Kind, event.Detail)
			}}.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&standing, "standing", "", "write down where the shim stands, in this `directory`")
	return cmd
}

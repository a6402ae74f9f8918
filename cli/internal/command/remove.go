package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/cli/internal/node"
	"github.com/palisade-sec/palisade/cli/internal/shim"
	"github.com/palisade-sec/palisade/internal/privilege"
	"github.com/palisade-sec/palisade/internal/runcshim"
)

func newRemove(opts *options) *cobra.Command {
	var state, pins string
	var everything bool
	cmd := &cobra.Command{
		Use:   "remove",
		Short: "Remove what a stopped node left on the host: the runC shim, programs in the kernel, cgroups, directories",
		Long: `A node that is stopped cleans up after itself. One whose supervisor was killed leaves its programs in the kernel, where they
go on recording for the next node. This removes them, takes the runC shim out (palisade shim uninstall --reload), and removes every other
trace but the state, which --everything removes too.

A collector in a container leaves its programs there as well, below another name: --pins removes those, and nothing else. Stop the
container before.`,
		Example: `  palisade remove
  palisade remove --everything          # findings, certificates and audit log as well
  palisade remove --run /run/other -o json
  palisade remove --pins kubernetes     # or compose`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("only root may remove a node: try sudo")
			}
			removed, err := remove(cmd.Context(), node.Settings{Runtime: opts.run, State: state}, everything, pins)
			if err != nil {
				return err
			}
			if opts.output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string][]string{"removed": append([]string{}, removed...)})
			}
			if len(removed) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "Nothing was left.")
			}
			for _, path := range removed {
				fmt.Fprintln(cmd.OutOrStdout(), "removed", path)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&state, "state", "/var/lib/palisade", "directory with the node's state")
	cmd.Flags().BoolVar(&everything, "everything", false, "remove the state, too")
	cmd.Flags().StringVar(&pins, "pins", "", "remove only what a container's collector pinned below this `name`")
	cmd.MarkFlagsMutuallyExclusive("pins", "everything")
	return cmd
}

func remove(ctx context.Context, settings node.Settings, everything bool, pins string) ([]string, error) {
	if pins != "" {
		return node.RemovePins(pins)
	}
	// First the shim: what it leaves if it cannot go must not lose what it needs.
	host := runcshim.Host{Root: "/"}
	installed := host.Traces()
	if len(installed) > 0 {
		if err := shim.Uninstall(ctx, host, runcshim.Selection{}, true); err != nil {
			return nil, fmt.Errorf("take out the runC shim: %w", err)
		}
	}
	removed, err := node.Remove(settings, everything)
	return append(installed, removed...), err
}

// newPins is the helper of deploy/privileges.yaml, for containers; up does the same itself.
func newPins() *cobra.Command {
	stay := false
	cmd := &cobra.Command{
		Use:    "pins DIRECTORY",
		Short:  "Give the collector a directory of a BPF file system",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := node.HandOverPins(args[0]); err != nil {
				return err
			}
			if err := privilege.DropAllBut(); err != nil {
				return err
			}
			if stay {
				<-cmd.Context().Done()
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&stay, "stay", false, "then wait until told to end")
	return cmd
}

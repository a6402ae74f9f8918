package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/cli/internal/node"
	"github.com/palisade-sec/palisade/internal/privilege"
)

func newRemove(opts *options) *cobra.Command {
	var state, pins string
	var everything bool
	cmd := &cobra.Command{
		Use:   "remove",
		Short: "Remove what a stopped node left on the host: programs in the kernel, cgroups, directories",
		Long: `A node that is stopped cleans up after itself. One whose supervisor was killed leaves its programs in the kernel, where they
go on recording for the next node. This removes them, and every other trace but the state, which --everything removes too.

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
			removed, err := remove(node.Settings{Runtime: opts.run, State: state}, everything, pins)
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

func remove(settings node.Settings, everything bool, pins string) ([]string, error) {
	if pins != "" {
		return node.RemovePins(pins)
	}
	return node.Remove(settings, everything)
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

package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/cli/internal/node"
)

func newRemove(opts *options) *cobra.Command {
	var state string
	var everything bool
	cmd := &cobra.Command{
		Use:   "remove",
		Short: "Remove what a stopped node left on the host: programs in the kernel, cgroups, directories",
		Long: `A node that is stopped cleans up after itself. One whose supervisor was killed leaves its programs in the kernel, where they
go on recording for the next node. This removes them, and every other trace but the state, which --everything removes too.`,
		Example: `  palisade remove
  palisade remove --everything          # findings, certificates and audit log as well
  palisade remove --run /run/other -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("only root may remove a node: try sudo")
			}
			removed, err := node.Remove(node.Settings{Runtime: opts.run, State: state}, everything)
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
	return cmd
}

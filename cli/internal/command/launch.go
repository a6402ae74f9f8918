package command

import (
	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/cli/internal/launch"
)

// newLaunch is how the supervisor calls itself; see package launch.
func newLaunch() *cobra.Command {
	return &cobra.Command{
		Use:    "launch SPEC",
		Short:  "Become a Palisade process (used by palisade up)",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			spec, err := launch.Decode(args[0])
			if err != nil {
				return err
			}
			return launch.Become(spec)
		},
	}
}

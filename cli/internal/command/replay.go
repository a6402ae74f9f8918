package command

import (
	"errors"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/cli/internal/launch"
)

func newReplay(opts *options) *cobra.Command {
	var binaries string
	var rules []string
	var findings bool
	var events, sample uint64
	cmd := &cobra.Command{
		Use:   "replay FILE",
		Short: "Run rules over a recording, as fast as it goes",
		Long: `Runs the correlator's own pipeline (process tree, workloads, rules) over a file of palisade record, and says what it
found, how fast it was and what each rule cost. Nobody is killed and nothing is delivered. It needs neither a node nor root.

What waits for its container on a node waits for it here, in recorded time. A file that is cut off or damaged is replayed up to
there; the error says where that is.`,
		Example: `  palisade replay incident.rec --rules new-rules.yaml --findings
  palisade replay incident.rec -o json | jq '.rules[:5]'
  palisade replay incident.rec --events 5000000        # over and over, as a benchmark`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("replay: name the file to read")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			words := []string{"replay", "-o", opts.output, "-sample", strconv.FormatUint(sample, 10), "-events", strconv.FormatUint(events, 10)}
			for _, path := range rules {
				words = append(words, "-rules", path)
			}
			if findings {
				words = append(words, "-findings")
			}
			binary := filepath.Join(binaries, "palisade-correlator")
			return launch.Engine(cmd.Context(), binary, append(words, "--", args[0]), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&binaries, "bin", executableDirectory(), "directory with the palisade-* binaries")
	flags.StringSliceVar(&rules, "rules", nil, "more rule files or directories, in Falco's language")
	flags.BoolVar(&findings, "findings", false, "print each finding, one line of JSON, before the report")
	flags.Uint64Var(&events, "events", 0, "go over the recording again and again, with new processes and containers each time, until there were so many events")
	flags.Uint64Var(&sample, "sample", 256, "time the rules on one of so many events (0: not at all)")
	return cmd
}

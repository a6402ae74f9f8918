package shim

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/cli/internal/show"
	"github.com/palisade-sec/palisade/internal/runcshim"
)

func (f *flags) status() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "List every runC of this host, and what stands in its place",
		Long: `A line for each runtime that an engine calls: where it is, which engines call it, how it stands, and the versions of shim and runC.
Runtimes that are not runC are listed too: containers that they make do not pass the shim.`,
		Example: "  palisade shim status\n  palisade shim status -o json | jq -r '.[] | select(.state != \"installed\") | .path'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := f.host(cmd).Status(cmd.Context())
			if *f.Output == "json" {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				if writeErr := encoder.Encode(append([]runcshim.Status{}, all...)); writeErr != nil {
					return writeErr
				}
			} else if writeErr := write(cmd.OutOrStdout(), all); writeErr != nil {
				return writeErr
			}
			if err != nil {
				return fmt.Errorf("not every runC may be known: %w", err)
			}
			return nil
		},
	}
}

// write writes the table, then what is to be done.
func write(w io.Writer, all []runcshim.Status) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "No runC was found.")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PATH\tENGINE\tMODE\tSTATE\tSHIM\tRUNC")
	for _, one := range all {
		cells := []string{one.Path, strings.Join(one.Engines, ","), one.Mode, string(one.State), one.Shim, one.RunC}
		for i := range cells {
			if cells[i] = show.Safe(cells[i]); cells[i] == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, one := range all {
		if one.Advice != "" {
			fmt.Fprintf(w, "\n%s: %s\n", show.Safe(one.Path), one.Advice)
		}
	}
	return nil
}

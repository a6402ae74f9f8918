package command

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	uplinkv1 "github.com/palisade-sec/palisade/api/palisade/uplink/v1"
	"github.com/palisade-sec/palisade/cli/internal/show"
)

func newIncidents(opts *options) *cobra.Command {
	var limit uint32
	cmd := &cobra.Command{
		Use:   "incidents",
		Short: "Show what the node found, put together by where it began",
		Long: `Shows the node's findings as incidents, the gravest first: all that came of one process in one workload, be it a container's
first process, what was executed in it, or a session of the host. After an hour of quiet a new one begins. It reads the node's own
store and needs no console.

With -o json each incident is one line of JSON.`,
		Example: `  palisade incidents
  palisade incidents -o json | jq -r 'select(.priority == "CRITICAL") | .workload'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > 10_000 {
				return usageError{fmt.Errorf("--limit: %d is not 1 to 10000", limit)}
			}
			conn, err := opts.dial("uplink")
			if err != nil {
				return err
			}
			defer conn.Close()
			answer, err := uplinkv1.NewFindingServiceClient(conn).ListFindings(cmd.Context(), &uplinkv1.ListFindingsRequest{Limit: limit})
			if err != nil {
				return opts.explain("uplink", err)
			}
			var findings []*findingv1.Finding
			for _, stored := range answer.GetFindings() {
				findings = append(findings, stored.GetFinding())
			}
			return opts.printIncidents(cmd, show.Incidents(findings))
		},
	}
	cmd.Flags().Uint32Var(&limit, "limit", 10_000, "look at no more than so many of the last findings (1 to 10000)")
	return cmd
}

func (o *options) printIncidents(cmd *cobra.Command, incidents []*show.Incident) error {
	w := cmd.OutOrStdout()
	paint := painter(w)
	lines := json.NewEncoder(w)
	for _, i := range incidents {
		err := error(nil)
		if o.output == "json" {
			err = lines.Encode(i)
		} else {
			err = show.WriteIncident(w, i, paint)
		}
		if err != nil {
			return fmt.Errorf("write incident: %w", err)
		}
	}
	return nil
}

package command

import (
	"context"
	"encoding/json"

	"github.com/spf13/cobra"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	"github.com/palisade-sec/palisade/cli/internal/show"
)

func newRules(opts *options) *cobra.Command {
	return &cobra.Command{
		Use:     "rules",
		Short:   "List the rules in force and how often each matched",
		Example: "  palisade rules\n  palisade rules -o json | jq -r '.[] | select(.effect == \"prevent\") | .name'",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := opts.dial("correlator")
			if err != nil {
				return err
			}
			defer conn.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), statusTimeout)
			defer cancel()
			answer, err := correlatorv1.NewRuleServiceClient(conn).ListRules(ctx, &correlatorv1.ListRulesRequest{})
			if err != nil {
				return opts.explain("correlator", err)
			}
			if opts.output == "json" {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(answer.GetRules())
			}
			return show.Rules(cmd.OutOrStdout(), answer.GetRules())
		},
	}
}

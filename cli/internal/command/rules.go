package command

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	"github.com/palisade-sec/palisade/cli/internal/launch"
	"github.com/palisade-sec/palisade/cli/internal/show"
)

func newRules(opts *options) *cobra.Command {
	var bin string
	cmd := &cobra.Command{
		Use:   "rules",
		Short: "List the rules in force and how often each matched; check, list, explain and test rule files",
		Long: `Without a further word it asks the node which rules are in force, and how often each matched.

check, list, explain and test need no node: they are answered by the correlator's program itself, which reads rule files
as the node would. Files are read after the built-in rules, so they may change those.`,
		Example: "  palisade rules\n  palisade rules -o json | jq -r '.[] | select(.effect == \"prevent\") | .name'\n  palisade rules check my.yaml",
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
	cmd.PersistentFlags().StringVar(&bin, "bin", executableDirectory(), "directory with the palisade-* binaries")
	for _, question := range ruleQuestions {
		cmd.AddCommand(question.command(opts, &bin))
	}
	return cmd
}

// ruleQuestion is a sub-command that the correlator's program answers.
type ruleQuestion struct {
	name, arguments, short, long, example string
	atLeast                               int    // arguments
	missing                               string // what is, if there are fewer
}

// ruleQuestions are all of them. Each exits with 0 if all is well, 1 if something is wrong with the files, 2 if the question is.
var ruleQuestions = []ruleQuestion{
	{
		name: "check", arguments: "FILE...", short: "Say what is wrong with rule files", atLeast: 1, missing: "a rule file, or a directory of them",
		long: `Loads the files as a node would, and their samples, and shows what they hold, what is wrong with them and where, and which
fields they ask for that have no value. The exit code is 0 if a node would take them, 1 if not; --strict makes warnings errors.`,
		example: "  palisade rules check my.yaml\n  palisade rules check --no-builtin falco_rules.yaml\n  palisade rules check -o json rules.d | jq '.errors'",
	},
	{
		name: "list", arguments: "[FILE...]", short: "List the rules of the built-in pack and of files",
		long:    `Shows name, priority, effect, place, classes of events and tags of each rule.`,
		example: "  palisade rules list\n  palisade rules list --no-builtin my.yaml\n  palisade rules list -o json | jq -r '.[] | select(.samples == 0) | .name'",
	},
	{
		name: "explain", arguments: "RULE [FILE...]", short: "Say what a rule means and what it looks at", atLeast: 1, missing: "a rule: `palisade rules list` shows their names",
		long: `Shows description, condition with its macros expanded, exceptions, lists, the fields that are compared, and what the rule
makes the kernel record.`,
		example: "  palisade rules explain 'Terminal shell in container'\n  palisade rules explain 'My rule' my.yaml",
	},
	{
		name: "test", arguments: "[FILE...]", short: "Run the samples that rules carry",
		long: `Runs the samples of the rules in the files, or of the built-in ones: events that a rule must match, and such that it must
not. The exit code is 1 if one comes out otherwise; what its fields held is shown.`,
		example: "  palisade rules test\n  palisade rules test my.yaml\n  palisade rules test -o json | jq '.samples[] | select(.passed | not)'",
	},
}

func (q ruleQuestion) command(opts *options, bin *string) *cobra.Command {
	var noBuiltin, strict bool
	cmd := &cobra.Command{
		Use: q.name + " " + q.arguments, Short: q.short, Long: q.long, Example: q.example,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) < q.atLeast {
				return usageError{fmt.Errorf("name %s; see `%s --help`", q.missing, cmd.CommandPath())}
			}
			words := []string{"rules", q.name, "-o", opts.output}
			if noBuiltin {
				words = append(words, "-no-builtin")
			}
			if strict {
				words = append(words, "-strict")
			}
			return launch.Replace(filepath.Join(*bin, "palisade-correlator"), append(append(words, "--"), args...))
		},
	}
	cmd.Flags().BoolVar(&noBuiltin, "no-builtin", false, "leave the built-in rules out")
	if q.name == "check" {
		cmd.Flags().BoolVar(&strict, "strict", false, "take warnings for errors")
	}
	return cmd
}

package admission

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/cli/internal/scan"
	"github.com/palisade-sec/palisade/internal/admission"
	"github.com/palisade-sec/palisade/internal/admission/kept"
)

// Policy returns `palisade policy`.
func Policy(options Options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check an admission policy, and try it on a container's configuration",
		Long: `The admission policy says which containers may be created on this node (docs/admission.md). The enforcer takes it from
` + defaultPolicy + `, again whenever it changes. These commands need no node.`,
		Example: "  palisade policy check policy.yaml\n  palisade policy try policy.yaml --spec config.json --image shop:1",
		Args:    options.exactly(0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(checkPolicy(options), tryPolicy(options))
	return cmd
}

const defaultPolicy = "/etc/palisade/admission/policy.yaml"

func parse(path string) (*admission.Policy, error) {
	file := policyFile(path)
	raw, err := readFile(file)
	if err != nil {
		return nil, err
	}
	return admission.Parse(file, raw)
}

func checkPolicy(o Options) *cobra.Command {
	return &cobra.Command{
		Use: "check FILE|DIRECTORY", Short: "Say what is wrong with a policy, or that nothing is",
		Long: `Reads a policy as the enforcer does. Each fault has its file, line and column, and the exit code is 1. Of a directory it checks the
signature, too, if ` + kept.KeyName + ` is there.`,
		Example: "  palisade policy check policy.yaml\n  palisade policy check /etc/palisade/admission",
		Args:    o.exactly(1, "a policy's file, or the directory that holds it"),
		RunE: func(cmd *cobra.Command, args []string) error {
			policy, err := parse(args[0])
			if err != nil {
				return err
			}
			signature, err := signed(args[0])
			if err != nil {
				return err
			}
			if *o.Output == "json" {
				return o.json(cmd.OutOrStdout(), map[string]any{"rules": len(policy.Rules), "serial": policy.Serial, "dry_run": policy.DryRun, "signature": signature})
			}
			parts := []string{fmt.Sprintf("%d rules, serial %d", len(policy.Rules), policy.Serial)}
			if policy.DryRun {
				parts = append(parts, "dry run: nothing is refused")
			}
			if signature != "" {
				parts = append(parts, signature)
			}
			fmt.Fprintln(cmd.OutOrStdout(), "ok: "+strings.Join(parts, "; "))
			return nil
		},
	}
}

// question is what is known of the container that a policy is tried on.
type question struct {
	spec, image, digest, namespace, host, report, at string
	labels                                           []string
}

func tryPolicy(o Options) *cobra.Command {
	var q question
	cmd := &cobra.Command{
		Use: "try FILE", Short: "Say what a policy would do with a container",
		Long: `Decides as the enforcer would, about a container that you describe, and prints the text that its user would see. What you do not say is known to be
empty; without --report the image has not been scanned. The exit code is 0 if the container would be created, 3 if it would be refused.`,
		Example: `  palisade policy try policy.yaml --spec config.json
  palisade policy try policy.yaml --spec config.json --image shop:1 --namespace prod --label app=shop
  palisade scan shop:1 -o json >report.json; palisade policy try policy.yaml --spec config.json --image shop:1 --report report.json
  palisade policy try policy.yaml --spec config.json --report report.json --at 2027-01-01      # on another day: grace and exceptions end`,
		Args: o.exactly(1, "a policy's file"),
		RunE: func(cmd *cobra.Command, args []string) error { return o.try(cmd, args[0], q) },
	}
	flags := cmd.Flags()
	flags.StringVar(&q.spec, "spec", "", "the container's config.json, or its bundle's `directory`")
	flags.StringVar(&q.image, "image", "", "the image's `reference`")
	flags.StringVar(&q.digest, "digest", "", "the image's `digest`")
	flags.StringVar(&q.namespace, "namespace", "", "the pod's `namespace`")
	flags.StringSliceVar(&q.labels, "label", nil, "a `label`, as name=value; several, or several times")
	flags.StringVar(&q.host, "host", "", "the node's `name`; this host's if it is not given")
	flags.StringVar(&q.report, "report", "", "the scanner's report, a `file` as palisade scan -o json writes it")
	flags.StringVar(&q.at, "at", "", "the `day`, as 2027-01-31; today if it is not given")
	return cmd
}

func (o Options) try(cmd *cobra.Command, path string, asked question) error {
	q, now, err := o.read(asked)
	if err != nil {
		return err
	}
	policy, err := parse(path)
	if err != nil {
		return err
	}
	decision := policy.Decide(q, now)
	text := decision.Text(q)
	if *o.Output == "json" {
		err = o.json(cmd.OutOrStdout(), map[string]any{
			"rule": decision.Rule, "effect": decision.Effect, "denied": decision.Denied, "dry_run": decision.DryRun, "text": text,
		})
	} else {
		switch {
		case decision.Rule == "":
			text = "No rule matches: the container is created."
		case text == "":
			text = fmt.Sprintf("Rule %q has nothing against it: the container is created.", decision.Rule)
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
	}
	if err == nil && decision.Denied {
		return Verdict{Code: exitRefused, text: "the container would be refused"}
	}
	return err
}

// read turns words into a question.
func (o Options) read(asked question) (q *admission.Question, now time.Time, err error) {
	if asked.spec == "" {
		return nil, now, o.Usage(errors.New("--spec: name the container's config.json"))
	}
	q = &admission.Question{
		Container: "(tried)", Image: asked.image, Digest: asked.digest, Namespace: asked.namespace, Host: asked.host, Labels: map[string]string{},
	}
	for _, label := range asked.labels {
		name, value, ok := strings.Cut(label, "=")
		if !ok {
			return nil, now, o.Usage(fmt.Errorf("--label: %q is not name=value", label))
		}
		q.Labels[name] = value
	}
	if now = time.Now(); asked.at != "" {
		if now, err = time.Parse(time.DateOnly, asked.at); err != nil {
			return nil, now, o.Usage(fmt.Errorf("--at: %q is not a day as 2027-01-31", asked.at))
		}
	}
	if q.Host == "" {
		if q.Host, err = os.Hostname(); err != nil {
			return nil, now, err
		}
	}
	if q.Spec, err = readSpec(asked.spec); err != nil {
		return nil, now, err
	}
	if asked.report != "" {
		raw, err := readFile(asked.report)
		if err != nil {
			return nil, now, err
		}
		if q.Report, err = scan.ReadReport(raw); err != nil {
			return nil, now, fmt.Errorf("%s: %w", asked.report, err)
		}
	}
	return q, now, nil
}

// Package admission is `palisade compliance` and `palisade policy`: it shows the checks of container configurations, and tries an admission policy on one
// without a node. Data in: the built-in checks, files of people's; data out: words or JSON, and an exit code that a pipeline can go by.
package admission

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/admission/kept"
	"github.com/palisade-sec/palisade/internal/compliance"
	"github.com/palisade-sec/palisade/internal/document"
	"github.com/palisade-sec/palisade/internal/escape"
)

// Options are what the command line has for every command.
type Options struct {
	// Output is text or json.
	Output *string
	// Usage marks an error as the caller's.
	Usage func(error) error
}

// exitRefused is the exit code of a configuration that fails, or a container that would be refused.
const exitRefused = 3

// Verdict is an error that is not about the command but about what it judged. It has an exit code of its own.
type Verdict struct {
	Code int
	text string
}

func (v Verdict) Error() string { return v.text }

// maxFile bounds a file that is named on the command line.
const maxFile = 16 << 20

// Compliance returns `palisade compliance`.
func Compliance(options Options) *cobra.Command {
	c := &checks{Options: options}
	cmd := &cobra.Command{
		Use:   "compliance",
		Short: "Show the checks of container configurations, and hold one against them",
		Long: `A check looks at a container's OCI configuration (config.json) before the container is created. The built-in ones are those sections of the
CIS Docker Benchmark that a configuration can answer; an admission policy says which of them alert and which refuse (docs/admission.md).`,
		Example: `  palisade compliance list
  palisade compliance show docker-socket
  palisade compliance check /run/containerd/io.containerd.runtime.v2.task/default/web`,
		Args: options.exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVar(&c.with, "with", "", "a policy or another `file` with checks of your own, which count like the built-in ones")
	cmd.AddCommand(c.list(), c.show(), c.check())
	return cmd
}

// exactly wants a number of arguments.
func (o Options) exactly(n int, missing string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < n:
			return o.Usage(fmt.Errorf("name %s: see `%s --help`", missing, cmd.CommandPath()))
		case len(args) > n:
			return o.Usage(fmt.Errorf("unexpected argument %q: see `%s --help`", args[n], cmd.CommandPath()))
		}
		return nil
	}
}

func (o Options) json(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

type checks struct {
	Options
	with string
}

// all are the built-in checks and those of the file.
func (c *checks) all() ([]compliance.Check, error) {
	all, err := compliance.Builtin()
	if err != nil || c.with == "" {
		return all, err
	}
	raw, err := readFile(c.with)
	if err != nil {
		return nil, err
	}
	file, root := document.Parse(c.with, raw)
	own := compliance.Parse(root)
	return append(all, own...), file.Err()
}

func (c *checks) list() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the checks with their CIS numbers and severities",
		Example: "  palisade compliance list\n  palisade compliance list --with /etc/palisade/admission/policy.yaml\n  palisade compliance list -o json | jq '.[].cis'",
		Args:    c.exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.all()
			if err != nil {
				return err
			}
			if *c.Output == "json" {
				return c.json(cmd.OutOrStdout(), all)
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "CHECK\tCIS\tSEVERITY\tWHAT IT WANTS")
			for _, check := range all {
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", check.ID, check.CIS, check.Severity, safe(check.Title))
			}
			return table.Flush()
		},
	}
}

func (c *checks) show() *cobra.Command {
	return &cobra.Command{
		Use: "show CHECK", Short: "Show a check's remedy and its expression",
		Example: "  palisade compliance show privileged\n  palisade compliance show privileged -o json",
		Args:    c.exactly(1, "a check, which `palisade compliance list` shows"),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := c.all()
			if err != nil {
				return err
			}
			found, err := compliance.Select(all, args)
			if err != nil {
				return err
			}
			if *c.Output == "json" {
				return c.json(cmd.OutOrStdout(), found[0])
			}
			check := found[0]
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%s: %s\n", check.ID, safe(check.Title))
			if check.CIS != "" {
				fmt.Fprintf(out, "  CIS Docker Benchmark 1.6.0, %s\n", check.CIS)
			}
			fmt.Fprintf(out, "  severity   %s\n  remedy     %s\n  passes if  %s\n", check.Severity, safe(check.Remedy), safe(check.Expression))
			return nil
		},
	}
}

func (c *checks) check() *cobra.Command {
	return &cobra.Command{
		Use: "check CONFIG|BUNDLE", Short: "Hold a config.json against every check",
		Long: `Reads a config.json, or that of a bundle's directory, and tells which checks it fails. The exit code is 0 if it fails none, 3 if it fails
one, 1 if it cannot be read, 2 for a mistake in the command line.`,
		Example: "  palisade compliance check config.json\n  palisade compliance check /run/containerd/io.containerd.runtime.v2.task/moby/ID -o json",
		Args:    c.exactly(1, "a config.json or a bundle's directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := c.all()
			if err != nil {
				return err
			}
			set, err := compliance.Compile(all)
			if err != nil {
				return err
			}
			raw, err := readSpec(args[0])
			if err != nil {
				return err
			}
			failures, err := set.Evaluate(raw)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if err := c.tell(cmd.OutOrStdout(), failures); err != nil || len(failures) == 0 {
				return err
			}
			return Verdict{Code: exitRefused, text: fmt.Sprintf("%d of %d checks fail", len(failures), len(all))}
		},
	}
}

func (c *checks) tell(out io.Writer, failures []compliance.Failure) error {
	if *c.Output == "json" {
		if failures == nil {
			failures = []compliance.Failure{}
		}
		return c.json(out, failures)
	}
	for _, failure := range failures {
		name := failure.Check.ID
		if failure.Check.CIS != "" {
			name = "CIS " + failure.Check.CIS + " " + name
		}
		fmt.Fprintf(out, "%s (%s): %s %s\n  %s\n", name, failure.Check.Severity, safe(failure.Check.Title), safe(failure.Detail), safe(failure.Check.Remedy))
	}
	if len(failures) == 0 {
		fmt.Fprintln(out, "no check fails")
	}
	return nil
}

// safe is text of files' for terminals.
func safe(text string) string { return string(escape.Append(nil, strings.TrimSpace(text))) }

// readSpec reads a config.json, or that of a bundle.
func readSpec(path string) ([]byte, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "config.json")
	}
	return readFile(path)
}

// readFile reads a file of bounded size.
func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(raw) > maxFile {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return raw, err
}

// policyFile is a policy's: the path itself, or that in a directory.
func policyFile(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(path, kept.PolicyName)
	}
	return path
}

// signed says how a directory's policy is signed; it is an error if it has to be and is not.
func signed(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return "", nil //nolint:nilerr // a file alone has no signature
	}
	if _, err := os.Lstat(filepath.Join(path, kept.KeyName)); errors.Is(err, fs.ErrNotExist) {
		return "not signed: there is no " + kept.KeyName, nil
	}
	if _, err := kept.ReadBundle(path); err != nil {
		return "", err
	}
	return "signed, and the signature holds", nil
}

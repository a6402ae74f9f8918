// Package scan is `palisade scan`: what is known against an image, or against a root directory.
//
// In: a command line, and a report, either of the node's scanner or of the scanner's program, which is run for a root directory. Out: a
// table for people, JSON, or a bill of materials, and an exit code that a pipeline can go by.
package scan

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/advisory"
)

// Options are what the command line has for every command.
type Options struct {
	// Output is the flag -o.
	Output *string
	// Usage marks an error as the caller's.
	Usage func(error) error
	// Dial connects to a process of the node.
	Dial func(process string) (*grpc.ClientConn, error)
	// Explain turns a call's error into one that says what to do.
	Explain func(process string, err error) error
}

// Exit codes besides 0, 1 and 2.
const (
	// exitFailOn: --fail-on was reached.
	exitFailOn = 3
	// exitFaults: --strict, and the report is not whole.
	exitFaults = 4
)

// Verdict is an error that is not about the scan but about what it found. It has an exit code of its own.
type Verdict struct {
	Code int
	text string
}

func (v Verdict) Error() string { return v.text }

// command is one call.
type command struct {
	Options
	rootfs, advisories, binaries, failOn, containerd string
	strict, list, ahead                              bool
}

// severities are what --fail-on takes, with the least grave that reaches it.
var severities = map[string]scannerv1.Severity{
	"any": scannerv1.Severity_SEVERITY_UNSPECIFIED, "low": scannerv1.Severity_SEVERITY_LOW, "medium": scannerv1.Severity_SEVERITY_MEDIUM,
	"high": scannerv1.Severity_SEVERITY_HIGH, "critical": scannerv1.Severity_SEVERITY_CRITICAL,
}

// formats are what -o takes here.
var formats = []string{"text", "json", "cyclonedx", "spdx"}

// New returns the command.
func New(options Options) *cobra.Command {
	c := &command{Options: options}
	cmd := &cobra.Command{
		Use:   "scan IMAGE|DIGEST",
		Short: "Show the vulnerabilities of an image, or of a root directory",
		Long: `Shows what the node's scanner found in an image: the scanner looks at each image when containerd gets it, or when the first container of it is created, and
matches its report again whenever advisories were imported. Name the image as the runtime does, or its digest or the beginning of that.

With --rootfs a directory is scanned now, whether a node runs or not, with your rights, in a process that can only read that directory.
Other file systems mounted in it are left out, and listed.

With --ahead every image of containerd is scanned of which there is no report, and each that is pulled or imported, until stopped. "palisade up" does that
for as long as it runs.

-o text is a table, json all that is known, cyclonedx a bill of materials with vulnerabilities (CycloneDX 1.6), spdx one of packages (SPDX
2.3). A report with faults is not a clean one: something could not be read, or nothing was imported to compare it with.

Exit codes: 0 the report is shown, 1 there is none, 2 wrong usage, 3 a vulnerability reaches --fail-on, 4 --strict and the report has
faults.`,
		Example: `  palisade scan --list
  palisade scan docker.example/shop:1.4
  palisade scan sha256:4b7ce07002c6 --fail-on high --strict
  palisade scan --rootfs /srv/root -o cyclonedx >bom.json
  palisade scan --rootfs / -o json | jq -r '.vulnerabilities[].id'
  palisade scan --ahead`,
		Args: func(_ *cobra.Command, args []string) error { return c.check(args) },
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd, args) },
		// In the place of the root's, which knows text and json only.
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if !slices.Contains(formats, *c.Output) {
				return c.Usage(fmt.Errorf("-o: %q is not one of %s", *c.Output, strings.Join(formats, ", ")))
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.rootfs, "rootfs", "", "scan this root `directory` now")
	flags.StringVar(&c.advisories, "advisories", advisory.Directory, "with --rootfs: the `directory` that `palisade vulndb import` wrote")
	flags.StringVar(&c.binaries, "bin", besideThis(), "with --rootfs: the `directory` with palisade-scanner")
	flags.StringVar(&c.failOn, "fail-on", "", "exit with 3 if a vulnerability is at least this `severity`: low, medium, high, critical; any counts unrated ones too")
	flags.BoolVar(&c.strict, "strict", false, "exit with 4 if the report has faults")
	flags.BoolVar(&c.list, "list", false, "list the images that there are reports of")
	flags.BoolVar(&c.ahead, "ahead", false, "have containerd's images scanned, and those that come, until stopped")
	flags.StringVar(&c.containerd, "containerd-socket", "/run/containerd/containerd.sock", "with --ahead: containerd's `socket`")
	return cmd
}

func besideThis() string {
	path, err := os.Executable()
	if err != nil {
		return "/usr/bin"
	}
	return filepath.Dir(path)
}

// check refuses what makes no sense together.
func (c *command) check(args []string) error {
	chosen := len(args)
	for _, flag := range []bool{c.list, c.ahead, c.rootfs != ""} {
		if flag {
			chosen++
		}
	}
	if _, ok := severities[c.failOn]; !ok && c.failOn != "" {
		return c.Usage(fmt.Errorf("--fail-on: %q is not low, medium, high, critical or any", c.failOn))
	}
	if chosen != 1 {
		return c.Usage(errors.New("name one image, or a directory with --rootfs, or use --list or --ahead: see `palisade scan --help`"))
	}
	if (c.list || c.ahead) && *c.Output != "text" && *c.Output != "json" {
		return c.Usage(fmt.Errorf("-o: %q is not text or json", *c.Output))
	}
	return nil
}

func (c *command) run(cmd *cobra.Command, args []string) error {
	if c.list {
		reports, err := c.reports(cmd.Context())
		if err != nil {
			return err
		}
		return writeList(cmd.OutOrStdout(), *c.Output, reports)
	}
	if c.ahead {
		return c.lookAhead(cmd)
	}
	report, err := c.report(cmd, args)
	if err != nil {
		return err
	}
	if err := write(cmd.OutOrStdout(), *c.Output, report); err != nil {
		return err
	}
	return c.judge(report)
}

func (c *command) report(cmd *cobra.Command, args []string) (*scannerv1.Report, error) {
	if c.rootfs != "" {
		return c.scanDirectory(cmd.Context(), cmd.ErrOrStderr())
	}
	return c.keptReport(cmd.Context(), args[0])
}

// judge is the verdict on a report that was shown: nil if nothing that was asked about is wrong with it.
func (c *command) judge(report *scannerv1.Report) error {
	if least, asked := severities[c.failOn]; asked {
		count := 0
		for _, v := range report.GetVulnerabilities() {
			if v.GetSeverity() >= least {
				count++
			}
		}
		if count > 0 {
			return Verdict{Code: exitFailOn, text: fmt.Sprintf("%d vulnerabilities reach --fail-on %s", count, c.failOn)}
		}
	}
	if n := len(report.GetFaults()); c.strict && n > 0 {
		return Verdict{Code: exitFaults, text: fmt.Sprintf("the report has %d faults, and --strict wants none", n)}
	}
	return nil
}

// reports are those the node's scanner keeps.
func (c *command) reports(ctx context.Context) ([]*scannerv1.Report, error) {
	conn, err := c.Dial("scanner")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	answer, err := scannerv1.NewScannerServiceClient(conn).ListReports(ctx, &scannerv1.ListReportsRequest{})
	if err != nil {
		return nil, c.Explain("scanner", err)
	}
	return answer.GetReports(), nil
}

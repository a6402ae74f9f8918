// Package command is the palisade command line: one file a command.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/palisade-sec/palisade/cli/internal/admission"
	"github.com/palisade-sec/palisade/cli/internal/scan"
	"github.com/palisade-sec/palisade/cli/internal/shim"
	"github.com/palisade-sec/palisade/cli/internal/show"
	"github.com/palisade-sec/palisade/cli/internal/vulndb"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/rpc"
)

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// errUsage marks what the person typed wrong.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Execute runs the command line and returns the exit code: 0, 1 if what was asked for did not work, 2 if it was asked
// for wrongly, and those of `palisade scan`, `palisade compliance` and
// `palisade policy`.
func Execute(args []string, stdout, stderr io.Writer) int {
	// A closed terminal (SIGHUP) is a reason to clean up like any other, and a reader of our output that is gone
	// (SIGPIPE) is an error of that write, not a reason to die without cleaning up.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	signal.Ignore(syscall.SIGPIPE)
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil || errors.Is(err, context.Canceled) {
		return exitOK
	}
	fmt.Fprintf(stderr, "palisade: %s\n", daemon.OneLine(err))
	if usage := (usageError{}); errors.As(err, &usage) {
		return exitUsage
	}
	if verdict := (scan.Verdict{}); errors.As(err, &verdict) {
		return verdict.Code
	}
	if verdict := (admission.Verdict{}); errors.As(err, &verdict) {
		return verdict.Code
	}
	return exitError
}

// options are the flags every command has.
type options struct {
	run    string
	output string
}

func newRoot() *cobra.Command {
	opts := &options{}
	root := &cobra.Command{
		Use:   "palisade",
		Short: "Protects a node's containers, and the node, from user space",
		Long: `Palisade watches the kernel with eBPF, knows which container did what, and stops what a rule forbids.

One node is seven processes (collector, correlator, gate, enforcer, scanner, uplink, console), each with one privilege and no
other; this command starts them, talks to them and shows what they found.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if opts.output != "text" && opts.output != "json" {
				return usageError{fmt.Errorf("-o: %q is not text or json", opts.output)}
			}
			return nil
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w: see `%s --help`", err, cmd.CommandPath())}
	})
	flags := root.PersistentFlags()
	flags.StringVar(&opts.run, "run", "/run/palisade", "directory with the node's sockets")
	flags.StringVarP(&opts.output, "output", "o", "text", "text or json")
	usage := func(err error) error { return usageError{err} }
	root.AddCommand(newUp(opts), newLaunch(), newStatus(opts), newFindings(opts), newIncidents(opts), newEvents(opts), newRules(opts),
		newRecord(opts), newReplay(opts), newModels(opts), newMetrics(opts), newDemo(opts), newRemove(opts), newPins(),
		vulndb.New(&opts.output, usage),
		admission.Compliance(admission.Options{Output: &opts.output, Usage: usage}), admission.Policy(admission.Options{Output: &opts.output, Usage: usage}),
		scan.New(scan.Options{Output: &opts.output, Usage: usage, Dial: opts.dial, Explain: opts.explain}),
		shim.New(shim.Options{Output: &opts.output, Usage: usage}))
	return root
}

// sockets are where the node's processes are found.
func (o *options) sockets() (rpc.Sockets, error) {
	sockets, err := rpc.DefaultSockets()
	sockets.Directory = o.run
	return sockets, err
}

// dial connects to a process of the node, as root.
func (o *options) dial(process string) (*grpc.ClientConn, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root may ask the node's processes: try sudo")
	}
	sockets, err := o.sockets()
	if err != nil {
		return nil, err
	}
	return sockets.Dial(process)
}

// explain turns a call's error into one that says what to do next.
func (o *options) explain(process string, err error) error {
	if status.Code(err) == codes.Unavailable {
		return fmt.Errorf("the %s does not answer on %s/%s.sock (%s): is the node up? Start it with `palisade up`",
			process, o.run, process, status.Convert(err).Message())
	}
	return fmt.Errorf("ask %s: %w", process, err)
}

// painter colours output on a terminal, unless NO_COLOR is set (no-color.org).
func painter(w io.Writer) show.Painter {
	file, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

func atMostOne(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usageError{fmt.Errorf("one process at most, not %d: see `%s --help`", len(args), cmd.CommandPath())}
	}
	return nil
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q: see `%s --help`", args[0], cmd.CommandPath())}
	}
	return nil
}

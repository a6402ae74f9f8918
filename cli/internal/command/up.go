package command

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/palisade-sec/palisade/cli/internal/ahead"
	"github.com/palisade-sec/palisade/cli/internal/launch"
	"github.com/palisade-sec/palisade/cli/internal/node"
	"github.com/palisade-sec/palisade/cli/internal/show"
	"github.com/palisade-sec/palisade/cli/internal/supervise"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/telemetry"
	"github.com/palisade-sec/palisade/internal/unixsock"
)

// readyTimeout is how long the processes may take to become healthy before up says which one is not.
const readyTimeout = 20 * time.Second

func newUp(opts *options) *cobra.Command {
	settings := node.Settings{}
	verbose := false
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the node on this host and show findings as they come",
		Long: `Starts every process under its own uid with its row of deploy/privileges.yaml and no other right, restarts one
that dies, and prints findings until Ctrl-C, which stops everything and removes what up made.

Before anything starts, every process checks its configuration and privileges; one complaint and nothing starts.`,
		Example: `  palisade up                                   # node and console on this host
  palisade up --ephemeral                       # the same, state thrown away at the end
  palisade up --console console.example:8084    # node only`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if settings.Ephemeral && cmd.Flags().Changed("state") {
				return usageError{errors.New("--ephemeral throws state away, --state keeps it: choose one")}
			}
			settings.Runtime = opts.run
			settings.TraceEndpoint = os.Getenv(telemetry.EndpointVariable)
			return up(cmd.Context(), settings, &terminal{
				out: cmd.OutOrStdout(), print: opts.printer(cmd.OutOrStdout()),
				notes: cmd.ErrOrStderr(), paint: painter(cmd.ErrOrStderr()), verbose: verbose,
			}, opts)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&settings.Binaries, "bin", executableDirectory(), "directory with the palisade-* binaries")
	flags.StringVar(&settings.State, "state", "/var/lib/palisade", "directory for what survives a restart")
	flags.BoolVar(&settings.Ephemeral, "ephemeral", false, "throw state away at the end")
	flags.StringVar(&settings.Name, "node-name", hostName(), "the node's name in its certificate")
	flags.StringVar(&settings.Containerd, "containerd-socket", "/run/containerd/containerd.sock", "containerd's socket")
	flags.StringVar(&settings.CRIO, "crio-socket", "/run/crio/crio.sock", "CRI-O's socket, followed whenever it is there")
	flags.StringVar(&settings.Docker, "docker-socket", "/run/docker.sock", "Docker's socket, followed whenever it is there")
	flags.StringVar(&settings.Podman, "podman-socket", "/run/podman/podman.sock", "Podman's socket (podman.socket), followed whenever it is there")
	flags.StringVar(&settings.Console, "console", "", "deliver to the console at HOST:PORT instead of starting one")
	flags.StringVar(&settings.NodesListen, "nodes-listen", "127.0.0.1:8084", "where the console listens for nodes")
	flags.StringVar(&settings.PeopleListen, "people-listen", "127.0.0.1:8083", "where the console listens for people")
	flags.StringSliceVar(&settings.Rules, "rules", nil, "more rule files or directories, in Falco's language")
	flags.StringVar(&settings.Admission, "admission", "/etc/palisade/admission", "directory with the admission policy, policy.yaml (docs/admission.md)")
	flags.StringSliceVar(&settings.Images, "images", nil, "more `directories` with images, if the runtimes keep them elsewhere than /var/lib/{containerd,containers,docker}")
	flags.BoolVar(&settings.Models, "models", false, "learn what each image does, and report what it did not do before (palisade models)")
	flags.DurationVar(&settings.ModelsLearn, "models-learn", 24*time.Hour, "with --models: how long a container must run for its image to be learned")
	flags.DurationVar(&settings.ModelsDryRun, "models-dry-run", 24*time.Hour, "with --models: how long to only count what was not learned")
	flags.BoolVarP(&verbose, "verbose", "v", false, "show everything the processes log, not only warnings")
	return cmd
}

func executableDirectory() string {
	path, err := os.Executable()
	if err != nil {
		return "/usr/local/bin"
	}
	return filepath.Dir(path)
}

// hostName is the name in the node's certificate unless another is chosen; a host that was never named says "(none)".
func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" || name == "(none)" {
		return "node"
	}
	return name
}

func up(ctx context.Context, settings node.Settings, term *terminal, opts *options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("up starts processes under their own uids and needs root: try sudo palisade up")
	}
	if settings.Ephemeral {
		settings.State = node.EphemeralState(settings.Runtime)
	}
	n, err := node.Prepare(settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	processes, err := n.Processes(term.processLine)
	if err != nil {
		return err
	}
	supervisor := supervise.New(processes, term.restarted)
	if err := supervisor.Check(ctx, term.checked); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, term.stop)()
	tasks := []daemon.Task{
		{Name: "supervisor", Run: supervisor.Run},
		{Name: "findings", Run: func(ctx context.Context) error { return showFindings(ctx, opts, term) }},
		{Name: "readiness", Run: func(ctx context.Context) error { return announce(ctx, settings, term, opts) }},
		{Name: "shim", Run: settings.ShimWatcher(term.shimEvent).Run},
		{Name: "images", Run: ahead.Watcher{
			Socket: settings.Containerd, Dial: func() (*grpc.ClientConn, error) { return opts.dial("scanner") }, Failed: term.notScanned,
		}.Run},
	}
	if settings.TraceEndpoint != "" {
		relay, err := traceRelay(n, settings, term.notes)
		if err != nil {
			return err
		}
		tasks = append(tasks, relay)
	}
	return daemon.RunAll(ctx, 2*readyTimeout, tasks...)
}

// traceRelay lets processes without a network deliver traces.
func traceRelay(n *node.Node, settings node.Settings, notes io.Writer) (daemon.Task, error) {
	relay, err := telemetry.NewRelay(settings.TraceEndpoint, slog.New(slog.NewTextHandler(notes, nil)))
	if err != nil {
		return daemon.Task{}, err
	}
	listener, err := unixsock.Listen(n.TraceSocket(), n.SocketGroup())
	if err != nil {
		return daemon.Task{}, err
	}
	return daemon.Task{Name: "traces", Run: func(ctx context.Context) error { return relay.Run(ctx, listener) }}, nil
}

func showFindings(ctx context.Context, opts *options, term *terminal) error {
	conn, err := opts.dial("uplink")
	if err != nil {
		return err
	}
	defer conn.Close()
	return watch(ctx, conn, 0, term.print)
}

// announce waits until the processes are healthy, says so, and stays. After readyTimeout it says who is not, and later when
// they are: on a slow host the kernel takes longer than that to check the collector's programs.
func announce(ctx context.Context, settings node.Settings, term *terminal, opts *options) error {
	names, err := opts.processNames(nil)
	if err != nil {
		return err
	}
	waiting := opts.awaitHealth(ctx, names, 100*time.Millisecond, time.After(readyTimeout))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, status := range waiting {
		term.note("%s is not healthy: %v", status.Process, status.Warnings)
	}
	term.banner(settings, len(names)-len(waiting), len(names))
	if len(waiting) > 0 && len(opts.awaitHealth(ctx, names, 2*time.Second, nil)) == 0 {
		term.note("All %d processes are healthy now.", len(names))
	}
	<-ctx.Done()
	return ctx.Err()
}

// awaitHealth asks every so often until all of the processes are healthy, late fires or ctx ends, and returns those that were not
// the last time.
func (o *options) awaitHealth(ctx context.Context, names []string, every time.Duration, late <-chan time.Time) []show.Status {
	for {
		var waiting []show.Status
		for _, name := range names {
			if status := o.askStatus(ctx, name); !status.Healthy {
				waiting = append(waiting, status)
			}
		}
		if len(waiting) == 0 {
			return nil
		}
		select {
		case <-time.After(every):
		case <-late:
			return waiting
		case <-ctx.Done():
			return waiting
		}
	}
}

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

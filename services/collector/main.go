// Command collector turns kernel activity into an event stream.
//
// # Privileges
//
// Runs as its own uid with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN until the probes are attached, then with none. Opens no network
// socket but the one traces are sent to if asked (OTEL_EXPORTER_OTLP_ENDPOINT), writes no file, starts no process. The
// self-test at start, which has no capabilities any more, is the exception: it speaks to its own sockets on the loopback network,
// makes links and directories in one that it removes, and starts this program once, to kill it at once.
// Reads /sys/kernel/btf, /proc/<pid>/{cmdline,stat}. Trusts no input but its configuration and the kernel; its only
// caller for events is the correlator.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/palisade-sec/palisade/internal/config"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/memory"
	"github.com/palisade-sec/palisade/internal/privilege"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/internal/telemetry"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/selftest"
	"github.com/palisade-sec/palisade/services/collector/internal/stream"
)

const (
	// grace is what the tasks get to stop in.
	grace = 5 * time.Second
	// memoryLimit is soft and for Go's memory and the rings together; the cgroup's, in the table of privileges, is hard.
	memoryLimit = 84 << 20
	// leastMemory is what is left to Go beside rings that are larger than the limit.
	leastMemory = 32 << 20
	// checkRing is enough for the self-test. The rings of a collector that has died count against the same cgroup as long as they are
	// pinned: a check that made two more of that size would not always fit in beside them.
	checkRing = 256 << 10
)

func main() { daemon.Main("collector", run) }

// settings are the configuration file's keys.
type settings struct {
	Sockets rpc.Sockets   `yaml:"sockets"`
	Probes  probe.Config  `yaml:"probes"`
	Stream  stream.Config `yaml:"stream"`
}

// Validate reports every fault.
func (s settings) Validate() error {
	return errors.Join(s.Sockets.Validate(), s.Probes.Validate(), s.Stream.Validate())
}

func defaults() (settings, error) {
	sockets, err := rpc.DefaultSockets()
	if err != nil {
		return settings{}, err
	}
	return settings{
		Sockets: sockets,
		Probes:  probe.DefaultConfig(),
		Stream:  stream.Config{UnacknowledgedBytes: 32 << 20},
	}, nil
}

func run(ctx context.Context, env daemon.Env) error {
	base, err := defaults()
	if err != nil {
		return err
	}
	cfg, opts, err := config.Load(env.Args, base)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if opts.Check {
		return check(env, cfg)
	}
	socket, err := cfg.Sockets.Listen(env.Name)
	if err != nil {
		return err
	}
	defer socket.Close()
	probes, tested, err := attach(cfg.Probes)
	if err != nil {
		return err
	}
	defer probes.Close()
	stopTracing, err := telemetry.Start(ctx, env.Name)
	if err != nil {
		return err
	}
	defer stopTracing()
	c, err := build(env, cfg, probes, tested)
	if err != nil {
		return err
	}
	c.introduce(ctx, env.Log)
	return daemon.RunAll(ctx, grace, c.tasks(cfg, socket)...)
}

// tasks are what runs until the process ends.
func (c *collector) tasks(cfg settings, socket net.Listener) []daemon.Task {
	tasks := []daemon.Task{
		{Name: "ring", Run: c.ring.Run},
		{Name: "losses", Run: c.losses.Run},
		{Name: "rpc", Run: func(ctx context.Context) error { return c.server.Run(ctx, socket) }},
		// GOMEMLIMIT, which the supervisor derives from the cgroup's limit, does not come first here: it leaves no room
		// for the ring.
		{Name: "memory", Run: memory.New(goMemory(cfg.Probes), "").Run},
	}
	if cfg.Probes.Syscalls {
		tasks = append(tasks, daemon.Task{Name: "syscalls", Run: c.used.Run})
	}
	return tasks
}

// attach loads and attaches the probes, gives up the capabilities and tries the hooks. If one of those that are required does
// not work, nothing stays behind of what was not there before.
func attach(cfg probe.Config) (*probe.Set, selftest.Report, error) {
	probes, err := probe.Load(cfg)
	if err != nil {
		return nil, selftest.Report{}, err
	}
	if err := privilege.DropAllBut(probes.Keeps()...); err != nil { // links and maps stay valid
		return nil, selftest.Report{}, errors.Join(err, probes.Close())
	}
	tested, err := selftest.Run(probes, newDecoder())
	debug.FreeOSMemory() // what loading took, which is more than all the rest
	if err == nil {
		return probes, tested, nil
	}
	if probes.Resumed() {
		return nil, tested, errors.Join(err, probes.Close())
	}
	return nil, tested, errors.Join(err, probes.Remove())
}

// introduce says what is seen, and what is not.
func (c *collector) introduce(ctx context.Context, log *slog.Logger) {
	log.InfoContext(ctx, "Attached probes", "hook", hookNames(c.probes), "tier", c.probes.Tier(), "resumed", c.probes.Resumed(),
		"self_test", c.tested.String())
	for _, hook := range c.tested.Hooks() {
		if hook.State == selftest.Silent {
			log.WarnContext(ctx, "A hook is silent", "hook", hook.Hook.Name, "without", hook.Hook.Without)
		}
	}
}

// goMemory is what is left to Go. The rings' pages count against the same cgroup, and Go's runtime knows nothing of them.
func goMemory(cfg probe.Config) int64 {
	return max(leastMemory, memoryLimit-int64(cfg.UrgentBytes)-int64(cfg.BulkBytes))
}

func hookNames(probes *probe.Set) string {
	var names []string
	for _, hook := range probes.Attached() {
		names = append(names, hook.Name)
	}
	return strings.Join(names, " ")
}

// check goes as far as a start does without serving, and leaves nothing pinned.
func check(env daemon.Env, cfg settings) error {
	cfg.Probes.Pins = ""
	cfg.Probes.UrgentBytes, cfg.Probes.BulkBytes = min(cfg.Probes.UrgentBytes, checkRing), min(cfg.Probes.BulkBytes, checkRing)
	probes, tested, err := attach(cfg.Probes)
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Stdout, "configuration is valid; tier %s, attached %s; self-test: %s\n", probes.Tier(), hookNames(probes), tested)
	return probes.Close()
}

// identify reads the boot's id and the rings', and makes up this run's.
func identify(probes *probe.Set) (stream.Identity, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return stream.Identity{}, fmt.Errorf("read boot id: %w", err)
	}
	epoch, err := probes.Epoch()
	if err != nil {
		return stream.Identity{}, err
	}
	return stream.Identity{BootID: strings.TrimSpace(string(boot)), Instance: rand.Text(), Epoch: epoch}, nil
}

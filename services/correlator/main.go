// Command correlator finds out whose event it is, what led to it, and whether a rule matches, and sees to it that the
// finding is acted upon and kept.
//
// # Privileges
//
// Runs as uid 10002 without capabilities, network or child processes. Reads rule files, writes how far
// events were seen, what images were learned to do and each workload's last events in its state directory; speaks to
// collector, gate, enforcer and uplink over their unix sockets, each of which it refuses unless that process's uid
// serves it. Serves /run/palisade/correlator.sock to the operator. Trusts the collector's events, what the gate reads of the host's accounts, and the runtimes'
// word on which pid is a container's; nothing that comes out of a container, names and arguments included, is more
// than text to it.
package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/palisade-sec/palisade/internal/config"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/internal/statedir"
	"github.com/palisade-sec/palisade/internal/telemetry"
	"github.com/palisade-sec/palisade/services/correlator/internal/account"
	"github.com/palisade-sec/palisade/services/correlator/internal/amendment"
	"github.com/palisade-sec/palisade/services/correlator/internal/container"
	"github.com/palisade-sec/palisade/services/correlator/internal/delivery"
	"github.com/palisade-sec/palisade/services/correlator/internal/flight"
	"github.com/palisade-sec/palisade/services/correlator/internal/model"
	"github.com/palisade-sec/palisade/services/correlator/internal/passage"
	"github.com/palisade-sec/palisade/services/correlator/internal/pipeline"
	"github.com/palisade-sec/palisade/services/correlator/internal/reload"
	"github.com/palisade-sec/palisade/services/correlator/internal/repeat"
	"github.com/palisade-sec/palisade/services/correlator/internal/rulecommand"
	"github.com/palisade-sec/palisade/services/correlator/internal/server"
	"github.com/palisade-sec/palisade/services/correlator/rules"
)

// grace is how long the tasks have to end.
const grace = 5 * time.Second

// settings is the configuration file.
type settings struct {
	Sockets rpc.Sockets `yaml:"sockets"`
	// StateDirectory keeps how far events were seen, models, and the flight recorder's files.
	StateDirectory string `yaml:"state_directory"`
	// Rules are files, or directories of *.yaml files, read after the built-in pack.
	Rules      []string                 `yaml:"rules"`
	Hold       pipeline.HoldConfig      `yaml:"hold"`
	Processes  pipeline.ProcessesConfig `yaml:"processes"`
	Workloads  pipeline.WorkloadsConfig `yaml:"workloads"`
	Repeats    repeat.Config            `yaml:"repeats"`
	Amendments amendment.Config         `yaml:"amendments"`
	Gate       container.Config         `yaml:"gate"`
	Enforcer   delivery.EnforcerConfig  `yaml:"enforcer"`
	Uplink     delivery.UplinkConfig    `yaml:"uplink"`
	Reload     reload.Config            `yaml:"reload"`
	Models     model.Config             `yaml:"models"`
	// Recorder keeps the last minutes of each workload on disk.
	Recorder flight.Config `yaml:"recorder"`
	// Accounts are the host's users and groups, which the gate tells.
	Accounts account.Config `yaml:"accounts"`
	// Shim is the book of containers that passed the runC shim.
	Shim passage.Config `yaml:"shim"`
}

// Validate reports every fault.
func (s settings) Validate() error {
	var state error
	if !filepath.IsAbs(s.StateDirectory) {
		state = fmt.Errorf("state_directory: %q is not an absolute path", s.StateDirectory)
	}
	return errors.Join(s.Sockets.Validate(), state, s.pipeline().Validate(), s.Repeats.Validate(), s.Amendments.Validate(), s.Gate.Validate(),
		s.Enforcer.Validate(), s.Uplink.Validate(), s.Reload.Validate(), s.Models.Validate(), s.Accounts.Validate(), s.Recorder.Validate(), s.Shim.Validate())
}

func (s settings) pipeline() pipeline.Config {
	return pipeline.Config{Hold: s.Hold, Processes: s.Processes, Workloads: s.Workloads}
}

func defaultSettings() (settings, error) {
	sockets, err := rpc.DefaultSockets()
	engine := pipeline.DefaultConfig()
	return settings{
		Sockets: sockets, StateDirectory: "/var/lib/palisade/correlator", Rules: []string{}, Hold: engine.Hold, Processes: engine.Processes, Workloads: engine.Workloads,
		Repeats: repeat.DefaultConfig(), Amendments: amendment.DefaultConfig(), Gate: container.DefaultConfig(),
		Enforcer: delivery.DefaultEnforcerConfig(), Uplink: delivery.DefaultUplinkConfig(),
		Reload: reload.DefaultConfig(), Models: model.DefaultConfig(), Recorder: flight.DefaultConfig(), Accounts: account.DefaultConfig(), Shim: passage.DefaultConfig(),
	}, err
}

func main() { daemon.Main("correlator", run) }

// questions are what people ask this program about a file, instead of running it as the process: by the first argument.
func questions() map[string]func(context.Context, daemon.Env) error {
	return map[string]func(context.Context, daemon.Env) error{"replay": runReplay, "rules": runRules}
}

// runRules is `palisade-correlator rules`.
func runRules(_ context.Context, env daemon.Env) error {
	builtin, err := rules.Sources()
	if err != nil {
		return err
	}
	return rulecommand.Run(env.Args[1:], builtin, env.Stdout)
}

func run(ctx context.Context, env daemon.Env) error {
	if len(env.Args) > 0 {
		if question, ok := questions()[env.Args[0]]; ok {
			return question(ctx, env)
		}
	}
	defaults, err := defaultSettings()
	if err != nil {
		return err
	}
	cfg, opts, err := config.Load(env.Args, defaults)
	if err != nil {
		return err
	}
	set, err := loadRules(ctx, cfg.Rules, env.Log)
	if err != nil {
		return err
	}
	if opts.Check {
		if err := statedir.Check(cfg.StateDirectory); err != nil {
			return err
		}
		_, err := fmt.Fprintf(env.Stdout, "ok: %d rules\n", len(set.Rules()))
		return err
	}
	state, err := statedir.Open(cfg.StateDirectory)
	if err != nil {
		return err
	}
	defer state.Close()
	stop, err := telemetry.Start(ctx, env.Name)
	if err != nil {
		return err
	}
	defer stop()
	registry := telemetry.NewRegistry()
	p, err := assemble(cfg, set, env.Log, registry)
	if err != nil {
		return err
	}
	defer p.close()
	calls, err := rpc.NewServer(rpc.ServerConfig{
		Process: env.Name, Callers: server.Callers(), UIDs: cfg.Sockets.UIDs, Recover: true,
		Log: env.Log, Metrics: registry, Status: p.status,
	})
	if err != nil {
		return err
	}
	server.New(p.engine.Matches(), p.tap).Register(calls)
	server.NewModels(p.modelBook()).Register(calls)
	server.NewFlight(p.flight).Register(calls)
	p.passage.Register(calls)
	socket, err := cfg.Sockets.Listen(env.Name)
	if err != nil {
		return err
	}
	env.Log.InfoContext(ctx, "Serving", "socket", cfg.Sockets.Path(env.Name), "rules", len(set.Rules()))
	return daemon.RunAll(ctx, grace, append(p.tasks(),
		daemon.Task{Name: "rpc", Run: func(ctx context.Context) error { return calls.Run(ctx, socket) }})...)
}

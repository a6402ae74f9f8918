// Command gate is a read-only window on the container runtimes' APIs (containerd, CRI-O, Docker, Podman): it lets the correlator
// list containers, tasks and images and follow events, and refuses everything else. It also hands the correlator the host's account
// files, which name users and groups.
//
// # Privileges
//
// Runs as uid 10003 without capabilities, in the groups that own the runtimes' sockets: such a socket is as good as
// root, which is why no other process may open one. Opens no network socket, writes no file, reads passwd and group in the host's
// /etc, starts no process. Serves
// /run/palisade/gate.sock (containerd and CRI-O; status to the operator) and a gate-<runtime>.sock for each runtime that speaks
// HTTP, all to the correlator. Trusts the uid at the other end of a runtime's socket; parses nothing that comes from either
// side but the versions it shows, and not the account files either.
package main

import (
	"context"
	"errors"
	"time"

	"github.com/palisade-sec/palisade/internal/config"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/internal/telemetry"
	"github.com/palisade-sec/palisade/services/gate/internal/account"
	"github.com/palisade-sec/palisade/services/gate/internal/proxy"
	"github.com/palisade-sec/palisade/services/gate/internal/window"
)

// grace is how long the tasks have to end.
const grace = 5 * time.Second

// settings is the configuration file.
type settings struct {
	Sockets    rpc.Sockets  `yaml:"sockets"`
	Containerd proxy.Config `yaml:"containerd"`
	// The others are followed if they are there, now or later.
	CRIO   proxy.Config  `yaml:"crio"`
	Docker window.Config `yaml:"docker"`
	Podman window.Config `yaml:"podman"`
	// Accounts are the host's users and groups.
	Accounts account.Config `yaml:"accounts"`
}

// Validate reports every fault.
func (s settings) Validate() error {
	return errors.Join(s.Sockets.Validate(), s.Containerd.Validate("containerd"), s.CRIO.Validate("crio"),
		s.Docker.Validate("docker"), s.Podman.Validate("podman"), s.Accounts.Validate())
}

func main() { daemon.Main("gate", run) }

func run(ctx context.Context, env daemon.Env) error {
	sockets, err := rpc.DefaultSockets()
	if err != nil {
		return err
	}
	cfg, opts, err := config.Load(env.Args, settings{
		Sockets: sockets, Containerd: proxy.DefaultConfig(), CRIO: proxy.DefaultCRIO(), Docker: window.DefaultDocker(), Podman: window.DefaultPodman(),
		Accounts: account.DefaultConfig(),
	})
	if err != nil {
		return err
	}
	stop, err := telemetry.Start(ctx, env.Name)
	if err != nil {
		return err
	}
	defer stop()
	registry := telemetry.NewRegistry()
	forward, err := proxy.New(cfg.Containerd, cfg.CRIO, env.Log, registry)
	if err != nil {
		return err
	}
	defer forward.Close()
	windows, err := window.NewSet(map[string]window.Config{"docker": cfg.Docker, "podman": cfg.Podman}, cfg.Sockets.UIDs, env.Log, registry)
	if err != nil {
		return err
	}
	accounts := account.New(cfg.Accounts, env.Log)
	state := states{cfg: cfg.Containerd, crio: cfg.CRIO, proxy: forward, windows: windows, accounts: accounts}
	if opts.Check {
		return state.check(ctx, env.Stdout)
	}
	server, err := rpc.NewServer(rpc.ServerConfig{
		Process: env.Name, Callers: proxy.Callers(), UIDs: cfg.Sockets.UIDs,
		Log: env.Log, Metrics: registry, Options: forward.ServerOptions(),
		Status: state.status,
	})
	if err != nil {
		return err
	}
	forward.Register(server) //nolint:contextcheck // a call's context is its stream's
	accounts.Register(server)
	socket, err := cfg.Sockets.Listen(env.Name)
	if err != nil {
		return err
	}
	tasks, err := windows.Tasks(cfg.Sockets)
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	env.Log.InfoContext(ctx, "Serving", "socket", cfg.Sockets.Path(env.Name), "containerd", cfg.Containerd.Socket)
	return daemon.RunAll(ctx, grace, append(tasks,
		daemon.Task{Name: "rpc", Run: func(ctx context.Context) error { return server.Run(ctx, socket) }})...)
}

// Command gate is a read-only window on containerd's API: it lets the correlator list containers, tasks and images and
// follow events, and refuses everything else.
//
// # Privileges
//
// Runs as uid 10003 without capabilities, in the group that owns containerd's socket: that socket is as good as root,
// which is why no other process may open it. Opens no network socket, writes no file, starts no process. Serves
// /run/palisade/gate.sock to the correlator (status to the operator). Trusts containerd's uid at the other end of its
// socket; parses nothing that comes from either side.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/internal/config"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/internal/telemetry"
	"github.com/palisade-sec/palisade/services/gate/internal/proxy"
)

// grace is how long the tasks have to end.
const grace = 5 * time.Second

// settings is the configuration file.
type settings struct {
	Sockets    rpc.Sockets  `yaml:"sockets"`
	Containerd proxy.Config `yaml:"containerd"`
}

// Validate reports every fault.
func (s settings) Validate() error {
	return errors.Join(s.Sockets.Validate(), s.Containerd.Validate())
}

func main() { daemon.Main("gate", run) }

func run(ctx context.Context, env daemon.Env) error {
	sockets, err := rpc.DefaultSockets()
	if err != nil {
		return err
	}
	cfg, opts, err := config.Load(env.Args, settings{Sockets: sockets, Containerd: proxy.DefaultConfig()})
	if err != nil {
		return err
	}
	stop, err := telemetry.Start(ctx, env.Name)
	if err != nil {
		return err
	}
	defer stop()
	registry := telemetry.NewRegistry()
	window, err := proxy.New(cfg.Containerd, env.Log, registry)
	if err != nil {
		return err
	}
	defer window.Close()
	if opts.Check {
		version, err := window.Version(ctx, cfg.Containerd)
		if err != nil {
			return fmt.Errorf("%w: is it running, and is uid %d in the socket's group?", err, cfg.Sockets.UIDs[env.Name])
		}
		_, err = fmt.Fprintf(env.Stdout, "ok: containerd %s at %s\n", version, cfg.Containerd.Socket)
		return err
	}
	server, err := rpc.NewServer(rpc.ServerConfig{
		Process: env.Name, Callers: proxy.Callers(), UIDs: cfg.Sockets.UIDs,
		Log: env.Log, Metrics: registry, Options: window.ServerOptions(),
		Status: func(ctx context.Context) *processv1.GetStatusResponse { return window.Status(ctx, cfg.Containerd) },
	})
	if err != nil {
		return err
	}
	window.Register(server) //nolint:contextcheck // a call's context is its stream's
	socket, err := cfg.Sockets.Listen(env.Name)
	if err != nil {
		return err
	}
	env.Log.InfoContext(ctx, "Serving", "socket", cfg.Sockets.Path(env.Name), "containerd", cfg.Containerd.Socket)
	return daemon.RunAll(ctx, grace, daemon.Task{Name: "rpc", Run: func(ctx context.Context) error { return server.Run(ctx, socket) }})
}

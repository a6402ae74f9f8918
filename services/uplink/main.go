// Command uplink keeps the node's findings until the console has them: a durable queue, and the channel that empties
// it.
//
// # Privileges
//
// Runs as uid 10004 without capabilities. Writes its state directory and nothing else, reads its certificates, serves
// uplink.sock, and connects to the console's port 8084 and nowhere else. Its callers are the correlator, which puts
// findings in, and the operator, who reads them. It trusts nobody's findings: they are stored and passed on, never
// interpreted.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.opentelemetry.io/otel"

	"github.com/palisade-sec/palisade/internal/config"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/memory"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/internal/statedir"
	"github.com/palisade-sec/palisade/internal/telemetry"
	"github.com/palisade-sec/palisade/services/uplink/internal/channel"
	"github.com/palisade-sec/palisade/services/uplink/internal/queue"
	"github.com/palisade-sec/palisade/services/uplink/internal/server"
)

const (
	// grace is how long the tasks have to end.
	grace = 5 * time.Second
	// memoryLimit is soft; the cgroup's, in the table of privileges, is hard.
	memoryLimit = 48 << 20
)

func main() { daemon.Main("uplink", run) }

func run(ctx context.Context, env daemon.Env) error {
	defaults, err := defaultConfig()
	if err != nil {
		return err
	}
	cfg, opts, err := config.Load(env.Args, defaults)
	if err != nil {
		return err
	}
	if opts.Check {
		return check(cfg, env)
	}
	stopTracing, err := telemetry.Start(ctx, env.Name)
	if err != nil {
		return err
	}
	defer stopTracing()
	socket, err := cfg.Sockets.Listen(env.Name)
	if err != nil {
		return err
	}
	defer socket.Close()
	state, err := statedir.Open(cfg.StateDirectory)
	if err != nil {
		return fmt.Errorf("state_directory: %w", err)
	}
	defer state.Close()
	registry := telemetry.NewRegistry()
	findings, err := queue.Open(state.Path(), cfg.Queue, env.Log, registry)
	if err != nil {
		return err
	}
	defer findings.Close()
	console := channel.New(cfg.Console, findings, env.Log, otel.Tracer("palisade/uplink"))
	calls, err := rpc.NewServer(rpc.ServerConfig{
		Process: env.Name, Callers: server.Callers(), UIDs: cfg.Sockets.UIDs, Recover: true,
		Log: env.Log, Metrics: registry, Status: describe(findings, console),
	})
	if err != nil {
		return err
	}
	server.New(findings, env.Log).Register(calls)
	env.Log.InfoContext(ctx, "Serving", "socket", cfg.Sockets.Path(env.Name), "pending", findings.Stats().Pending)
	return daemon.RunAll(ctx, grace,
		daemon.Task{Name: "memory", Run: memory.New(memoryLimit, os.Getenv("GOMEMLIMIT")).Run},
		daemon.Task{Name: "queue", Run: findings.Run},
		daemon.Task{Name: "collect", Run: findings.Collect},
		daemon.Task{Name: "channel", Run: console.Run},
		daemon.Task{Name: "rpc", Run: func(ctx context.Context) error { return calls.Run(ctx, socket) }},
	)
}

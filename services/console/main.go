// Command console receives what nodes find, keeps it, and shows it to people.
//
// # Privileges
//
// Runs as uid 10005 without capabilities. Listens on 8084 for nodes, who show a certificate of its own authority before
// they are answered a byte, and on 8083 for people, who show a password. Writes its state directory, and the directory
// in which nodes on the same machine find their certificates; serves console.sock, where the operator asks how it is.
// It trusts nothing a node says of itself: the node's name comes from its certificate, the rest is stored and escaped.
package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/palisade-sec/palisade/internal/config"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/memory"
	"github.com/palisade-sec/palisade/internal/telemetry"
)

const (
	// grace is how long the tasks have to end.
	grace = 5 * time.Second
	// memoryLimit is soft; the cgroup's, in the table of privileges, is hard.
	memoryLimit = 128 << 20
)

func main() { daemon.Main("console", run) }

func run(ctx context.Context, env daemon.Env) (err error) {
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
	doors, err := listen(cfg, env.Name)
	if err != nil {
		return err
	}
	defer doors.Close()
	built, err := build(ctx, cfg, env)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, built.Close()) }()
	env.Log.InfoContext(ctx, "Serving", "nodes", cfg.Nodes.Listen, "people", cfg.People.Listen)
	return daemon.RunAll(ctx, grace,
		daemon.Task{Name: "memory", Run: memory.New(memoryLimit, os.Getenv("GOMEMLIMIT")).Run},
		daemon.Task{Name: "certificates", Run: built.certificates.Run},
		daemon.Task{Name: "index", Run: built.index.Run},
		daemon.Task{Name: "prune", Run: built.index.Prune},
		daemon.Task{Name: "nodes", Run: func(ctx context.Context) error { return built.nodes.Run(ctx, doors.nodes) }},
		daemon.Task{Name: "people", Run: func(ctx context.Context) error {
			return built.people.Run(ctx, doors.people, built.certificates.People())
		}},
		daemon.Task{Name: "rpc", Run: func(ctx context.Context) error { return built.calls.Run(ctx, doors.socket) }},
	)
}

// Command enforcer does what a policy asks for and no other process of Palisade can: it kills processes, and it answers the runC shim
// whether a container may be created.
//
// # Privileges
//
// Runs as uid 0 with CAP_KILL, to signal processes of any uid, and CAP_DAC_OVERRIDE, to write files of any owner in
// the cgroup tree (later acts), and with nothing else: without CAP_SYS_PTRACE it sees of other processes only what
// everybody does. It is in the host's pid namespace, has no network, and starts no process. It listens on
// enforcer.sock, where only the correlator's uid may ask for an act, and root for a description, and on enforcer-admission.sock, where
// only root, which the shim is, may ask for an answer; it reads /proc and /etc/palisade/admission, and writes
// /var/lib/palisade/enforcer. It asks the gate for the container that is about to be created and for its image, and the scanner for what is
// known of that. It trusts its configuration, the admission policy if that is root's or signed, and the kernel. The correlator it does not
// trust: a request is checked against the process's start time, the never-kill list and the budget, and recorded first. Nor what
// a container's configuration says of itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/internal/config"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/privilege"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/internal/telemetry"
	"github.com/palisade-sec/palisade/services/enforcer/internal/action"
	"github.com/palisade-sec/palisade/services/enforcer/internal/admit"
	"github.com/palisade-sec/palisade/services/enforcer/internal/audit"
	"github.com/palisade-sec/palisade/services/enforcer/internal/kill"
)

// callers says who may call what. A method without a line is refused.
var callers = rpc.Callers{
	enforcerv1.ActionService_Kill_FullMethodName: {"correlator"}, // it alone knows which process a finding is about
}

func main() { daemon.Main("enforcer", run) }

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
	if err := privilege.Require(env.Name, "DAC_OVERRIDE", "KILL"); err != nil {
		return err
	}
	stopTracing, err := telemetry.Start(ctx, env.Name)
	if err != nil {
		return err
	}
	defer stopTracing()
	log, err := audit.Open(cfg.Audit)
	if err != nil {
		return err
	}
	defer log.Close()
	killer, err := kill.New(cfg.Kill, log, env.Log)
	if err != nil {
		return err
	}
	if opts.Check {
		fmt.Fprintln(env.Stdout, "enforcer: configuration and privileges are in order")
		return nil
	}
	registry := telemetry.NewRegistry()
	gate, err := newGatekeeper(ctx, env, cfg, log, registry)
	if err != nil {
		return err
	}
	defer gate.close()
	server, err := newServer(env, cfg, killer, gate.admission, registry)
	if err != nil {
		return err
	}
	if err := secureDirectory(cfg.Sockets); err != nil {
		return err
	}
	listener, err := cfg.Sockets.Listen(env.Name)
	if err != nil {
		return err
	}
	shims, err := cfg.Sockets.Listen(admit.SocketName)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	env.Log.InfoContext(ctx, "Serving", "audit", cfg.Audit.Path)
	return daemon.RunAll(ctx, cfg.Grace, append(gate.tasks(shims),
		daemon.Task{Name: "rpc", Run: func(ctx context.Context) error { return server.Run(ctx, listener) }},
	)...)
}

// newServer puts the service behind the caller table. A panic is not recovered: a privileged process that no longer
// knows what it does must end.
func newServer(
	env daemon.Env, cfg configuration, killer action.Killer, admission *admit.Admission, registry *prometheus.Registry,
) (*rpc.Server, error) {
	service, err := action.New(killer, registry)
	if err != nil {
		return nil, err
	}
	server, err := rpc.NewServer(rpc.ServerConfig{
		Process: env.Name, Callers: callers, UIDs: cfg.Sockets.UIDs, Log: env.Log, Metrics: registry,
		Status: func(ctx context.Context) *processv1.GetStatusResponse {
			answer := service.Status(ctx)
			admission.Describe(answer)
			return answer
		},
	})
	if err != nil {
		return nil, err
	}
	enforcerv1.RegisterActionServiceServer(server, service)
	return server, nil
}

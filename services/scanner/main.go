// Command scanner finds the packages in container images, and what is known against them.
//
// # Privileges
//
// Runs as uid 10006 with CAP_DAC_READ_SEARCH, because files of images belong to anybody. Opens no network socket. Reads the runtimes'
// directories (/var/lib/containerd, /var/lib/docker, /var/lib/containers) and the advisory store, writes /var/lib/palisade/scanner.
// Serves /run/palisade/scanner.sock to the enforcer and the operator. Starts one program, itself: files of an image are opened only in
// such a process, which is restricted first (Landlock: that image's layers alone; seccomp: no network, no execution; limits of memory,
// time and size), and whose answer is checked as what is in the image is: it is foreign. No file is opened by its handle, which that
// capability would allow whatever is mounted. Trusts the enforcer's word on which
// directories are an image's layers and what its digest is.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/palisade-sec/palisade/internal/advisory"
	"github.com/palisade-sec/palisade/internal/config"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/privilege"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/internal/statedir"
	"github.com/palisade-sec/palisade/internal/telemetry"
	"github.com/palisade-sec/palisade/services/scanner/internal/cache"
	"github.com/palisade-sec/palisade/services/scanner/internal/child"
	"github.com/palisade-sec/palisade/services/scanner/internal/sandbox"
	"github.com/palisade-sec/palisade/services/scanner/internal/scan"
)

// grace is how long the tasks have to end.
const grace = 5 * time.Second

// settings is the configuration file.
type settings struct {
	Sockets rpc.Sockets `yaml:"sockets"`
	// StateDirectory holds the reports, and scratch space of scans.
	StateDirectory string `yaml:"state_directory"`
	// Advisories is the directory that `palisade vulndb import` writes.
	Advisories string `yaml:"advisories"`
	// Time bounds one scan.
	Time    time.Duration `yaml:"time"`
	Bounds  child.Bounds  `yaml:"bounds"`
	Reports cache.Limits  `yaml:"keep"`
}

func defaults(sockets rpc.Sockets) settings {
	return settings{
		Sockets: sockets, StateDirectory: "/var/lib/palisade/scanner", Advisories: advisory.Directory, Time: 5 * time.Minute, Bounds: child.DefaultBounds(),
		Reports: cache.Limits{Reports: 1000, MiB: 512},
	}
}

// Validate reports every fault.
func (s settings) Validate() error {
	errs := []error{s.Sockets.Validate(), s.Bounds.Validate()}
	for _, path := range []struct{ key, value string }{{"state_directory", s.StateDirectory}, {"advisories", s.Advisories}} {
		if !filepath.IsAbs(path.value) {
			errs = append(errs, fmt.Errorf("%s: %q is not an absolute path", path.key, path.value))
		}
	}
	if s.Time < time.Second || s.Time > time.Hour {
		errs = append(errs, fmt.Errorf("time: %v is not between 1s and 1h", s.Time))
	}
	if s.Reports.Reports <= 0 || s.Reports.MiB <= 0 {
		errs = append(errs, errors.New("keep: reports and mib must be positive"))
	}
	return errors.Join(errs...)
}

func main() { daemon.Main("scanner", run) }

func run(ctx context.Context, env daemon.Env) error {
	if len(env.Args) > 0 && env.Args[0] == child.Word {
		return child.Main(ctx, env.Args[1:], env.Stdout)
	}
	if len(env.Args) > 0 && env.Args[0] == onceWord {
		return once(ctx, env.Args[1:], env.Stdout)
	}
	sockets, err := rpc.DefaultSockets()
	if err != nil {
		return err
	}
	cfg, opts, err := config.Load(env.Args, defaults(sockets))
	if err != nil {
		return err
	}
	if err := privilege.Require(env.Name, "DAC_READ_SEARCH"); err != nil {
		return err
	}
	if opts.Check {
		if err := statedir.Check(cfg.StateDirectory); err != nil {
			return err
		}
		_, err := fmt.Fprintf(env.Stdout, "ok: state in %s\n", cfg.StateDirectory)
		return err
	}
	return serve(ctx, env, cfg)
}

func serve(ctx context.Context, env daemon.Env, cfg settings) error {
	if err := sandbox.ForbidHandles(); err != nil {
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
	kept, err := cache.Open(filepath.Join(state.Path(), "reports"), cfg.Reports)
	if err != nil {
		return err
	}
	scratch, err := emptyScratch(state.Path())
	if err != nil {
		return err
	}
	advisories := scan.NewAdvisories(cfg.Advisories)
	defer advisories.Close()
	registry := telemetry.NewRegistry()
	server, err := rpc.NewServer(rpc.ServerConfig{
		Process: env.Name, Callers: scan.Callers(), UIDs: cfg.Sockets.UIDs, Recover: false, Log: env.Log, Metrics: registry,
		Status: describe(advisories, kept),
	})
	if err != nil {
		return err
	}
	service := scan.New(child.Config{Scratch: scratch, Time: cfg.Time, Bounds: cfg.Bounds}, advisories, kept, env.Log, registry)
	service.Register(server) //nolint:contextcheck // a call's context is its own
	socket, err := cfg.Sockets.Listen(env.Name)
	if err != nil {
		return err
	}
	env.Log.InfoContext(ctx, "Serving", "socket", cfg.Sockets.Path(env.Name))
	return daemon.RunAll(ctx, grace, daemon.Task{Name: "rpc", Run: func(ctx context.Context) error { return server.Run(ctx, socket) }})
}

// emptyScratch makes the directory of scratch space, without what scans of a killed process left there.
func emptyScratch(state string) (string, error) {
	path := filepath.Join(state, "scratch")
	if err := os.RemoveAll(path); err != nil {
		return "", fmt.Errorf("empty scratch directory: %w", err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return "", fmt.Errorf("make scratch directory: %w", err)
	}
	return path, nil
}

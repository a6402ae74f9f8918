package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/internal/statedir"
	"github.com/palisade-sec/palisade/internal/telemetry"
	"github.com/palisade-sec/palisade/services/console/internal/account"
	"github.com/palisade-sec/palisade/services/console/internal/certificate"
	"github.com/palisade-sec/palisade/services/console/internal/index"
	"github.com/palisade-sec/palisade/services/console/internal/ingest"
	"github.com/palisade-sec/palisade/services/console/internal/journal"
	"github.com/palisade-sec/palisade/services/console/internal/web"
)

// parts is the console, built but not started.
type parts struct {
	certificates *certificate.Keeper
	journal      *journal.Journal
	index        *index.Index
	nodes        *ingest.Server
	people       *web.Server
	calls        *rpc.Server
	closers      []io.Closer
}

// build makes every part, in the order in which they need each other. The password is shown last: whoever sees it has
// a console that could be built.
func build(ctx context.Context, cfg consoleConfig, env daemon.Env) (p *parts, err error) {
	p = &parts{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if err := cfg.certificates().CheckEnroll(); err != nil {
		return p, err
	}
	state, err := statedir.Open(cfg.StateDirectory)
	if err != nil {
		return p, fmt.Errorf("state_directory: %w", err)
	}
	p.closers = append(p.closers, state)
	if p.journal, err = journal.Open(ctx, filepath.Join(state.Path(), "journal"), cfg.Retention, env.Log); err != nil {
		return p, err
	}
	p.closers = append(p.closers, p.journal)
	if p.index, err = index.Open(ctx, filepath.Join(state.Path(), "index"), p.journal, env.Log); err != nil {
		return p, err
	}
	p.closers = append(p.closers, p.index)
	if p.certificates, err = certificate.Open(cfg.certificates(), env.Log); err != nil {
		return p, err
	}
	registry := telemetry.NewRegistry()
	if err := p.buildServers(cfg, env, registry); err != nil {
		return p, err
	}
	accounts, err := account.Open(state.Path(), env.Stdout)
	if err != nil {
		return p, err
	}
	p.people = web.New(p.index, accounts, time.Now, env.Log, registry)
	return p, nil
}

func (p *parts) buildServers(cfg consoleConfig, env daemon.Env, registry *prometheus.Registry) error {
	side, err := p.certificates.Nodes()
	if err != nil {
		return err
	}
	if p.nodes, err = ingest.New(side, p.journal, p.index, env.Log, registry); err != nil {
		return err
	}
	p.calls, err = rpc.NewServer(rpc.ServerConfig{
		Process: env.Name, UIDs: cfg.Sockets.UIDs, Recover: true,
		Log: env.Log, Metrics: registry, Status: p.describe(cfg),
	})
	return err
}

// Close closes what was opened, last first.
func (p *parts) Close() error {
	var errs []error
	for _, closer := range slices.Backward(p.closers) {
		errs = append(errs, closer.Close())
	}
	return errors.Join(errs...)
}

// describe returns what the console says of itself.
func (p *parts) describe(cfg consoleConfig) func(context.Context) *processv1.GetStatusResponse {
	return func(ctx context.Context) *processv1.GetStatusResponse {
		answer := &processv1.GetStatusResponse{Healthy: true, Facts: []*processv1.Fact{
			{Name: "nodes", Value: cfg.Nodes.Listen},
			{Name: "people", Value: "https://" + cfg.People.Listen},
		}}
		kept, err := p.journal.State(ctx)
		if err != nil {
			answer.Healthy = false
			answer.Warnings = append(answer.Warnings, "journal cannot be read: "+daemon.OneLine(err))
			return answer
		}
		answer.Facts = append(answer.Facts,
			&processv1.Fact{Name: "findings", Value: strconv.FormatUint(kept.Findings, 10)},
			&processv1.Fact{Name: "journal bytes", Value: strconv.FormatUint(kept.Bytes, 10)})
		return answer
	}
}

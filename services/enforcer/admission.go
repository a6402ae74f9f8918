package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/services/enforcer/internal/admit"
	"github.com/palisade-sec/palisade/services/enforcer/internal/audit"
	"github.com/palisade-sec/palisade/services/enforcer/internal/identity"
	"github.com/palisade-sec/palisade/services/enforcer/internal/outbox"
)

// scanner is the process that a node may be without.
const scanner = "scanner"

// gatekeeper is what answers the shim, with the connections it needs.
type gatekeeper struct {
	admission *admit.Admission
	outbox    *outbox.Outbox
	closers   []io.Closer
}

// newGatekeeper connects to nobody before it has to. Close it.
func newGatekeeper(ctx context.Context, env daemon.Env, cfg configuration, log *audit.Log, registry *prometheus.Registry) (g *gatekeeper, err error) {
	g = &gatekeeper{}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	peers := map[string]*grpc.ClientConn{}
	names := []string{"correlator", "uplink"}
	if _, has := cfg.Sockets.UIDs[scanner]; has {
		names = append(names, scanner)
	}
	for _, name := range names {
		conn, err := cfg.Sockets.Dial(name)
		if err != nil {
			return nil, err
		}
		peers[name] = conn
		g.closers = append(g.closers, conn)
	}
	finder, err := identity.New(cfg.Sockets)
	if err != nil {
		return nil, err
	}
	g.closers = append(g.closers, finder)
	g.outbox, err = outbox.New(outbox.Peers{Correlator: peers["correlator"], Uplink: peers["uplink"]}, env.Log, registry)
	if err != nil {
		return nil, err
	}
	parts := admit.Parts{Finder: finder, Audit: log, Outbox: g.outbox, Log: env.Log, Metrics: registry}
	if peers[scanner] != nil {
		parts.Scanner = scannerv1.NewScannerServiceClient(peers[scanner])
	}
	g.admission, err = admit.New(ctx, cfg.Admission, parts)
	if err != nil {
		return nil, fmt.Errorf("admission: %w", err)
	}
	return g, nil
}

func (g *gatekeeper) close() {
	var errs []error
	for _, closer := range g.closers {
		errs = append(errs, closer.Close())
	}
	_ = errors.Join(errs...) // the process ends
}

// tasks run until the process ends; the first one closes the listener.
func (g *gatekeeper) tasks(shims net.Listener) []daemon.Task {
	return []daemon.Task{
		{Name: "admission", Run: func(ctx context.Context) error { return g.admission.Serve(ctx, shims) }},
		{Name: "scans", Run: g.admission.Scan},
		{Name: "watch", Run: g.admission.Watch},
		{Name: "outbox", Run: g.outbox.Run},
	}
}

package admit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
	"github.com/palisade-sec/palisade/internal/admission/kept"
	"github.com/palisade-sec/palisade/internal/periodic"
)

// Parts are what an Admission works with.
type Parts struct {
	Finder finder
	// Scanner is nil if the node has none.
	Scanner scannerv1.ScannerServiceClient
	Audit   auditor
	Outbox  outbox
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Admission answers shims. Run its tasks.
type Admission struct {
	cfg      Config
	policies *policies
	images   *images
	server   *server
	metrics  *metrics
	shim     *shim
	alone    *alone
}

// New returns an admission that knows the policy and answers nobody yet.
func New(ctx context.Context, cfg Config, parts Parts) (*Admission, error) {
	m, err := newMetrics(parts.Metrics)
	if err != nil {
		return nil, err
	}
	store, err := kept.Open(cfg.Kept)
	if err != nil {
		return nil, fmt.Errorf("admission.kept: %w", err)
	}
	p := newPolicies(ctx, cfg.Policy, store, parts.Log)
	i := newImages(parts.Scanner, store, parts.Log)
	j := &judge{
		host: cfg.host(), finder: parts.Finder, policy: p.current, images: i, audit: parts.Audit, outbox: parts.Outbox,
		log: parts.Log, metrics: m, now: time.Now,
	}
	return &Admission{
		cfg: cfg, policies: p, images: i, server: newServer(j, m, parts.Log), metrics: m,
		shim:  &shim{directory: cfg.Standing, outbox: parts.Outbox, log: parts.Log},
		alone: &alone{store: store, outbox: parts.Outbox, log: parts.Log},
	}, nil
}

// Serve answers until ctx ends or the listener fails, and closes it.
func (a *Admission) Serve(ctx context.Context, listener net.Listener) error {
	return a.server.run(ctx, listener)
}

// Scan has the images scanned that containers are created of, until ctx ends.
func (a *Admission) Scan(ctx context.Context) error { return a.images.run(ctx) }

// Watch looks at the policy, at what was decided in the enforcer's place, and at where the shim stands, until ctx ends.
func (a *Admission) Watch(ctx context.Context) error {
	return periodic.Run(ctx, a.cfg.Every, func(ctx context.Context) error {
		a.policies.look(ctx)
		a.shim.look(ctx)
		a.alone.look(ctx)
		return nil
	})
}

// Describe adds to a status.
func (a *Admission) Describe(answer *processv1.GetStatusResponse) {
	policy, fault := a.policies.standing()
	inForce := "none"
	if policy != nil {
		inForce = fmt.Sprintf("%d rules, serial %d", len(policy.Rules), policy.Serial)
		if policy.DryRun {
			inForce += ", dry run"
		}
	}
	answer.Facts = append(answer.Facts,
		&processv1.Fact{Name: "admission policy", Value: inForce},
		&processv1.Fact{Name: "containers allowed", Value: number(a.metrics.allowed.Load())},
		&processv1.Fact{Name: "containers allowed with a warning", Value: number(a.metrics.alerted.Load())},
		&processv1.Fact{Name: "containers a dry run would refuse", Value: number(a.metrics.wouldRefuse.Load())},
		&processv1.Fact{Name: "containers refused", Value: number(a.metrics.refused.Load())},
		&processv1.Fact{Name: "decided in the enforcer's place", Value: number(a.alone.count.Load())},
		&processv1.Fact{Name: "runC shim", Value: a.shim.String()},
	)
	warn := func(err error, text string) {
		if err != nil {
			answer.Healthy = false
			answer.Warnings = append(answer.Warnings, text)
		}
	}
	warn(fault, fmt.Sprintf("the admission policy in %s is not taken, the one before stays in force: %v", a.cfg.Policy, fault))
	if a.metrics.unaudited.Load() {
		warn(errUnaudited, "a refusal could not be written to the audit log: make room for it")
	}
}

var errUnaudited = errors.New("not written")

func number(n uint64) string { return strconv.FormatUint(n, 10) }

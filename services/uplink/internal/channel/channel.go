// Package channel brings findings from the node's queue to the console, over mutual TLS. A finding leaves the queue
// only after the console has acknowledged it; a console that is away is tried again and again.
package channel

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	consolev1 "github.com/palisade-sec/palisade/api/palisade/console/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/mtls"
	"github.com/palisade-sec/palisade/services/uplink/internal/queue"
)

// A batch's bounds; the console takes 1000 findings and 8 MiB.
const (
	batchFindings = 500
	batchBytes    = 4 << 20
)

// Between attempts the channel waits from backoffMin, doubling, up to backoffMax, each time up to a fifth less.
const (
	backoffMin = 100 * time.Millisecond
	backoffMax = 2 * time.Second
	// identityWait is how often missing certificates are looked for.
	identityWait = 500 * time.Millisecond
)

// Config says where the console is.
type Config struct {
	// Address is host:port; empty keeps findings on the node.
	Address string `yaml:"address"`
	// ServerName is the name the console's certificate must carry.
	ServerName string `yaml:"server_name"`
	// EnrollDirectory holds ca.crt, node.crt and node.key.
	EnrollDirectory string `yaml:"enroll_directory"`
	// PushTimeout is how long the console has to acknowledge a batch.
	PushTimeout time.Duration `yaml:"push_timeout"`
}

// DefaultConfig is a console on the same node.
func DefaultConfig() Config {
	return Config{
		Address: "127.0.0.1:8084", ServerName: "localhost", EnrollDirectory: "/var/lib/palisade/enroll",
		PushTimeout: 10 * time.Second,
	}
}

// Validate reports every fault, each starting with its key.
func (c Config) Validate() error {
	if c.Address == "" {
		return nil
	}
	var errs []error
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		errs = append(errs, fmt.Errorf("address: %w", err))
	}
	if c.ServerName == "" {
		errs = append(errs, errors.New("server_name: empty: want the name in the console's certificate"))
	}
	if !filepath.IsAbs(c.EnrollDirectory) {
		errs = append(errs, fmt.Errorf("enroll_directory: %q is not an absolute path", c.EnrollDirectory))
	}
	if c.PushTimeout < time.Second || c.PushTimeout > 5*time.Minute {
		errs = append(errs, fmt.Errorf("push_timeout: %v is not from 1s to 5m", c.PushTimeout))
	}
	return errors.Join(errs...)
}

// Queue is where findings wait; *queue.Queue is one.
type Queue interface {
	Take(ctx context.Context, bounds queue.Bounds) ([]queue.Stored, error)
	MarkDelivered(ctx context.Context, findings []queue.Stored) error
	Discard(ctx context.Context, reason string, findings []queue.Stored) error
}

// Channel is the way to one console.
type Channel struct {
	cfg    Config
	queue  Queue
	log    *slog.Logger
	tracer trace.Tracer
	state  stateBox
}

// New returns a channel; Run opens it.
func New(cfg Config, queue Queue, log *slog.Logger, tracer trace.Tracer) *Channel {
	c := &Channel{cfg: cfg, queue: queue, log: log, tracer: tracer}
	c.state.set(State{Connection: Connecting})
	if cfg.Address == "" {
		c.state.set(State{Connection: Off})
	}
	return c
}

// Run delivers until ctx ends.
func (c *Channel) Run(ctx context.Context) error {
	if c.cfg.Address == "" {
		<-ctx.Done()
		return ctx.Err()
	}
	var wait pause
	for ctx.Err() == nil {
		identity, err := mtls.OpenNode(c.cfg.EnrollDirectory, c.cfg.ServerName)
		if err != nil {
			c.fail(ctx, Waiting, err)
			sleep(ctx, identityWait, nil)
			continue
		}
		if err := c.session(ctx, identity); err != nil {
			c.fail(ctx, Disconnected, err)
			sleep(ctx, wait.next(), nil)
			continue
		}
		wait = pause{} // the certificates changed: use the new ones at once
	}
	return ctx.Err()
}

// session delivers with one identity until ctx ends, or the files it was read from change (nil).
func (c *Channel) session(ctx context.Context, identity mtls.NodeIdentity) error {
	conn, err := c.dial(identity)
	if err != nil {
		return err
	}
	defer conn.Close()
	inner, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	ready := make(chan struct{}, 1)
	watching.Go(func() {
		defer stop()
		c.watch(inner, conn, identity, ready)
	})
	err = c.drain(inner, consolev1.NewIngestServiceClient(conn), ready)
	if ctx.Err() == nil && inner.Err() != nil {
		return nil
	}
	return err
}

// drain takes and delivers until ctx ends or the queue fails. ready ends a pause early.
func (c *Channel) drain(ctx context.Context, client consolev1.IngestServiceClient, ready <-chan struct{}) error {
	var wait pause
	for ctx.Err() == nil {
		batch, err := c.queue.Take(ctx, queue.Bounds{Findings: batchFindings, Bytes: batchBytes})
		if err != nil {
			return err
		}
		if err := c.deliver(ctx, client, batch); err != nil {
			c.fail(ctx, Disconnected, err)
			sleep(ctx, wait.next(), ready)
			continue
		}
		wait = pause{}
		c.state.set(State{Connection: Connected})
	}
	return ctx.Err()
}

func (c *Channel) dial(identity mtls.NodeIdentity) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("dns:///"+c.cfg.Address,
		grpc.WithTransportCredentials(credentials.NewTLS(identity.TLS)),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: backoffMin, Multiplier: 2, Jitter: 0.2, MaxDelay: backoffMax},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
	)
	if err != nil {
		return nil, fmt.Errorf("dial console %s: %w", c.cfg.Address, err)
	}
	return conn, nil
}

// watch keeps the connection up while nothing is to be sent, so that the next finding leaves at once, and says in the
// state how it is. It returns when ctx ends, or when the connection is lost and there are newer certificates.
func (c *Channel) watch(
	ctx context.Context, conn *grpc.ClientConn, identity mtls.NodeIdentity, ready chan<- struct{},
) {
	for ctx.Err() == nil {
		// The state stays TransientFailure however often the connection is tried, so look again after a while.
		state, wait := conn.GetState(), backoffMax
		switch state {
		case connectivity.Idle:
			conn.Connect()
		case connectivity.Ready:
			c.state.set(State{Connection: Connected})
			wait = time.Hour // its loss is a change
			select {
			case ready <- struct{}{}:
			default:
			}
		case connectivity.TransientFailure:
			c.state.disconnected(fmt.Errorf("no connection to console %s", c.cfg.Address))
			if c.renewed(identity.Fingerprint) {
				return
			}
		case connectivity.Connecting, connectivity.Shutdown:
		}
		changed, stop := context.WithTimeout(ctx, wait)
		conn.WaitForStateChange(changed, state)
		stop()
	}
}

// deliver pushes one batch and marks it delivered. If the console refuses it as invalid, its findings go one by one,
// and only those that are refused alone are given up.
func (c *Channel) deliver(ctx context.Context, client consolev1.IngestServiceClient, batch []queue.Stored) error {
	ctx, span := c.startSpan(ctx, batch)
	defer span.End()
	err := c.push(ctx, client, batch)
	if err != nil {
		span.RecordError(err)
	}
	if status.Code(err) != codes.InvalidArgument {
		if err != nil {
			return err
		}
		return c.queue.MarkDelivered(ctx, batch)
	}
	if len(batch) == 1 {
		c.log.ErrorContext(ctx, "Gave up a finding the console refuses", "err", err)
		return c.queue.Discard(ctx, queue.ReasonRefused, batch)
	}
	for i := range batch {
		if err := c.deliver(ctx, client, batch[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (c *Channel) push(ctx context.Context, client consolev1.IngestServiceClient, batch []queue.Stored) error {
	ctx, stop := context.WithTimeout(ctx, c.cfg.PushTimeout)
	defer stop()
	request := &consolev1.PushFindingsRequest{Findings: make([]*findingv1.Finding, len(batch))}
	for i, stored := range batch {
		request.Findings[i] = stored.Finding
	}
	_, err := client.PushFindings(ctx, request)
	return err
}

// fail notes a fault and logs it once, not with every attempt.
func (c *Channel) fail(ctx context.Context, connection Connection, err error) {
	if ctx.Err() != nil {
		return
	}
	if c.state.set(State{Connection: connection, Err: err}) {
		level := slog.LevelWarn
		if mtls.Missing(err) {
			level = slog.LevelInfo // a first start: the console is still making them; the status says so meanwhile
		}
		c.log.Log(ctx, level, "Cannot deliver to the console; findings wait in the queue", "err", err)
	}
}

// renewed says whether the certificates on disk are others than those in use.
func (c *Channel) renewed(inUse [sha256.Size]byte) bool {
	identity, err := mtls.OpenNode(c.cfg.EnrollDirectory, c.cfg.ServerName)
	return err == nil && identity.Fingerprint != inUse
}

// pause is the time to the next attempt.
type pause struct{ last time.Duration }

func (p *pause) next() time.Duration {
	p.last = min(max(2*p.last, backoffMin), backoffMax)
	return p.last - rand.N(p.last/5) //nolint:gosec // spreads load, keeps no secret
}

// sleep waits for d, the end of ctx, or early.
func sleep(ctx context.Context, d time.Duration, early <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-early:
	}
}

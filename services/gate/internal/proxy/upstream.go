package proxy

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/protobuf/encoding/protowire"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/internal/unixsock"
)

// Config says where a runtime is.
type Config struct {
	// Socket is its gRPC socket.
	Socket string `yaml:"socket"`
	// UID serves it. A socket that somebody else serves is not the runtime's.
	UID uint32 `yaml:"uid"`
	// Timeout bounds the gate's own question for the runtime's version; calls passed on keep their caller's deadline.
	Timeout time.Duration `yaml:"timeout"`
}

// DefaultConfig is containerd as distributions install it.
func DefaultConfig() Config {
	return Config{Socket: "/run/containerd/containerd.sock", UID: 0, Timeout: 2 * time.Second}
}

// DefaultCRIO is CRI-O as distributions install it.
func DefaultCRIO() Config {
	return Config{Socket: "/run/crio/crio.sock", UID: 0, Timeout: 2 * time.Second}
}

// Validate reports every fault, each with the runtime's name before its key.
func (c Config) Validate(name string) error {
	var errs []error
	if !filepath.IsAbs(c.Socket) {
		errs = append(errs, fmt.Errorf("%s.socket: %q is not an absolute path", name, c.Socket))
	}
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("%s.timeout: %v is not positive", name, c.Timeout))
	}
	return errors.Join(errs...)
}

// dial makes the connection. It carries no tracing: nothing but the namespace reaches containerd, and nothing CRI-O.
func dial(cfg Config) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix://"+cfg.Socket,
		grpc.WithTransportCredentials(unixsock.ClientCredentials(cfg.UID)),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(newCodec()),
			grpc.MaxCallRecvMsgSize(maxResponseBytes),
			grpc.MaxCallSendMsgSize(maxRequestBytes),
		),
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", cfg.Socket, err)
	}
	return conn, nil
}

// Version asks containerd which version it is, within the configured time.
func (p *Proxy) Version(ctx context.Context, cfg Config) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	var answer frame
	if err := p.conn.Invoke(ctx, versionMethod, &frame{}, &answer); err != nil {
		return "", fmt.Errorf("reach containerd at %s: %w", cfg.Socket, err)
	}
	defer answer.data.Free()
	return parseVersion(answer.data.Materialize()), nil
}

// parseVersion reads field 1, a string, of a VersionResponse. Anything else gives "unknown".
func parseVersion(raw []byte) string {
	const unknown = "unknown"
	number, kind, n := protowire.ConsumeTag(raw)
	if n < 0 || number != 1 || kind != protowire.BytesType {
		return unknown
	}
	value, n := protowire.ConsumeBytes(raw[n:])
	if n < 0 || len(value) > maxLoggedBytes {
		return unknown
	}
	return string(value)
}

// Status describes the window to people.
func (p *Proxy) Status(ctx context.Context, cfg Config) *processv1.GetStatusResponse {
	answer := &processv1.GetStatusResponse{Healthy: true}
	version, err := p.Version(ctx, cfg)
	reachable := "yes"
	if err != nil {
		reachable, version = "no", "unknown"
		answer.Healthy = false
		answer.Warnings = append(answer.Warnings, fmt.Sprintf(
			"containerd does not answer at %s, containers have no names: start it, or give the gate the group of its socket", cfg.Socket))
	}
	answer.Facts = []*processv1.Fact{
		{Name: "containerd reachable", Value: reachable},
		{Name: "containerd version", Value: version},
		{Name: "forwarded", Value: strconv.FormatUint(p.metrics.forwards.Load(), 10)},
		{Name: "refused", Value: strconv.FormatUint(p.metrics.refusals.Load(), 10)},
	}
	return answer
}

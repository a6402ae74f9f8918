package telemetry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"time"
)

// Relay carries traces from processes without a network to the OTLP endpoint. It copies bytes and reads none of them:
// all a caller can reach through it is that one endpoint.
type Relay struct {
	address string
	tls     bool
	log     *slog.Logger
}

// relayConnections bounds how many processes are carried at once.
const relayConnections = 32

// NewRelay returns a relay to an endpoint such as http://127.0.0.1:4317 or https://otel.example:4317.
func NewRelay(endpoint string, log *slog.Logger) (*Relay, error) {
	parsed, err := url.Parse(endpoint)
	if err != nil || parsed.Host == "" || (parsed.Scheme != "http" && parsed.Scheme != "https") {
		return nil, fmt.Errorf("%s: %q is not http://HOST:PORT or https://HOST:PORT", EndpointVariable, endpoint)
	}
	address := parsed.Host
	if parsed.Port() == "" {
		address = net.JoinHostPort(parsed.Hostname(), "4317") // OTLP/gRPC's registered port
	}
	return &Relay{address: address, tls: parsed.Scheme == "https", log: log}, nil
}

// Run carries connections until ctx ends, then closes the listener and every connection.
func (r *Relay) Run(ctx context.Context, listener net.Listener) error {
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	var carried sync.WaitGroup
	defer carried.Wait()
	places := make(chan struct{}, relayConnections)
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		select {
		case places <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		carried.Go(func() {
			defer func() { <-places }()
			r.carry(ctx, conn)
		})
	}
}

func (r *Relay) carry(ctx context.Context, local net.Conn) {
	defer local.Close()
	remote, err := r.dial(ctx)
	if err != nil {
		r.log.WarnContext(ctx, "Traces cannot be delivered", "err", err)
		return
	}
	defer remote.Close()
	stop := context.AfterFunc(ctx, func() { local.Close(); remote.Close() })
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(local, remote) // ends when either side closes
		local.Close()
	}()
	_, _ = io.Copy(remote, local)
	remote.Close()
	<-done
}

func (r *Relay) dial(ctx context.Context) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	if !r.tls {
		return dialer.DialContext(ctx, "tcp", r.address)
	}
	secure := tls.Dialer{NetDialer: dialer, Config: &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}}
	return secure.DialContext(ctx, "tcp", r.address)
}

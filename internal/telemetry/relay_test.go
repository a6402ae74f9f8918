package telemetry

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestRelayCarriesBytesBothWays(t *testing.T) {
	endpoint, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer endpoint.Close()
	go func() {
		conn, err := endpoint.Accept()
		if err == nil {
			_, _ = io.Copy(conn, conn) // an echo
			conn.Close()
		}
	}()
	relay, err := NewRelay("http://"+endpoint.Addr().String(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "otlp.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx, listener) }()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write([]byte("span")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "span" {
		t.Errorf("echo through the relay = %q, %v, want span", got, err)
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("Run did not end with its context while a connection was open")
	}
}

func TestNewRelayRefusesWhatIsNoEndpoint(t *testing.T) {
	for _, endpoint := range []string{"", "localhost:4317", "unix:///x", "http://", "ftp://x", ":"} {
		if _, err := NewRelay(endpoint, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("NewRelay(%q) = nil error, want one", endpoint)
		}
	}
	relay, err := NewRelay("https://otel.example", slog.New(slog.DiscardHandler))
	if err != nil || relay.address != "otel.example:4317" || !relay.tls {
		t.Errorf("NewRelay(https without port) = %+v, %v, want port 4317 and TLS", relay, err)
	}
}

package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"

	"github.com/palisade-sec/palisade/services/uplink/internal/channel"
	"github.com/palisade-sec/palisade/services/uplink/internal/queue"
)

func TestStatusSaysThatFindingsAreRefused(t *testing.T) {
	directory := t.TempDir()
	if err := syscall.Mount("tmpfs", directory, "tmpfs", 0, "size=128m"); err != nil {
		t.Skipf("mount a small file system: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(directory, syscall.MNT_DETACH) })
	log := slog.New(slog.DiscardHandler)
	findings, err := queue.Open(directory, queue.DefaultConfig(), log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer findings.Close()
	status := describe(findings, channel.New(channel.Config{}, findings, log, otel.Tracer("")))
	if got := status(t.Context()); !got.GetHealthy() || len(got.GetWarnings()) != 0 {
		t.Errorf("status with room = %v, want healthy", got)
	}
	filler := filepath.Join(directory, "filler")
	if err := os.WriteFile(filler, make([]byte, 80<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	got := status(t.Context())
	if got.GetHealthy() || len(got.GetWarnings()) != 1 || !strings.Contains(got.GetWarnings()[0], "findings are refused") {
		t.Errorf("status below the floor = %v, want unhealthy, and that findings are refused", got)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
}

package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/palisade-sec/palisade/internal/config"
	"github.com/palisade-sec/palisade/services/correlator/internal/passage"
	"github.com/palisade-sec/palisade/services/correlator/internal/server"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatalf("write %s: %v", path, err)
	}
}

const goodRule = "- rule: mine\n  desc: d\n  condition: evt.type = execve\n  output: o\n  priority: warning\n"

func TestRulesComeFromFilesAndDirectories(t *testing.T) {
	directory := t.TempDir()
	write(t, filepath.Join(directory, "b.yaml"), goodRule)
	write(t, filepath.Join(directory, "ignored.txt"), "not: [yaml")
	log := slog.New(slog.DiscardHandler)
	builtin, err := loadRules(t.Context(), nil, log)
	if err != nil {
		t.Fatalf("loadRules(nil) error = %v", err)
	}
	set, err := loadRules(t.Context(), []string{directory}, log)
	if err != nil {
		t.Fatalf("loadRules(%s) error = %v", directory, err)
	}
	if got, want := len(set.Rules()), len(builtin.Rules())+1; got != want {
		t.Errorf("rules = %d, want %d", got, want)
	}
}

func TestABadRuleFileNamesItsPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bad.yaml")
	write(t, path, strings.Replace(goodRule, "= execve", "= = execve", 1))
	_, err := loadRules(t.Context(), []string{path}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), path+":3:") {
		t.Errorf("loadRules() error = %v, want %s:3:…", err, path)
	}
	if _, err := loadRules(t.Context(), []string{"/nowhere.yaml"}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("loadRules(missing file) error = nil, want one")
	}
}

func TestDefaultsAreValidAndDocumented(t *testing.T) {
	defaults, err := defaultSettings()
	if err != nil || defaults.Validate() != nil {
		t.Fatalf("defaultSettings() = %v, Validate() = %v", err, defaults.Validate())
	}
	for _, key := range []string{"rules:", "hold:", "for: 1s", "keep_exited:", "grace:", "relist:", "workers:", "linger:", "recorder:", "workload_bytes:"} {
		if !strings.Contains(config.Defaults(defaults), key) {
			t.Errorf("-help does not show %q", key)
		}
	}
	broken := defaults
	broken.Hold.For, broken.Uplink.Batch, broken.Gate.Relist = 0, 5000, -1
	err = broken.Validate()
	for _, key := range []string{"hold.for:", "uplink.batch:", "gate.relist:"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("Validate() = %v, want it to name %s", err, key)
		}
	}
}

func TestStatusNamesEveryMissingPeer(t *testing.T) {
	cfg, err := defaultSettings()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Sockets.Directory, cfg.StateDirectory = t.TempDir(), t.TempDir()
	set, err := loadRules(t.Context(), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	p, err := assemble(cfg, set, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatalf("assemble() error = %v", err)
	}
	defer p.close()
	answer := p.status(t.Context())
	if got := strings.Join(answer.GetWarnings(), "\n"); answer.GetHealthy() || !strings.Contains(got, "collector") || !strings.Contains(got, "gate") {
		t.Errorf("status = %v, want warnings about collector and gate", answer)
	}
}

func TestCallerTableHasALineForEachMethod(t *testing.T) {
	registered := grpc.NewServer()
	server.New(nil, nil).Register(registered)
	server.NewModels(nil).Register(registered)
	server.NewFlight(nil).Register(registered)
	passage.New(passage.DefaultConfig()).Register(registered)
	methods := 0
	for service, info := range registered.GetServiceInfo() {
		for _, m := range info.Methods {
			methods++
			if _, ok := server.Callers()["/"+service+"/"+m.Name]; !ok {
				t.Errorf("no line for /%s/%s", service, m.Name)
			}
		}
	}
	if got := len(server.Callers()); got != methods {
		t.Errorf("%d lines for %d methods", got, methods)
	}
}

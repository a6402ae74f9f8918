package main

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/services/correlator/internal/bookmark"
	"github.com/palisade-sec/palisade/services/correlator/internal/container"
	"github.com/palisade-sec/palisade/services/correlator/internal/delivery"
	"github.com/palisade-sec/palisade/services/correlator/internal/model"
	"github.com/palisade-sec/palisade/services/correlator/internal/pipeline"
	"github.com/palisade-sec/palisade/services/correlator/internal/registration"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/subscription"
	"github.com/palisade-sec/palisade/services/correlator/internal/tap"
	"github.com/palisade-sec/palisade/services/correlator/rules"
)

// maxRuleBytes bounds one rule file; Falco's own has under 100 KiB.
const maxRuleBytes = 8 << 20

// loadRules compiles the built-in pack and the files at the paths, in that order. What is wrong with them names file,
// line and column.
func loadRules(ctx context.Context, paths []string, log *slog.Logger) (*rule.Set, error) {
	sources := []rule.Source{{Name: rules.FileName, Data: rules.Palisade}}
	for _, path := range paths {
		files, err := ruleFiles(path)
		if err != nil {
			return nil, fmt.Errorf("rules: %w", err)
		}
		for _, file := range files {
			info, err := os.Stat(file)
			if err == nil && info.Size() > maxRuleBytes {
				err = fmt.Errorf("%s: larger than %d bytes", file, maxRuleBytes)
			}
			if err != nil {
				return nil, fmt.Errorf("rules: %w", err)
			}
			raw, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("rules: %w", err)
			}
			sources = append(sources, rule.Source{Name: file, Data: raw})
		}
	}
	set, warnings, err := rule.Load(sources...)
	for _, w := range warnings {
		log.WarnContext(ctx, "A rule asks for what is not provided", "position", w.Position.String(), "rule", w.Rule, "warning", w.Msg)
	}
	return set, err
}

// ruleFiles is the file at a path, or the *.yaml files in it, sorted.
func ruleFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		if entry.Type()&fs.ModeDir == 0 && filepath.Ext(entry.Name()) == ".yaml" {
			files = append(files, filepath.Join(path, entry.Name()))
		}
	}
	if len(files) == 0 { // most likely another directory was meant
		return nil, fmt.Errorf("%s: no *.yaml file in it", path)
	}
	return files, nil
}

// parts is the correlator, put together.
type parts struct {
	connections []*grpc.ClientConn
	events      *subscription.Subscription
	runtime     *container.Watcher
	registrar   *registration.Registrar
	delivery    *delivery.Delivery
	engine      *pipeline.Engine
	tap         *tap.Tap
	models      *model.Store // nil if nothing is learned
	interest    string       // what the collector is asked for
}

// assemble builds every part and starts none. Nothing is connected yet: the peers may start in any order.
func assemble(cfg settings, set *rule.Set, log *slog.Logger, registry *prometheus.Registry) (p *parts, err error) {
	book, seen, err := bookmark.Open(cfg.StateDirectory)
	if err != nil { // what was missed since is not known, which is no reason to miss more
		log.Warn("Cannot tell how far events had been seen before", "err", err)
	}
	interest := set.Interest()
	if cfg.Models.Enabled {
		interest = interest.Or(model.Interest())
	}
	p = &parts{interest: interest.String(), tap: tap.New()}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	peers := map[string]*grpc.ClientConn{}
	for _, name := range []string{"collector", "gate", "enforcer", "uplink"} {
		conn, err := cfg.Sockets.Dial(name)
		if err != nil {
			return p, err
		}
		peers[name] = conn
		p.connections = append(p.connections, conn)
	}
	p.events = subscription.New(peers["collector"], interest.Message(), log)
	if p.runtime, err = container.New(cfg.Gate, peers["gate"], log); err != nil {
		return p, err
	}
	p.registrar = registration.New(peers["collector"], log)
	out := delivery.Peers{Enforcer: peers["enforcer"], Uplink: peers["uplink"]}
	if p.delivery, err = delivery.New(cfg.Enforcer, cfg.Uplink, out, log, registry); err != nil {
		return p, err
	}
	deps := pipeline.Deps{
		Rules: set, Batches: p.events.Batches(), Runtime: p.runtime, Registrar: p.registrar, Sink: p.delivery, Seen: seen, Bookmark: book,
		Reopen: p.events.Reopen, Recorder: p.tap, Log: log, Metrics: registry,
	}
	if cfg.Models.Enabled {
		if p.models, err = model.Open(cfg.Models, cfg.StateDirectory, log); err != nil {
			return p, err
		}
		deps.Models = p.models
	}
	p.engine, err = pipeline.New(cfg.pipeline(), deps)
	return p, err
}

func (p *parts) close() {
	for _, conn := range p.connections {
		_ = conn.Close() // nothing is written on closing
	}
}

// modelBook is the learner, nil if nothing is learned.
func (p *parts) modelBook() *model.Learner {
	if p.models == nil {
		return nil
	}
	return p.models.Learner
}

// tasks are the parts that run.
func (p *parts) tasks() []daemon.Task {
	tasks := []daemon.Task{
		{Name: "kill", Run: p.delivery.RunKills},
		{Name: "push", Run: p.delivery.RunPushes},
		{Name: "correlate", Run: p.engine.Run},
		{Name: "runtime", Run: p.runtime.Run},
		{Name: "register", Run: p.registrar.Run},
		{Name: "events", Run: p.events.Run},
	}
	if p.models != nil {
		tasks = append(tasks, daemon.Task{Name: "models", Run: p.models.Run})
	}
	return tasks
}

// status describes the correlator to people.
func (p *parts) status(context.Context) *processv1.GetStatusResponse {
	enforcerErr, uplinkErr := p.delivery.Errs()
	peers := []struct {
		name, missing string
		err           error
	}{
		{"collector", "no events arrive", p.events.Err()},
		{"gate", "containers have no names", p.runtime.Err()},
		{"enforcer", "nothing is killed", enforcerErr},
		{"uplink", "findings wait here", uplinkErr},
	}
	answer := &processv1.GetStatusResponse{Healthy: true, Facts: p.engine.Facts()}
	answer.Facts = append(answer.Facts,
		&processv1.Fact{Name: "findings queued", Value: strconv.Itoa(p.delivery.Queued())}, &processv1.Fact{Name: "interest", Value: p.interest})
	if p.models != nil {
		answer.Facts = append(answer.Facts, p.models.Facts()...)
		if err := p.models.Err(); err != nil {
			answer.Warnings = append(answer.Warnings, fmt.Sprintf("models: %v", err))
		}
	} else {
		answer.Facts = append(answer.Facts, &processv1.Fact{Name: "models", Value: "off"})
	}
	for _, peer := range peers {
		state := "connected"
		if peer.err != nil {
			state = "not reachable"
			answer.Healthy = false
			answer.Warnings = append(answer.Warnings, fmt.Sprintf("%s is not reachable, %s: %v", peer.name, peer.missing, peer.err))
		}
		answer.Facts = append(answer.Facts, &processv1.Fact{Name: peer.name, Value: state})
	}
	return answer
}

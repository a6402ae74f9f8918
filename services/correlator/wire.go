package main

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/services/correlator/internal/account"
	"github.com/palisade-sec/palisade/services/correlator/internal/amendment"
	"github.com/palisade-sec/palisade/services/correlator/internal/bookmark"
	"github.com/palisade-sec/palisade/services/correlator/internal/container"
	"github.com/palisade-sec/palisade/services/correlator/internal/delivery"
	"github.com/palisade-sec/palisade/services/correlator/internal/flight"
	"github.com/palisade-sec/palisade/services/correlator/internal/model"
	"github.com/palisade-sec/palisade/services/correlator/internal/passage"
	"github.com/palisade-sec/palisade/services/correlator/internal/pipeline"
	"github.com/palisade-sec/palisade/services/correlator/internal/registration"
	"github.com/palisade-sec/palisade/services/correlator/internal/reload"
	"github.com/palisade-sec/palisade/services/correlator/internal/repeat"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/rulefile"
	"github.com/palisade-sec/palisade/services/correlator/internal/subscription"
	"github.com/palisade-sec/palisade/services/correlator/internal/tap"
	"github.com/palisade-sec/palisade/services/correlator/rules"
)

// loadRules compiles the built-in pack and the files at the paths, in that order. What is wrong with them names file,
// line and column.
func loadRules(ctx context.Context, paths []string, log *slog.Logger) (*rule.Set, error) {
	sources, err := rules.Sources()
	if err != nil {
		return nil, err
	}
	files, err := rulefile.Read(paths)
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	set, warnings, err := rule.Load(append(sources, files...)...)
	for _, w := range warnings {
		log.WarnContext(ctx, "A rule asks for what is not provided", "position", w.Position.String(), "rule", w.Rule, "warning", w.Msg)
	}
	return set, err
}

// parts is the correlator, put together.
type parts struct {
	connections []*grpc.ClientConn
	events      *subscription.Subscription
	runtime     *container.Runtimes
	registrar   *registration.Registrar
	repeats     *repeat.Folder
	amendments  *amendment.Book
	delivery    *delivery.Delivery
	engine      *pipeline.Engine
	rules       *reload.Watcher
	tap         *tap.Tap
	models      *model.Store     // nil if nothing is learned
	flight      *flight.Recorder // nil if nothing is recorded, because of flightErr if there is one
	flightErr   error
	accounts    *account.Watcher
	passage     *passage.Book
}

// assemble builds every part and starts none. Nothing is connected yet: the peers may start in any order.
func assemble(cfg settings, set *rule.Set, log *slog.Logger, registry *prometheus.Registry) (p *parts, err error) {
	book, seen, err := bookmark.Open(cfg.StateDirectory)
	if err != nil { // what was missed since is not known, which is no reason to miss more
		log.Warn("Cannot tell how far events had been seen before", "err", err)
	}
	p = &parts{tap: tap.New(), passage: passage.New(cfg.Shim)}
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
	if cfg.Models.Enabled {
		if p.models, err = model.Open(cfg.Models, cfg.StateDirectory, log); err != nil {
			return p, err
		}
	}
	p.openFlight(cfg, log, registry)
	p.events = subscription.New(peers["collector"], p.interestOf(set).Message(), log)
	if p.runtime, err = container.NewRuntimes(cfg.Gate, peers["gate"], runtimeSockets(cfg), log); err != nil {
		return p, err
	}
	p.registrar = registration.New(peers["collector"], log)
	p.accounts = account.New(cfg.Accounts, peers["gate"], log)
	out := delivery.Peers{Enforcer: peers["enforcer"], Uplink: peers["uplink"]}
	if p.delivery, err = delivery.New(cfg.Enforcer, cfg.Uplink, out, log, registry); err != nil {
		return p, err
	}
	if p.amendments, err = amendment.New(cfg.Amendments, p.delivery, registry); err != nil {
		return p, err
	}
	if p.repeats, err = repeat.New(cfg.Repeats, p.amendments, registry); err != nil {
		return p, err
	}
	load := func(ctx context.Context) (*rule.Set, error) { return loadRules(ctx, cfg.Rules, log) }
	if p.rules, err = reload.New(cfg.Reload, cfg.Rules, load, log, registry); err != nil {
		return p, err
	}
	deps := pipeline.Deps{
		Rules: set, Reloads: p.rules.Sets(), Adopted: func(set *rule.Set) { p.events.SetInterest(p.interestOf(set).Message()) },
		Batches: p.events.Batches(), Runtime: p.runtime, Accounts: p.accounts.Tables(), Registrar: p.registrar, Sink: p.repeats,
		Amendments: p.amendments, Seen: seen, Bookmark: book,
		Reopen: p.events.Reopen, Recorder: p.tap, Passage: p.passage, Log: log, Metrics: registry,
	}
	p.engine, err = pipeline.New(cfg.pipeline(), p.withOptional(deps))
	return p, err
}

// withOptional adds the parts that the configuration may leave out: an interface that holds a nil pointer is not nil.
func (p *parts) withOptional(deps pipeline.Deps) pipeline.Deps {
	if p.models != nil {
		deps.Models = p.models
	}
	if p.flight != nil {
		deps.Flight = p.flight
	}
	return deps
}

// runtimeSockets are the gate's windows on runtimes that speak HTTP. Docker's containers are in containerd's namespace moby.
func runtimeSockets(cfg settings) []container.Socket {
	gate := cfg.Sockets.UIDs["gate"]
	return []container.Socket{
		{Runtime: "docker", Namespace: "moby", Path: cfg.Sockets.Path("gate-docker"), UID: gate},
		{Runtime: "podman", Namespace: "podman", Path: cfg.Sockets.Path("gate-podman"), UID: gate},
	}
}

func (p *parts) close() {
	for _, conn := range p.connections {
		_ = conn.Close() // nothing is written on closing
	}
}

// tasks are the parts that run.
func (p *parts) tasks() []daemon.Task {
	tasks := []daemon.Task{
		{Name: "kill", Run: p.delivery.RunKills},
		{Name: "push", Run: p.delivery.RunPushes},
		{Name: "repeats", Run: p.repeats.Run},
		{Name: "correlate", Run: p.engine.Run},
		{Name: "runtime", Run: p.runtime.Run},
		{Name: "register", Run: p.registrar.Run},
		{Name: "events", Run: p.events.Run},
		{Name: "rules", Run: p.rules.Run},
		{Name: "accounts", Run: p.accounts.Run},
	}
	if p.models != nil {
		tasks = append(tasks, daemon.Task{Name: "models", Run: p.models.Run})
	}
	if p.flight != nil {
		tasks = append(tasks, daemon.Task{Name: "flight", Run: p.flight.Run})
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
		&processv1.Fact{Name: "findings queued", Value: strconv.Itoa(p.delivery.Queued())}, &processv1.Fact{Name: "interest", Value: p.interestOf(p.engine.Matches().Set()).String()},
		&processv1.Fact{Name: "rules loaded", Value: p.rules.State().Loaded.UTC().Format(time.RFC3339)})
	if state := p.rules.State(); state.Err != nil {
		answer.Healthy = false
		answer.Warnings = append(answer.Warnings, fmt.Sprintf("rule files have changed and are not in force since %s, the old rules are: %v: see `palisade rules check`",
			state.Since.UTC().Format(time.RFC3339), state.Err))
	}
	p.modelStatus(answer)
	p.flightStatus(answer)
	for _, peer := range peers {
		state := "connected"
		if peer.err != nil {
			state = "not reachable"
			answer.Healthy = false
			answer.Warnings = append(answer.Warnings, fmt.Sprintf("%s is not reachable, %s: %v", peer.name, peer.missing, peer.err))
		}
		answer.Facts = append(answer.Facts, &processv1.Fact{Name: peer.name, Value: state})
	}
	p.passage.Describe(answer)
	answer.Facts = append(answer.Facts, &processv1.Fact{Name: "accounts of the host", Value: p.accounts.State()})
	names, states := p.runtime.States()
	for i, name := range names {
		answer.Facts = append(answer.Facts, &processv1.Fact{Name: "runtime " + name, Value: states[i]})
	}
	return answer
}

package window

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/rpc"
)

// Set is the windows of a node, by runtime.
type Set struct{ windows map[string]*Window }

// NewSet returns a window for each runtime. UIDs must name the correlator and the enforcer. Nothing is connected before the first request.
func NewSet(runtimes map[string]Config, uids rpc.UIDs, log *slog.Logger, registry *prometheus.Registry) (*Set, error) {
	for _, name := range []string{caller, asker} {
		if _, ok := uids[name]; !ok {
			return nil, fmt.Errorf("sockets.uids: no uid for %s", name)
		}
	}
	m, err := newMetrics(registry)
	if err != nil {
		return nil, err
	}
	s := &Set{windows: map[string]*Window{}}
	for name, cfg := range runtimes {
		s.windows[name] = newWindow(name, cfg, uids, m, log)
	}
	return s, nil
}

// Tasks make each window's socket, gate-<runtime>.sock, and serve it.
func (s *Set) Tasks(sockets rpc.Sockets) ([]daemon.Task, error) {
	var tasks []daemon.Task
	for _, name := range sorted(s.windows) {
		listener, err := sockets.Listen("gate-" + name)
		if err != nil {
			return nil, err
		}
		window := s.windows[name]
		tasks = append(tasks, daemon.Task{Name: name, Run: func(ctx context.Context) error { return window.Run(ctx, listener) }})
	}
	return tasks, nil
}

// Describe adds each runtime's state to a status. It returns how many runtimes answer.
func (s *Set) Describe(ctx context.Context, status *processv1.GetStatusResponse) int {
	answering := 0
	for _, name := range sorted(s.windows) {
		window := s.windows[name]
		state := window.State(ctx)
		word := "answers, version " + state.Version
		switch {
		case !state.Present:
			word = "not on this node"
		case state.Version == "":
			word = "does not answer"
			status.Healthy = false
			status.Warnings = append(status.Warnings, fmt.Sprintf(
				"%s does not answer at %s, its containers have no names: start it, or give the gate the group of its socket", name, window.cfg.Socket))
		default:
			answering++
		}
		status.Facts = append(status.Facts, &processv1.Fact{Name: name, Value: word})
		if state.Forwarded+state.Refused > 0 {
			status.Facts = append(status.Facts,
				&processv1.Fact{Name: name + " forwarded", Value: strconv.FormatUint(state.Forwarded, 10)},
				&processv1.Fact{Name: name + " refused", Value: strconv.FormatUint(state.Refused, 10)})
		}
	}
	return answering
}

package main

import (
	"context"
	"errors"
	"io"
	"time"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/internal/daemon"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/internal/telemetry"
	"github.com/palisade-sec/palisade/services/collector/internal/guard"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
	"github.com/palisade-sec/palisade/services/collector/internal/ring"
	"github.com/palisade-sec/palisade/services/collector/internal/selftest"
	"github.com/palisade-sec/palisade/services/collector/internal/snapshot"
	"github.com/palisade-sec/palisade/services/collector/internal/stream"
	"github.com/palisade-sec/palisade/services/collector/internal/syscalls"
	"github.com/palisade-sec/palisade/services/collector/internal/workload"
)

// callers says who may call what. A method without a line is refused.
func callers() rpc.Callers {
	return rpc.Callers{
		collectorv1.EventService_StreamEvents_FullMethodName: {"correlator"}, // sole consumer of events
		collectorv1.GuardService_ApplyGuards_FullMethodName:  {"enforcer"},   // it alone decides what is denied
		// The shim's word, through the enforcer, and the runtime's, through the correlator.
		collectorv1.WorkloadService_RegisterWorkloads_FullMethodName: {"correlator", "enforcer"},
		collectorv1.WorkloadService_ForgetWorkloads_FullMethodName:   {"correlator", "enforcer"},
	}
}

// collector is the parts that run.
type collector struct {
	probes    *probe.Set
	tested    selftest.Report
	ring      *ring.Reader
	losses    *ring.Losses
	used      *syscalls.Reporter
	stream    *stream.Stream
	guards    *guard.Table
	workloads *workload.Table
	server    *rpc.Server
}

// build wires the parts; nothing runs yet.
func build(env daemon.Env, cfg settings, probes *probe.Set, tested selftest.Report) (*collector, error) {
	identity, err := identify(probes)
	if err != nil {
		return nil, err
	}
	decoder := newDecoder()
	c := &collector{probes: probes, tested: tested, guards: guard.NewTable(probes.Guards())}
	if c.workloads, err = workload.NewTable(probes.Workloads()); err != nil {
		return nil, err
	}
	publish := func(ctx context.Context, events []*eventv1.Event, done func()) error {
		c.workloads.Attribute(events)
		return c.stream.Publish(ctx, events, done)
	}
	if c.ring, err = ring.NewReader(probes, decoder, publish); err != nil {
		return nil, err
	}
	c.ring.LeaveOut(tested.Own)
	if c.losses, err = ring.NewLosses(probes, decoder, publish); err != nil {
		return nil, errors.Join(err, c.ring.Close())
	}
	if err = c.losses.TakeOver(c.ring); err != nil {
		return nil, errors.Join(err, c.ring.Close())
	}
	c.used = syscalls.NewReporter(probes, decoder, publish)
	started := &eventv1.Started{Tier: string(probes.Tier()), Resumed: probes.Resumed(), SilentHooks: tested.Names(selftest.Silent)}
	first := []*eventv1.Event{decoder.Stamp(&eventv1.Event{Kind: &eventv1.Event_Started{Started: started}}, ring.Boottime())}
	c.stream = stream.New(cfg.Stream, identity, first, stream.Kernel{Snapshot: c.existing(decoder), Want: probes.WantInterest})
	metrics := telemetry.NewRegistry()
	metrics.MustRegister(newMetrics(c))
	c.server, err = rpc.NewServer(rpc.ServerConfig{
		Process: env.Name,
		Callers: callers(),
		UIDs:    cfg.Sockets.UIDs,
		Log:     env.Log,
		Metrics: metrics,
		Status:  func(context.Context) *processv1.GetStatusResponse { return c.Status() },
	})
	if err != nil {
		return nil, errors.Join(err, c.ring.Close())
	}
	collectorv1.RegisterEventServiceServer(c.server, c.stream)
	collectorv1.RegisterWorkloadServiceServer(c.server, workload.NewService(c.workloads, env.Log))
	collectorv1.RegisterGuardServiceServer(c.server, guard.NewService(c.guards, probes.Tier().CanDeny(), env.Log))
	return c, nil
}

// existing lists the processes that exist, and whose they are.
func (c *collector) existing(decoder record.Decoder) func(context.Context) ([]*eventv1.Event, error) {
	all := snapshot.Snapshot{Open: openTasks(c.probes), Decoder: decoder, Proc: "/proc"}
	return func(ctx context.Context) ([]*eventv1.Event, error) {
		events, err := all.Processes(ctx)
		c.workloads.Attribute(events)
		return events, err
	}
}

// newDecoder knows when the machine booted.
func newDecoder() record.Decoder {
	return record.NewDecoder(time.Now().Add(-time.Duration(ring.Boottime()))) //nolint:gosec // 292 years
}

// openTasks makes a kernel without task iterator one without processes: the status says so.
func openTasks(probes *probe.Set) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		walk, err := probes.Tasks()
		if errors.Is(err, probe.ErrNoIterator) {
			return io.NopCloser(eof{}), nil
		}
		return walk, err
	}
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

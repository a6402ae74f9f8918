// Package replay runs the correlator's pipeline over a recording, as fast as it goes. Data in: recorded entries; data out: findings
// and a report. The pipeline is the one that a node runs (tree, index, rules), on the recording's clock: what waits for a second on
// a node waits for a second of recorded time. Nobody is killed and nothing is delivered.
package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/account"
	"github.com/palisade-sec/palisade/services/correlator/internal/delivery"
	"github.com/palisade-sec/palisade/services/correlator/internal/pipeline"
	"github.com/palisade-sec/palisade/services/correlator/internal/profile"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/subscription"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// Source gives recorded entries, each once and for the caller to keep, and io.EOF behind the last. *recording.Reader and *Loop are.
type Source interface {
	Next() (*correlatorv1.RecordedEntry, error)
}

// Config says how to replay.
type Config struct {
	Engine pipeline.Config
	Rules  *rule.Set
	// Sample is how many events the rules are timed on one of; 0 times none.
	Sample uint64
	// Fifth is after how many events memory is looked at, again and again; 0 is only at the ends.
	Fifth uint64
	// Finding is told of each finding; nil for nobody.
	Finding func(*findingv1.Finding) error
	Log     *slog.Logger
}

// replay is one run.
type replay struct {
	cfg    Config
	engine *pipeline.Engine
	clock  time.Time
	report *Report
}

// Run replays until the source ends. The report is of what was replayed, even with an error.
func Run(ctx context.Context, cfg Config, source Source) (*Report, error) {
	r := &replay{cfg: cfg, report: &Report{}}
	var timing *profile.Profile
	if cfg.Sample > 0 {
		timing = &profile.Profile{Every: cfg.Sample}
	}
	engine, err := pipeline.New(cfg.Engine, pipeline.Deps{
		Rules: cfg.Rules, Runtime: quiet{}, Sink: r, Profile: timing, Now: func() time.Time { return r.clock },
		Log: cfg.Log, Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		return nil, err
	}
	r.engine = engine
	before := r.begin()
	err = r.run(ctx, source)
	if loop, ok := source.(*Loop); ok {
		r.report.Renewing = loop.Renewing
		r.report.Reading -= loop.Renewing
	}
	r.end(before, timing)
	return r.report, err
}

func (r *replay) begin() runtime.MemStats {
	var stats runtime.MemStats
	r.report.lookAtMemory()
	runtime.ReadMemStats(&stats)
	return stats
}

func (r *replay) end(before runtime.MemStats, timing *profile.Profile) {
	var after runtime.MemStats
	runtime.ReadMemStats(&after)
	r.report.lookAtMemory()
	r.report.settle(before, after)
	r.report.Rules = costs(r.cfg.Rules, r.engine.Matches(), timing, r.cfg.Sample)
}

func (r *replay) run(ctx context.Context, source Source) error {
	at := time.Now()
	for next := r.cfg.Fifth; ctx.Err() == nil; {
		entry, err := source.Next()
		read := time.Now()
		r.report.Reading += read.Sub(at)
		if errors.Is(err, io.EOF) {
			return r.finish(ctx)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("replay: %w", err), r.finish(ctx))
		}
		if err := r.take(ctx, entry); err != nil {
			return err
		}
		at = time.Now()
		r.report.Pipeline += at.Sub(read)
		if r.cfg.Fifth > 0 && r.report.Events >= next {
			r.report.lookAtMemory()
			next += r.cfg.Fifth
			at = time.Now()
		}
	}
	return ctx.Err()
}

// take gives one entry to the engine, at its time.
func (r *replay) take(ctx context.Context, entry *correlatorv1.RecordedEntry) error {
	if t := entry.GetTime().AsTime(); t.After(r.clock) {
		r.clock = t
	}
	switch kind := entry.GetKind().(type) {
	case *correlatorv1.RecordedEntry_Snapshot:
		r.report.Snapshots++
		r.engine.Restore(kind.Snapshot)
	case *correlatorv1.RecordedEntry_Batch:
		r.report.Batches++
		r.report.Events += uint64(len(kind.Batch.GetBatch().GetEvents()))
		b := subscription.NewBatch(kind.Batch.GetBatch())
		b.Opens = kind.Batch.GetOpens()
		if err := r.engine.Batch(ctx, b); err != nil {
			return err
		}
	case *correlatorv1.RecordedEntry_News:
		r.report.News++
		if err := r.engine.News(ctx, workload.UpdateOf(kind.News)); err != nil {
			return err
		}
	case *correlatorv1.RecordedEntry_Accounts:
		r.engine.Accounts(account.Of(kind.Accounts))
	case *correlatorv1.RecordedEntry_Missed:
		r.report.Missed += kind.Missed.GetEvents()
	}
	return r.engine.Tick(ctx)
}

// finish lets what waits go on, as it would if nothing more came.
func (r *replay) finish(ctx context.Context) error {
	r.clock = r.clock.Add(r.cfg.Engine.Hold.For)
	return r.engine.Tick(ctx)
}

// Put takes a finding, in place of delivery.
func (r *replay) Put(_ context.Context, item delivery.Item) error {
	r.report.Findings++
	if item.Kill != nil {
		r.report.Kills++
	}
	item.Done()
	if r.cfg.Finding == nil {
		return nil
	}
	return r.cfg.Finding(item.Finding)
}

// quiet is a runtime that says nothing: its news are in the recording.
type quiet struct{}

func (quiet) Updates() <-chan workload.Update { return nil }
func (quiet) Ask()                            {}

package replay

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/internal/recording"
	"github.com/palisade-sec/palisade/services/correlator/internal/flight"
	"github.com/palisade-sec/palisade/services/correlator/internal/pipeline"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/subscription"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
	"github.com/palisade-sec/palisade/services/correlator/rules"
)

// BenchmarkFlightRecorder is the pipeline with the built-in rules, without and with a flight recorder that writes to a disk, as fast as
// it goes: an iteration is an event. PALISADE_BENCH_RECORDING names a file of palisade record to take events from. Run it with -cpu 1:
// what the recorder writes is then in the time. Spaced is the same on a clock on which 10 000 events take a second, which is as many as
// the recorder takes of all workloads together.
func BenchmarkFlightRecorder(b *testing.B) {
	entries := benchEntries(b)
	for _, bb := range []struct {
		name    string
		records bool
		spacing time.Duration // between two events, 0 as they came
	}{{"without", false, 0}, {"with", true, 0}, {"without/spaced", false, 100 * time.Microsecond}, {"with/spaced", true, 100 * time.Microsecond}} {
		b.Run(bb.name, func(b *testing.B) {
			f := &flightBench{b: b, entries: entries, spacing: bb.spacing}
			f.begin(bb.records)
			f.run()
		})
	}
}

type flightBench struct {
	b       *testing.B
	entries []*correlatorv1.RecordedEntry
	spacing time.Duration
	engine  *pipeline.Engine
	flight  *flight.Recorder
	end     func() // of the recorder
	clock   time.Time
	boot    uint64
}

func (f *flightBench) begin(records bool) {
	sources, err := rules.Sources()
	if err != nil {
		f.b.Fatal(err)
	}
	set, _, err := rule.Load(sources...)
	if err != nil {
		f.b.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	deps := pipeline.Deps{
		Rules: set, Runtime: quiet{}, Sink: &replay{report: &Report{}}, Now: func() time.Time { return f.clock }, Log: log, Metrics: prometheus.NewRegistry(),
	}
	if records {
		if f.flight, err = flight.Open(flight.DefaultConfig(), f.b.TempDir(), log, prometheus.NewRegistry()); err != nil {
			f.b.Fatal(err)
		}
		deps.Flight = f.flight
		ctx, cancel := context.WithCancel(f.b.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = f.flight.Run(ctx) }()
		f.end = func() { cancel(); <-ended }
		f.b.Cleanup(f.end)
	}
	if f.engine, err = pipeline.New(pipeline.DefaultConfig(), deps); err != nil {
		f.b.Fatal(err)
	}
}

func (f *flightBench) run() {
	left := f.b.N
	for f.b.ResetTimer(); left > 0; {
		for _, entry := range f.entries {
			if left <= 0 {
				break
			}
			left -= f.take(entry)
		}
	}
	f.b.StopTimer()
	f.b.ReportMetric(float64(f.b.N)/f.b.Elapsed().Seconds(), "events/s")
	if f.flight == nil {
		return
	}
	f.end()
	written := 0.0
	for _, fact := range f.flight.Facts() {
		if fact.GetName() == "recorder events written" {
			written, _ = strconv.ParseFloat(fact.GetValue(), 64)
		}
	}
	f.b.ReportMetric(written/float64(f.b.N), "written/op")
}

// take gives an entry to the engine, and says how many events were in it. Times are new each time: they go on.
func (f *flightBench) take(entry *correlatorv1.RecordedEntry) int {
	f.clock = f.clock.Add(time.Millisecond)
	var err error
	events := 0
	switch kind := entry.GetKind().(type) {
	case *correlatorv1.RecordedEntry_Snapshot:
		f.engine.Restore(kind.Snapshot)
	case *correlatorv1.RecordedEntry_News:
		err = f.engine.News(f.b.Context(), workload.UpdateOf(kind.News))
	case *correlatorv1.RecordedEntry_Batch:
		batch := kind.Batch
		for _, e := range batch.GetBatch().GetEvents() {
			if f.spacing > 0 {
				f.boot += uint64(f.spacing)
				e.BoottimeNs = f.boot
			}
		}
		events = len(batch.GetBatch().GetEvents())
		err = f.engine.Batch(f.b.Context(), subscription.NewBatch(batch.GetBatch()))
	}
	if err = errors.Join(err, f.engine.Tick(f.b.Context())); err != nil {
		f.b.Fatal(err)
	}
	return events
}

// benchEntries are those of a recording, or made up: a container that opens files and executes now and then.
func benchEntries(b *testing.B) (entries []*correlatorv1.RecordedEntry) {
	path := os.Getenv("PALISADE_BENCH_RECORDING")
	if path == "" {
		return madeUp()
	}
	file, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	reader, err := recording.NewReader(file)
	if err != nil {
		b.Fatal(err)
	}
	defer reader.Close()
	for {
		entry, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return entries
		}
		if err != nil {
			b.Fatal(err)
		}
		if batch := entry.GetBatch().GetBatch(); batch != nil {
			batch.Epoch = "" // no event is known again from the round before
		}
		entries = append(entries, entry)
	}
}

func madeUp() (entries []*correlatorv1.RecordedEntry) {
	const hostNS = 0xEFFFFFFC
	files := []string{"/etc/passwd", "/usr/lib/x86_64-linux-gnu/libc.so.6", "/app/config/settings.yaml", "/proc/self/status", "/tmp/session-3f1a9c0b"}
	boottime := uint64(0)
	for range 100 {
		batch := &collectorv1.StreamEventsResponse{BootId: "3c1f", Instance: "one", Batch: 1}
		for i := range 200 {
			boottime += 4000
			e := &eventv1.Event{
				BoottimeNs: boottime, Time: timestamppb.New(time.Unix(1_700_000_000, int64(boottime))), Tid: uint32(100 + i%20),
				Process: &eventv1.ProcessKey{Pid: uint32(100 + i%20), StartBoottimeNs: 77_000_000 + uint64(i%20)}, Parent: &eventv1.ProcessKey{Pid: 1, StartBoottimeNs: 1},
				CgroupId: 4711, Namespaces: &eventv1.Namespaces{Mnt: 1, Pid: hostNS, Net: 3, User: 4}, Credentials: &eventv1.Credentials{Uid: 33, EffectiveUid: 33},
				Comm: "worker", Ring: 2, Position: boottime,
			}
			file := &eventv1.File{Path: files[i%len(files)], PathSource: eventv1.PathSource_PATH_SOURCE_KERNEL, Device: 265289728, Inode: 1_000_000 + uint64(i*i), Mode: 0o100644}
			e.Kind = &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{File: file, Flags: 0o100000}}
			if i%20 == 0 {
				e.Kind = &eventv1.Event_Exec{Exec: &eventv1.Exec{Exe: file, Argv: []string{"worker", "--config", "/app/config/settings.yaml"}, Cwd: "/app"}}
			}
			batch.Events = append(batch.Events, e)
		}
		entries = append(entries, &correlatorv1.RecordedEntry{Kind: &correlatorv1.RecordedEntry_Batch{Batch: &correlatorv1.RecordedBatch{Batch: batch}}})
	}
	return entries
}

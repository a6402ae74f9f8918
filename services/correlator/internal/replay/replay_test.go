package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/recording"
	"github.com/palisade-sec/palisade/services/correlator/internal/account"
	"github.com/palisade-sec/palisade/services/correlator/internal/delivery"
	"github.com/palisade-sec/palisade/services/correlator/internal/pipeline"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/subscription"
	"github.com/palisade-sec/palisade/services/correlator/internal/tap"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

const replayRules = `
- rule: opened
  desc: d
  condition: evt.type = openat and fd.name startswith /tmp/
  output: "%fd.name by %proc.cmdline in %container.id for %user.loginname"
  priority: warning
- rule: ran below the shim
  desc: d
  condition: evt.type = execve and proc.aname = shim
  output: "%proc.cmdline"
  priority: notice
  effect: prevent
`

func load(t *testing.T) *rule.Set {
	t.Helper()
	set, _, err := rule.Load(rule.Source{Name: "test.yaml", Data: []byte(replayRules)})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// node is an engine as a node runs it, with a tap.
type node struct {
	t       *testing.T
	batches chan *subscription.Batch
	updates chan workload.Update
	tap     *tap.Tap

	mu       sync.Mutex
	findings []*findingv1.Finding
}

func (n *node) Updates() <-chan workload.Update { return n.updates }
func (*node) Ask()                              {}
func (n *node) Put(_ context.Context, item delivery.Item) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.findings = append(n.findings, item.Finding)
	item.Done()
	return nil
}

func (n *node) feed(source *churn) {
	n.t.Helper()
	for {
		entry, err := source.Next()
		switch {
		case errors.Is(err, io.EOF):
			return
		case entry.GetNews() != nil:
			n.updates <- workload.UpdateOf(entry.GetNews())
		case entry.GetBatch() != nil:
			n.batches <- subscription.NewBatch(entry.GetBatch().GetBatch())
		}
		time.Sleep(time.Millisecond)
	}
}

// write writes entries to a file as they come, until ctx ends.
func write(ctx context.Context, t *testing.T, reader *tap.Reader) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := recording.NewWriter(&file)
	for err == nil {
		var entry *correlatorv1.RecordedEntry
		if entry, err = reader.Next(ctx); err == nil {
			err = w.Write(entry)
		}
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("record: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Errorf("record: %v", err)
	}
	return file.Bytes()
}

// called are accounts in which everybody's login has this name.
func called(name string) *account.Table {
	return account.Parse(fmt.Appendf(nil, "%s:x:%d:", name, login), nil)
}

// record runs a node for a while, records from the middle on, and returns the file and the findings that the node made meanwhile.
func record(t *testing.T) (file []byte, findings []*findingv1.Finding) {
	t.Helper()
	n := &node{t: t, batches: make(chan *subscription.Batch), updates: make(chan workload.Update), tap: tap.New()}
	accounts := make(chan *account.Table)
	engine, err := pipeline.New(pipeline.DefaultConfig(), pipeline.Deps{
		Rules: load(t), Batches: n.batches, Runtime: n, Accounts: accounts, Sink: n, Recorder: n.tap, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = engine.Run(ctx) })
	source := &churn{containers: 16, lifetimes: 4, look: func(int) {}}
	n.feed(source)
	accounts <- called("ann")
	time.Sleep(2 * time.Second) // nothing waits for its container
	reader, err := n.tap.Open()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait() // the snapshot is taken
	n.mu.Lock()
	before := len(n.findings)
	n.mu.Unlock()
	tasks.Go(func() { file = write(ctx, t, reader) })
	source.containers = 32
	n.feed(source)
	accounts <- called("bob")
	source.containers = 48
	n.feed(source)
	time.Sleep(2 * time.Second)
	cancel()
	tasks.Wait()
	return file, n.findings[before:]
}

func replayed(t *testing.T, file []byte) (*Report, []*findingv1.Finding, error) {
	t.Helper()
	reader, err := recording.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var findings []*findingv1.Finding
	report, err := Run(t.Context(), Config{
		Engine: pipeline.DefaultConfig(), Rules: load(t), Sample: 1, Log: slog.New(slog.DiscardHandler),
		Finding: func(f *findingv1.Finding) error { findings = append(findings, f); return nil },
	}, reader)
	return report, findings, err
}

// What a replay finds is what the node found: same ids, workloads, ancestors and texts, for processes and containers that were there
// before the recording began, for late metadata and for containers that nobody knows.
func TestAReplayFindsWhatTheNodeFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, want := record(t)
		if len(want) < 200 {
			t.Fatalf("the node made %d findings, and this test shows little", len(want))
		}
		report, got, err := replayed(t, file)
		if err != nil {
			t.Fatalf("replay: %v", err)
		}
		if len(got) != len(want) {
			t.Fatalf("%d findings, want %d", len(got), len(want))
		}
		byID := map[string]*findingv1.Finding{}
		states := map[findingv1.MetadataState]int{}
		named := map[string]bool{}
		for _, f := range got {
			byID[f.GetId()] = f
		}
		for _, f := range want {
			states[f.GetWorkload().GetMetadata()]++
			if _, name, ok := strings.Cut(f.GetOutput(), " for "); ok {
				named[name] = true
			}
			other := proto.CloneOf(byID[f.GetId()])
			if other.GetAction() != nil { // when it was refused is the clock's
				other.Action.Time = f.GetAction().GetTime()
			}
			if !proto.Equal(other, f) {
				t.Fatalf("finding\n got %v\nwant %v", other, f)
			}
		}
		if states[findingv1.MetadataState_METADATA_STATE_KNOWN] == 0 || states[findingv1.MetadataState_METADATA_STATE_PENDING] == 0 {
			t.Errorf("findings by metadata = %v, want known and pending ones", states)
		}
		if len(named) != 2 || !named["ann"] || !named["bob"] {
			t.Errorf("findings are for %v, want ann's, who is in the snapshot, and bob's", named)
		}
		if report.Findings != uint64(len(want)) || report.Snapshots == 0 || len(report.Rules) != 2 || report.Rules[0].Tried == 0 {
			t.Errorf("report = %+v, want %d findings and two rules that were timed", report, len(want))
		}
	})
}

func TestADamagedRecordingIsReplayedUpToThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, want := record(t)
		report, got, err := replayed(t, file[:len(file)-30])
		var damage *recording.DamageError
		if !errors.As(err, &damage) || !errors.Is(err, recording.ErrTruncated) {
			t.Errorf("error = %v, want a DamageError", err)
		}
		if report == nil || report.Findings != uint64(len(got)) || len(got) > len(want) {
			t.Errorf("report = %+v with %d findings, of at most %d", report, len(got), len(want))
		}
	})
}

// A loop's rounds find the same each time, in new containers.
func TestALoopIsNewEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, want := record(t)
		reader, err := recording.NewReader(bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		loop, err := NewLoop(reader, 10_000)
		if err != nil {
			t.Fatal(err)
		}
		ids, whose := map[string]bool{}, map[string]bool{}
		report, err := Run(t.Context(), Config{
			Engine: pipeline.DefaultConfig(), Rules: load(t), Log: slog.New(slog.DiscardHandler),
			Finding: func(f *findingv1.Finding) error {
				ids[f.GetId()], whose[f.GetWorkload().GetContainerId()] = true, true
				return nil
			},
		}, loop)
		if err != nil || loop.round < 4 {
			t.Fatalf("Run() = %v after %d rounds, want at least 4", err, loop.round)
		}
		if report.Findings < loop.round*uint64(len(want)) || uint64(len(ids)) != report.Findings {
			t.Errorf("%d findings, %d different ones, in %d rounds of %d", report.Findings, len(ids), loop.round, len(want))
		}
		if len(whose) < 4*20 {
			t.Errorf("findings in %d containers, want others in each round", len(whose))
		}
	})
}

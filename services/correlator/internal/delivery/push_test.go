package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	uplinkv1 "github.com/palisade-sec/palisade/api/palisade/uplink/v1"
)

// fakeUplink stores findings, as far as its limits go.
type fakeUplink struct {
	// limit is how many bytes a call may have; more is answered as gRPC does.
	limit int
	// busy is how many of the next calls come too soon.
	busy int

	stored        map[string]bool
	calls, widest int
}

func (u *fakeUplink) PushFindings(
	_ context.Context, r *uplinkv1.PushFindingsRequest, _ ...grpc.CallOption,
) (*uplinkv1.PushFindingsResponse, error) {
	u.calls++
	if u.busy > 0 {
		u.busy--
		return nil, status.Error(codes.ResourceExhausted, "too many calls per second")
	}
	size := proto.Size(r)
	u.widest = max(u.widest, size)
	if size > u.limit {
		return nil, status.Error(codes.ResourceExhausted, "grpc: received message larger than max")
	}
	for _, f := range r.GetFindings() {
		u.stored[f.GetId()] = true
	}
	return &uplinkv1.PushFindingsResponse{}, nil
}

// pushed runs the findings through a delivery in front of the uplink, and returns its metrics and how long that took
// on the bubble's clock.
func pushed(t *testing.T, uplink *fakeUplink, findings ...*findingv1.Finding) (*prometheus.Registry, time.Duration) {
	t.Helper()
	uplink.stored = map[string]bool{}
	cfg := DefaultUplinkConfig()
	registry := prometheus.NewRegistry()
	d, err := New(DefaultEnforcerConfig(), cfg, Peers{}, slog.New(slog.DiscardHandler), registry)
	if err != nil {
		t.Fatal(err)
	}
	d.uplink = uplink
	ctx, cancel := context.WithCancel(t.Context())
	var running, left sync.WaitGroup
	begin := time.Now()
	left.Add(len(findings))
	for _, f := range findings {
		if err := d.Put(ctx, Item{Finding: f, Done: left.Done}); err != nil {
			t.Fatal(err)
		}
	}
	running.Go(func() { _ = d.RunPushes(ctx) })
	gone := make(chan struct{})
	go func() { left.Wait(); close(gone) }()
	select {
	case <-gone:
	case <-time.After(time.Hour):
		t.Errorf("findings wait for an hour, want each to be done; stored %d", len(uplink.stored))
	}
	took := time.Since(begin)
	cancel()
	running.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return registry, took
}

// counted is how many findings left with an outcome.
func counted(t *testing.T, registry *prometheus.Registry, outcome string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() == "palisade_correlator_delivered_findings_total" && metric.GetLabel()[0].GetValue() == outcome {
				return metric.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func sized(id, bytes int) *findingv1.Finding {
	return &findingv1.Finding{Id: fmt.Sprint(id), Output: strings.Repeat("x", bytes)}
}

func TestABatchIsBoundedByBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var findings []*findingv1.Finding
		for i := range 200 {
			findings = append(findings, sized(i, 256<<10)) // 50 MiB together
		}
		uplink := &fakeUplink{limit: 32 << 20}
		registry, _ := pushed(t, uplink, findings...)
		if len(uplink.stored) != 200 || uplink.widest > maxPushBytes+1024 || uplink.calls > 20 {
			t.Errorf("stored %d in %d calls of at most %d bytes, want 200 in a few of 4 MiB", len(uplink.stored), uplink.calls, uplink.widest)
		}
		if got := counted(t, registry, outcomeStored); got != 200 {
			t.Errorf("counted %v, want 200", got)
		}
	})
}

func TestWhatIsTooLargeTogetherIsTriedInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var findings []*findingv1.Finding
		for i := range 30 {
			findings = append(findings, sized(i, 100<<10))
		}
		uplink := &fakeUplink{limit: 128 << 10}
		pushed(t, uplink, findings...)
		if len(uplink.stored) != 30 {
			t.Errorf("stored %d, want all 30", len(uplink.stored))
		}
	})
}

func TestAFindingThatIsTooLargeIsGivenUpAtOnceAndTheOthersStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		uplink := &fakeUplink{limit: 32 << 20}
		registry, took := pushed(t, uplink, sized(1, 10), sized(2, 40<<20), sized(3, 10))
		if uplink.stored["2"] || len(uplink.stored) != 2 || took > 5*time.Second {
			t.Errorf("stored %v within %v, want 1 and 3 at once", uplink.stored, took)
		}
		if got := counted(t, registry, outcomeGivenUp); got != 1 {
			t.Errorf("gave up %v, want 1", got)
		}
	})
}

func TestAFindingThatComesTooSoonIsTriedAgain(t *testing.T) {
	for _, tt := range []struct {
		name         string
		busy, stored int
	}{{"for a while", maxExhausted - 1, 1}, {"but not for ever", 1 << 30, 0}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				uplink := &fakeUplink{limit: 32 << 20, busy: tt.busy}
				_, took := pushed(t, uplink, sized(1, 10))
				if len(uplink.stored) != tt.stored || uplink.calls != maxExhausted || took < 10*time.Second || took > time.Minute {
					t.Errorf("stored %d after %d calls in %v, want %d after %d", len(uplink.stored), uplink.calls, took, tt.stored, maxExhausted)
				}
			})
		})
	}
}

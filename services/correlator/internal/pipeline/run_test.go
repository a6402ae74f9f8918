package pipeline

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/subscription"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

func TestWorkloadsExpireOnABusyNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		batches := make(chan *subscription.Batch)
		runtime := &fakeRuntime{updates: make(chan workload.Update)}
		engine, err := New(DefaultConfig(), Deps{
			Rules: load(t), Batches: batches, Runtime: runtime, Sink: &fakeSink{},
			Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var tasks sync.WaitGroup
		tasks.Go(func() { _ = engine.Run(ctx) })
		defer tasks.Wait()
		defer cancel()
		number := uint64(0)
		send := func(events ...*eventv1.Event) {
			number++
			batches <- subscription.NewBatch(&collectorv1.StreamEventsResponse{Instance: "one", Batch: number, Events: events})
		}
		send(exec(1, 0, hostNS, 1, "/init"), exec(20, 1, hostNS, 5, "/bin/shim"), exec(40, 20, ctrNS, 1001, "/app"))
		runtime.updates <- running("c1", 40)
		runtime.updates <- workload.Update{Gone: []workload.Ref{{Namespace: "ns", ID: "c1"}}}
		synctest.Wait()
		if got := engine.metrics.workloads.Load(); got != 1 {
			t.Fatalf("%d containers bound, want 1", got)
		}
		for begin := time.Now(); time.Since(begin) < DefaultConfig().Workloads.Grace+3*time.Second; time.Sleep(100 * time.Millisecond) {
			send(open(50, 1, hostNS, 9, "/tmp/a"))
		}
		synctest.Wait()
		if got := engine.metrics.workloads.Load(); got != 0 {
			t.Errorf("%d containers bound long after their end, want 0", got)
		}
	})
}

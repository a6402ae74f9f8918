package kerneltest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/ring"
)

// What the kernel leaves out is told, all of it and within a second. It happens on Linux 7, where programs on tracepoints may be
// preempted; on older kernels there may be nothing to tell.
func TestLeftOutProgramsAreTold(t *testing.T) {
	w := borrow(t)
	before := toldLeftOut(t, w)
	var told atomic.Uint64
	losses, err := ring.NewLosses(w.set, decoder(), func(_ context.Context, events []*eventv1.Event, done func()) error {
		for _, event := range events {
			if event.GetLoss().GetReason() == eventv1.LossReason_LOSS_REASON_LEFT_OUT {
				told.Add(event.GetLoss().GetCount())
			}
		}
		done()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- losses.Run(ctx) }()
	var actors sync.WaitGroup
	for range 4 {
		actors.Go(func() { perform(t, "exec-many", "100") })
	}
	actors.Wait()
	missed := missedRuns(t, w)
	time.Sleep(time.Second)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if got := before + told.Load(); got < missed || got > missedRuns(t, w) {
		t.Errorf("%d told, want what the kernel counted: %d", got, missed)
	}
	if kept := toldLeftOut(t, w); kept != before+told.Load() {
		t.Errorf("%d noted as told, want %d", kept, before+told.Load())
	}
	if missed == 0 && !t.Failed() {
		t.Skip("this kernel left no program out: there was nothing to tell")
	}
	t.Logf("left out %d times", missed)
}

// toldLeftOut adds up what is noted as told.
func toldLeftOut(t *testing.T, w *watcher) (sum uint64) {
	t.Helper()
	told, err := w.set.ToldLeftOut()
	if err != nil {
		t.Fatal(err)
	}
	for _, count := range told {
		sum += count
	}
	return sum
}

// missedRuns adds up what the kernel counted.
func missedRuns(t *testing.T, w *watcher) (sum uint64) {
	t.Helper()
	runs, err := w.set.Runs()
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range runs {
		sum += run.Missed
	}
	return sum
}

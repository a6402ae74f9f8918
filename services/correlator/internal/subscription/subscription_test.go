package subscription

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
)

// fakeCollector opens each stream with a snapshot, a batch that came before and a new one, and ends it when the
// subscriber ends its side.
type fakeCollector struct {
	opened []time.Time
	batch  uint64
	// asked are the first requests of the streams, later what else they asked for.
	asked []*collectorv1.StreamEventsRequest
	later []string
}

func (c *fakeCollector) StreamEvents(ctx context.Context, _ ...grpc.CallOption) (conversation, error) {
	c.opened = append(c.opened, time.Now())
	s := &fakeStream{ctx: ctx, collector: c, answers: make(chan *collectorv1.StreamEventsResponse, 4), closed: make(chan struct{})}
	c.batch++
	for _, number := range []uint64{0, c.batch - 1, c.batch} {
		if number > 0 || len(s.answers) == 0 {
			s.answers <- &collectorv1.StreamEventsResponse{Instance: "one", Batch: number}
		}
	}
	return s, nil
}

type fakeStream struct {
	grpc.ClientStream
	ctx       context.Context
	collector *fakeCollector
	answers   chan *collectorv1.StreamEventsResponse
	closed    chan struct{}
}

func (s *fakeStream) Send(r *collectorv1.StreamEventsRequest) error {
	if len(s.collector.asked) < len(s.collector.opened) {
		s.collector.asked = append(s.collector.asked, r)
	} else if r.GetInterest() != nil {
		s.collector.later = append(s.collector.later, r.GetInterest().GetClasses()...)
	}
	return nil
}

func (s *fakeStream) CloseSend() error {
	close(s.closed)
	return nil
}

// Recv gives what is there, and ends only then.
func (s *fakeStream) Recv() (*collectorv1.StreamEventsResponse, error) {
	select {
	case answer := <-s.answers:
		return answer, nil
	default:
	}
	select {
	case answer := <-s.answers:
		return answer, nil
	case <-s.closed:
		return nil, io.EOF
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

// start runs a subscription to a fake until the test's end, and counts the batches that open a stream.
func start(t *testing.T) (s *Subscription, collector *fakeCollector, stop func() (opens int, last uint64)) {
	t.Helper()
	collector = &fakeCollector{}
	s = New(nil, &collectorv1.Interest{Classes: []string{"exec"}}, slog.New(slog.DiscardHandler))
	s.client = collector
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var opens int
	var last uint64
	running.Go(func() { _ = s.Run(ctx) })
	running.Go(func() {
		for {
			select {
			case batch := <-s.Batches():
				if batch.Opens {
					opens++
				}
				last = max(last, batch.GetBatch())
				batch.Release()
			case <-ctx.Done():
				return
			}
		}
	})
	return s, collector, func() (int, uint64) {
		cancel()
		running.Wait()
		return opens, last
	}
}

func TestReopenBringsANewSnapshotButNotTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, collector, stop := start(t)
		time.Sleep(time.Minute)
		begin := time.Now()
		for time.Since(begin) < 25*time.Second { // a flood: something is lost every half second
			s.Reopen()
			time.Sleep(500 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		if err := s.Err(); err != nil {
			t.Errorf("Err() = %v after reopening, want nil", err)
		}
		opens, last := stop()
		if len(collector.later) > 0 {
			t.Errorf("asked for %q, which has not changed", collector.later)
		}
		for i, r := range collector.asked {
			if got := r.GetInterest().GetClasses(); len(got) != 1 || got[0] != "exec" || r.GetAcknowledgedBatch() != 0 {
				t.Errorf("stream %d was opened by %v, want the interest alone", i+1, r)
			}
		}
		// At once, then every ten seconds, and once more for what was lost after the last.
		if got := len(collector.opened); got != 5 || opens != 5 || last != 5 {
			t.Fatalf("opened %d times, %d snapshots, last batch %d, want 5 each", got, opens, last)
		}
		if got := collector.opened[1].Sub(begin); got > time.Second {
			t.Errorf("the first snapshot came after %v, want at once", got)
		}
		for i := range 3 {
			if got := collector.opened[i+2].Sub(collector.opened[i+1]); got < reopenEvery || got > reopenEvery+time.Second {
				t.Errorf("snapshots %v apart, want %v", got, reopenEvery)
			}
		}
	})
}

func TestWithoutLossTheStreamStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, collector, stop := start(t)
		time.Sleep(time.Hour)
		if opens, _ := stop(); opens != 1 || len(collector.opened) != 1 {
			t.Errorf("opened %d times, %d snapshots, want 1", len(collector.opened), opens)
		}
	})
}

func TestANewInterestIsToldAtOnceAndToLaterStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, collector, stop := start(t)
		time.Sleep(time.Second)
		s.SetInterest(&collectorv1.Interest{Classes: []string{"connect"}})
		synctest.Wait()
		if got := collector.later; len(got) != 1 || got[0] != "connect" || len(collector.opened) != 1 {
			t.Errorf("asked for %q on %d streams, want connect on the first", got, len(collector.opened))
		}
		s.Reopen()
		time.Sleep(time.Minute)
		stop()
		if got := collector.asked[len(collector.asked)-1].GetInterest().GetClasses(); len(collector.asked) != 2 || got[0] != "connect" {
			t.Errorf("stream %d was opened for %q, want the second for connect", len(collector.asked), got)
		}
	})
}

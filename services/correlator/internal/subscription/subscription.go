// Package subscription takes events from the collector and acknowledges them when all that came of them is safe. Data
// in: the collector's stream, reconnected for ever; data out: batches, in order, each once. It does not read on while
// nobody takes its batches, so slowness reaches the collector, whose records then wait in the kernel's ring.
package subscription

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
)

// Waits between two attempts to subscribe.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = time.Second
)

// errNotYet is the state before the first batch.
var errNotYet = errors.New("not connected yet")

// Subscription is a stream of events from the collector.
type Subscription struct {
	client  collectorv1.EventServiceClient
	log     *slog.Logger
	ledger  *ledger
	batches chan *Batch

	mu  sync.Mutex
	err error // why there is no stream, nil if there is one; guarded by mu
}

// New returns a subscription over a connection to the collector, which it does not close.
func New(conn grpc.ClientConnInterface, log *slog.Logger) *Subscription {
	return &Subscription{
		client: collectorv1.NewEventServiceClient(conn), log: log, ledger: newLedger(),
		batches: make(chan *Batch, 1), err: errNotYet,
	}
}

// Batches is where events arrive. The receiver owns one Release of each. It is never closed.
func (s *Subscription) Batches() <-chan *Batch { return s.batches }

// Err is why no events arrive, nil if they do. Safe for concurrent use.
func (s *Subscription) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *Subscription) setErr(ctx context.Context, err error) {
	s.mu.Lock()
	before := s.err
	s.err = err
	s.mu.Unlock()
	switch {
	case err != nil && before == nil:
		s.log.WarnContext(ctx, "Lost the collector", "err", err)
	case err == nil && before != nil:
		s.log.InfoContext(ctx, "Receives events")
	}
}

// Run subscribes, again and again, until ctx ends.
func (s *Subscription) Run(ctx context.Context) error {
	retry := firstRetry
	for ctx.Err() == nil {
		received, err := s.session(ctx)
		if ctx.Err() != nil {
			break
		}
		s.setErr(ctx, err)
		if received {
			retry = firstRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, lastRetry)
	}
	return ctx.Err()
}

// session is one stream, from its first request to its error.
func (s *Subscription) session(ctx context.Context) (received bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := s.client.StreamEvents(ctx)
	if err != nil {
		cancel()
		return false, err
	}
	if err := stream.Send(&collectorv1.StreamEventsRequest{}); err != nil {
		cancel()
		return false, err
	}
	var acknowledging sync.WaitGroup
	defer acknowledging.Wait()
	defer cancel()
	first := make(chan struct{})
	acknowledging.Go(func() { s.acknowledge(ctx, stream, first) })
	for {
		answer, err := stream.Recv()
		if err != nil {
			return received, err
		}
		batch := s.ledger.admit(answer)
		if !received {
			received = true
			close(first)
			s.setErr(ctx, nil)
			if batch != nil {
				batch.Opens = true
			}
		}
		if batch == nil {
			continue
		}
		select {
		case s.batches <- batch:
		case <-ctx.Done():
			return received, ctx.Err()
		}
	}
}

// acknowledge sends what is due until the stream ends. It begins when the first batch has said whose stream it is.
func (s *Subscription) acknowledge(ctx context.Context, stream collectorv1.EventService_StreamEventsClient, first <-chan struct{}) {
	select {
	case <-first:
	case <-ctx.Done():
		return
	}
	var sent uint64
	for {
		if due := s.ledger.due(); due > sent {
			if stream.Send(&collectorv1.StreamEventsRequest{AcknowledgedBatch: due}) != nil {
				return // the receiving side knows why
			}
			sent = due
		}
		select {
		case <-s.ledger.wake:
		case <-ctx.Done():
			return
		}
	}
}

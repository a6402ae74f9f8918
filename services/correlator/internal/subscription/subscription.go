// Package subscription takes events from the collector and acknowledges them when all that came of them is safe. Data
// in: the collector's stream, reconnected for ever; data out: batches, in order, each once. It does not read on while
// nobody takes its batches, so slowness reaches the collector, whose records then wait in the kernel's ring.
package subscription

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
)

// Waits between two attempts to subscribe.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = time.Second
)

// reopenEvery is how long a stream lasts at least before we end it for the sake of a new snapshot, which costs the
// collector a walk over all processes.
const reopenEvery = 10 * time.Second

var (
	// errNotYet is the state before the first batch.
	errNotYet = errors.New("not connected yet")
	// errReopened is the end of a stream that we ended.
	errReopened = errors.New("reopened for a new snapshot")
)

type conversation = collectorv1.EventService_StreamEventsClient

// Subscription is a stream of events from the collector.
type Subscription struct {
	client  collectorv1.EventServiceClient
	log     *slog.Logger
	ledger  *ledger
	batches chan *Batch
	// reopen has a value when a new snapshot is wanted, changed when another interest is.
	reopen, changed chan struct{}

	mu       sync.Mutex
	err      error                 // why there is no stream, nil if there is one; guarded by mu
	interest *collectorv1.Interest // guarded by mu
}

// New returns a subscription over a connection to the collector, which it does not close. Interest is what is wanted, nil
// for everything.
func New(conn grpc.ClientConnInterface, interest *collectorv1.Interest, log *slog.Logger) *Subscription {
	return &Subscription{
		client: collectorv1.NewEventServiceClient(conn), interest: interest, log: log, ledger: newLedger(),
		batches: make(chan *Batch, 1), reopen: make(chan struct{}, 1),
		changed: make(chan struct{}, 1), err: errNotYet,
	}
}

// Reopen asks for a new stream, which opens with a new snapshot. It does not block, and what is asked for within ten
// seconds of the last opening waits for their end. Safe for concurrent use.
func (s *Subscription) Reopen() {
	select {
	case s.reopen <- struct{}{}:
	default: // asked for already
	}
}

// SetInterest asks for something else from now on, on the stream there is and on those to come. It does not block. Safe for
// concurrent use.
func (s *Subscription) SetInterest(interest *collectorv1.Interest) {
	s.mu.Lock()
	s.interest = interest
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default: // what is about to be sent is the latest
	}
}

func (s *Subscription) wanted() *collectorv1.Interest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.interest
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
		if received {
			retry = firstRetry
		}
		if errors.Is(err, errReopened) {
			continue // nothing is wrong, and the collector is done with the old stream
		}
		s.setErr(ctx, err)
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
	select {
	case <-s.reopen: // this stream's snapshot answers what was asked before it
	default:
	}
	stream, err := s.client.StreamEvents(ctx, grpc.ForceCodecV2(rpc.FastCodec()))
	if err != nil {
		cancel()
		return false, err
	}
	if err := stream.Send(&collectorv1.StreamEventsRequest{Interest: s.wanted()}); err != nil {
		cancel()
		return false, err
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel()
	first := make(chan struct{})
	var ended atomic.Bool // by us
	sending.Go(func() { s.send(ctx, stream, first, &ended) })
	opens := true
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) && ended.Load() {
			return received, errReopened
		}
		if err != nil {
			return received, err
		}
		if !received {
			received = true
			close(first)
			s.setErr(ctx, nil)
		}
		batch := s.ledger.admit(answer)
		if batch == nil {
			continue
		}
		batch.Opens, opens = opens, false
		select {
		case s.batches <- batch:
		case <-ctx.Done():
			return received, ctx.Err()
		}
	}
}

// send acknowledges until the stream ends, or ends it when a new one is wanted and this one has lasted long enough. It
// begins when the first batch has said whose stream it is.
func (s *Subscription) send(ctx context.Context, stream conversation, first <-chan struct{}, ended *atomic.Bool) {
	opened := time.Now()
	select {
	case <-first:
	case <-ctx.Done():
		return
	}
	var sent uint64
	var due <-chan time.Time
	for {
		if number := s.ledger.due(); number > sent {
			if stream.Send(&collectorv1.StreamEventsRequest{AcknowledgedBatch: number}) != nil {
				return // the receiving side knows why
			}
			sent = number
		}
		select {
		case <-s.ledger.wake:
		case <-s.changed:
			if stream.Send(&collectorv1.StreamEventsRequest{Interest: s.wanted()}) != nil {
				return // the next stream begins with it
			}
		case <-s.reopen:
			due = time.After(time.Until(opened.Add(reopenEvery)))
		case <-due:
			// Not a cancellation: what is on its way is still received, and the collector has let go of this stream
			// before we hear of its end, so that it does not refuse the next one.
			ended.Store(true)
			_ = stream.CloseSend() // never fails; see grpc.ClientStream
			return
		case <-ctx.Done():
			return
		}
	}
}

// Package stream hands events to the one subscriber, at least once. In: batches from the ring, acknowledgements from
// the subscriber. Out: EventService.StreamEvents. Unacknowledged batches are kept in bounded memory; when that is
// full, or nobody subscribes, Publish blocks and so stops the reading of the ring.
package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// Config of the stream.
type Config struct {
	// UnacknowledgedBytes is how much memory the events may take that the subscriber has not acknowledged. It is
	// memory and not a count of batches that is bounded: a batch has one event or 512, and the subscriber may hold
	// one for a second while it learns whose it is.
	UnacknowledgedBytes int `yaml:"unacknowledged_bytes"`
}

// Bounds of Config.UnacknowledgedBytes. The least is several of the largest batches.
const (
	minUnacknowledged = 1 << 20
	maxUnacknowledged = 1 << 30
)

// Validate reports every fault.
func (c Config) Validate() error {
	if c.UnacknowledgedBytes < minUnacknowledged || c.UnacknowledgedBytes > maxUnacknowledged {
		return fmt.Errorf("stream.unacknowledged_bytes: %d is not between %d and %d",
			c.UnacknowledgedBytes, minUnacknowledged, maxUnacknowledged)
	}
	return nil
}

// Identity says which run of the collector the events come from, and which rings: those may be older.
type Identity struct {
	BootID   string
	Instance string
	Epoch    string
}

// Snapshot lists the processes that exist now, as Event.existing.
type Snapshot func(ctx context.Context) ([]*eventv1.Event, error)

// Kernel is what the stream needs of it.
type Kernel struct {
	Snapshot Snapshot
	// Want says what is to be recorded from now on; its error is the subscriber's fault. It may be nil.
	Want func(*collectorv1.Interest) error
}

// Stream is safe for concurrent use.
type Stream struct {
	collectorv1.UnimplementedEventServiceServer

	config   Config
	identity Identity
	kernel   Kernel
	tracer   trace.Tracer

	mu         sync.Mutex
	changed    chan struct{} // closed, and replaced, whenever one of the fields below changes
	subscribed bool
	sequence   uint64 // of the last event
	last       uint64 // batch numbered last
	kept       []kept // not acknowledged, in order and without holes
	bytes      int    // of memory that kept takes
}

// kept is a batch that was not acknowledged, the memory it takes, and what to do when it is.
type kept struct {
	*collectorv1.StreamEventsResponse
	bytes int
	done  func()
}

// New returns a stream whose first events are about the collector itself.
func New(cfg Config, identity Identity, first []*eventv1.Event, kernel Kernel) *Stream {
	s := &Stream{
		config:   cfg,
		identity: identity,
		kernel:   kernel,
		tracer:   otel.Tracer("github.com/palisade-sec/palisade/services/collector"),
		changed:  make(chan struct{}),
	}
	s.append(first, kept{bytes: footprint(first), done: func() {}}, "")
	return s
}

// Publish numbers the events and keeps them as a batch. It blocks while nobody subscribes or too much is
// unacknowledged, and returns an error only when ctx ends. done is called when the batch was acknowledged.
func (s *Stream) Publish(ctx context.Context, events []*eventv1.Event, done func()) error {
	ctx, span := s.tracer.Start(ctx, "collector.batch",
		trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(attribute.Int("palisade.events", len(events))))
	defer span.End()
	size := footprint(events)
	for {
		s.mu.Lock()
		// A batch that is larger than the bound by itself goes alone, so that it does not block for ever.
		if s.subscribed && (len(s.kept) == 0 || s.bytes+size <= s.config.UnacknowledgedBytes) {
			s.append(events, kept{bytes: size, done: done}, traceparent(ctx))
			s.mu.Unlock()
			return nil
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// append makes the next batch. mu is held, or s is not shared yet.
func (s *Stream) append(events []*eventv1.Event, batch kept, parent string) {
	for _, event := range events {
		s.sequence++
		event.Sequence = s.sequence
	}
	s.last++
	s.bytes += batch.bytes
	batch.StreamEventsResponse = &collectorv1.StreamEventsResponse{
		BootId:      s.identity.BootID,
		Instance:    s.identity.Instance,
		Epoch:       s.identity.Epoch,
		Batch:       s.last,
		Events:      events,
		Traceparent: parent,
	}
	s.kept = append(s.kept, batch)
	s.notify()
}

// notify wakes all who wait. mu is held.
func (s *Stream) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func traceparent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier.Get("traceparent")
}

// ErrSubscribed means that there is a subscriber already.
var ErrSubscribed = errors.New("the event stream has a subscriber")

// ErrNotSent means that a batch was acknowledged that does not exist yet.
var ErrNotSent = errors.New("acknowledged a batch that was never sent")

// ErrInterest means that a subscriber asked for what does not exist.
var ErrInterest = errors.New("interest cannot be served")

// subscribe claims the stream; release gives it back.
func (s *Stream) subscribe() (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subscribed {
		return nil, ErrSubscribed
	}
	s.subscribed = true
	s.notify()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.subscribed = false
		s.notify()
	}, nil
}

// acknowledge forgets batches up to and including the given one.
func (s *Stream) acknowledge(batch uint64) error {
	done, err := s.forget(batch)
	for _, call := range done { // without the lock: they make system calls
		call()
	}
	return err
}

// forget drops acknowledged batches and returns what to do about them, in order.
func (s *Stream) forget(batch uint64) (done []func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if batch > s.last {
		return nil, fmt.Errorf("batch %d after %d: %w", batch, s.last, ErrNotSent)
	}
	n := s.after(batch)
	for _, old := range s.kept[:n] {
		s.bytes -= old.bytes
		done = append(done, old.done)
	}
	clear(s.kept[:n]) // the array is still in use: let go of the events
	s.kept = s.kept[n:]
	s.notify()
	return done, nil
}

// after is the place in kept of the first batch after the given one. Numbers have no holes, so nothing is searched:
// there may be tens of thousands. mu is held.
func (s *Stream) after(batch uint64) int {
	if len(s.kept) == 0 || batch < s.kept[0].GetBatch() {
		return 0
	}
	return int(min(uint64(len(s.kept)), batch-s.kept[0].GetBatch()+1)) //nolint:gosec // at most a length
}

// next waits for the first kept batch after the given one.
func (s *Stream) next(ctx context.Context, after uint64) (*collectorv1.StreamEventsResponse, error) {
	for {
		s.mu.Lock()
		if i := s.after(after); i < len(s.kept) {
			batch := s.kept[i].StreamEventsResponse
			s.mu.Unlock()
			return batch, nil
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		}
	}
}

// Status is what people are shown.
type Status struct {
	Subscribed bool
	Sequence   uint64
	// Unacknowledged is in batches, UnacknowledgedBytes in memory.
	Unacknowledged, UnacknowledgedBytes int
}

// Status may be called at any time.
func (s *Stream) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{Subscribed: s.subscribed, Sequence: s.sequence, Unacknowledged: len(s.kept), UnacknowledgedBytes: s.bytes}
}

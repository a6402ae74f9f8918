// Package ring moves records from the kernel's ring to the stream. In: the ring's map and the lost counters. Out:
// batches of events, in the order of the ring, and Loss events for what did not fit it. It reads only as fast as the
// stream takes: the kernel's ring is the queue.
package ring

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

const (
	maxBatch = 512
	// maxBatchBytes keeps a flood of execs with 32 KiB of arguments from making a batch that is large beside the memory
	// the stream may use.
	maxBatchBytes = 256 << 10
	// maxBatchAge bounds how long a batch is filled while the ring never runs dry.
	maxBatchAge = 20 * time.Millisecond
	// pause after the ring ran dry. While we pause, only the first new record costs its writer a wake-up.
	pause = time.Millisecond
)

// Publish takes a batch; it blocks until there is room for it or ctx ends.
type Publish func(ctx context.Context, events []*eventv1.Event) error

// Counts says how many records were read.
type Counts struct {
	// ByKind counts decoded records.
	ByKind [record.Kinds]uint64
	// Malformed counts records that could not be decoded: a bug, either side.
	Malformed uint64
}

// Reader reads the ring.
type Reader struct {
	ring      *ringbuf.Reader
	decoder   record.Decoder
	publish   Publish
	read      [record.Kinds]atomic.Uint64
	malformed atomic.Uint64
}

// NewReader opens the ring of records.
func NewReader(events *ebpf.Map, decoder record.Decoder, publish Publish) (*Reader, error) {
	ring, err := ringbuf.NewReader(events)
	if err != nil {
		return nil, fmt.Errorf("open ring: %w", err)
	}
	return &Reader{ring: ring, decoder: decoder, publish: publish}, nil
}

// Close frees the ring if Run was never called.
func (r *Reader) Close() error { return r.ring.Close() }

// Counts may be called at any time.
func (r *Reader) Counts() Counts {
	c := Counts{Malformed: r.malformed.Load()}
	for kind := range c.ByKind {
		c.ByKind[kind] = r.read[kind].Load()
	}
	return c
}

// Run reads until ctx ends, which closes the ring.
func (r *Reader) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = r.ring.Close() })
	defer stop()
	var raw ringbuf.Record
	for {
		batch, err := r.batch(&raw)
		if errors.Is(err, ringbuf.ErrClosed) {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read ring: %w", err)
		}
		if len(batch) > 0 {
			if err := r.publish(ctx, batch); err != nil {
				return err
			}
		}
		if raw.Remaining > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// batch waits for a record and takes what is there, up to a full batch.
func (r *Reader) batch(raw *ringbuf.Record) ([]*eventv1.Event, error) {
	if err := r.ring.ReadInto(raw); err != nil {
		return nil, err
	}
	start, size := time.Now(), len(raw.RawSample)
	events := r.decode(nil, raw.RawSample)
	for raw.Remaining > 0 && len(events) < maxBatch && size < maxBatchBytes && time.Since(start) < maxBatchAge {
		if err := r.ring.ReadInto(raw); err != nil {
			return nil, err
		}
		size += len(raw.RawSample)
		events = r.decode(events, raw.RawSample)
	}
	return events, nil
}

func (r *Reader) decode(events []*eventv1.Event, raw []byte) []*eventv1.Event {
	event, kind, err := r.decoder.Decode(raw)
	if err != nil {
		r.malformed.Add(1)
		return events
	}
	r.read[kind].Add(1)
	return append(events, event)
}

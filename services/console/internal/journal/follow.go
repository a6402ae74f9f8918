package journal

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// followBatch and followBytes bound what is under way to a follower.
const (
	followBatch = 512
	followBytes = 8 << 20
	followQueue = 32
)

// Record is a finding in the journal.
type Record struct {
	Sequence uint64
	// Received is when the journal got it.
	Received time.Time
	Node     string
	// Raw is the encoded finding.
	Raw []byte
}

// Follow calls handle with what comes after the sequence number, in order, as many records at a time as there are,
// until ctx ends or handle fails. It returns handle's error, or ctx's.
func (j *Journal) Follow(ctx context.Context, after uint64, handle func([]Record) error) error {
	consumer, err := j.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1,
	})
	if err != nil {
		return fmt.Errorf("follow journal: %w", err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	records := make(chan Record, followQueue)
	feed, err := consumer.Consume(func(msg jetstream.Msg) {
		meta, err := msg.Metadata()
		if err != nil {
			stop(fmt.Errorf("follow journal: %w", err))
			return
		}
		record := Record{
			Sequence: meta.Sequence.Stream, Received: meta.Timestamp,
			Node: msg.Headers().Get(nodeHeader), Raw: msg.Data(),
		}
		select {
		case records <- record:
		case <-ctx.Done():
		}
	}, jetstream.PullMaxMessagesWithBytesLimit(followBatch, followBytes))
	if err != nil {
		return fmt.Errorf("follow journal: %w", err)
	}
	defer feed.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case first := <-records:
			if err := handle(rest(first, records)); err != nil {
				return err
			}
		}
	}
}

// rest adds to first what is there already.
func rest(first Record, records <-chan Record) []Record {
	batch := []Record{first}
	for len(batch) < followBatch {
		select {
		case record := <-records:
			batch = append(batch, record)
		default:
			return batch
		}
	}
	return batch
}

package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"google.golang.org/protobuf/proto"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

// Headers of JetStream's atomic batches (ADR-50).
const (
	batchIDHeader       = "Nats-Batch-Id"
	batchSequenceHeader = "Nats-Batch-Sequence"
	batchCommitHeader   = "Nats-Batch-Commit"
)

// MaxBatch is how many findings Append takes at once.
const MaxBatch = 1000

// Append stores a node's findings, at most MaxBatch, each with another id, and returns how many were new. They are on
// disk when it returns. It stores all of them with one sync unless one is a duplicate the stream still knows.
func (j *Journal) Append(ctx context.Context, node string, findings []*findingv1.Finding) (stored int, err error) {
	messages := make([]*nats.Msg, len(findings))
	for i, finding := range findings {
		if messages[i], err = message(node, finding); err != nil {
			return 0, err
		}
	}
	if len(messages) == 0 {
		return 0, nil
	}
	select {
	case j.slots <- struct{}{}:
		defer func() { <-j.slots }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if len(messages) > 1 {
		refused, err := j.publishBatch(ctx, messages)
		if err == nil {
			return len(messages), nil
		}
		if !refused {
			return 0, fmt.Errorf("append to journal: %w", err)
		}
	}
	return j.publishEach(ctx, messages)
}

func message(node string, finding *findingv1.Finding) (*nats.Msg, error) {
	raw, err := proto.Marshal(finding)
	if err != nil {
		return nil, fmt.Errorf("encode finding: %w", err)
	}
	msg := nats.NewMsg(subject)
	msg.Data = raw
	id := node + "/" + finding.GetId()
	if finding.GetWorkload().GetMetadata() == findingv1.MetadataState_METADATA_STATE_PENDING {
		id += "/pending" // one whose container is known is no duplicate of it
	}
	msg.Header.Set(nats.MsgIdHdr, id)
	msg.Header.Set(nodeHeader, node)
	return msg, nil
}

// publishBatch stores all messages or none. refused is true if the stream said no to the batch, for example because it
// knows one of the ids.
func (j *Journal) publishBatch(ctx context.Context, messages []*nats.Msg) (refused bool, err error) {
	id := nuid.Next()
	for i, msg := range messages {
		msg.Header.Set(batchIDHeader, id)
		msg.Header.Set(batchSequenceHeader, strconv.Itoa(i+1))
		if i+1 < len(messages) {
			if err := j.conn.PublishMsg(msg); err != nil {
				return false, err
			}
		}
	}
	last := messages[len(messages)-1]
	last.Header.Set(batchCommitHeader, "1")
	answer, err := j.conn.RequestMsgWithContext(ctx, last)
	if err != nil {
		return false, err
	}
	var ack struct {
		Error    *jetstream.APIError `json:"error"`
		Sequence uint64              `json:"seq"`
		Count    int                 `json:"count"`
	}
	if err := json.Unmarshal(answer.Data, &ack); err != nil {
		return false, fmt.Errorf("parse acknowledgement: %w", err)
	}
	if ack.Error != nil {
		return true, ack.Error
	}
	if ack.Sequence == 0 || ack.Count != len(messages) {
		return false, errors.New("batch was acknowledged in part")
	}
	return false, nil
}

// publishEach stores messages one by one, those that are known not again.
func (j *Journal) publishEach(ctx context.Context, messages []*nats.Msg) (stored int, err error) {
	futures := make([]jetstream.PubAckFuture, len(messages))
	for i, msg := range messages {
		for _, header := range []string{batchIDHeader, batchSequenceHeader, batchCommitHeader} {
			msg.Header.Del(header)
		}
		if futures[i], err = j.js.PublishMsgAsync(msg); err != nil {
			return 0, fmt.Errorf("append to journal: %w", err)
		}
	}
	for _, future := range futures {
		select {
		case ack := <-future.Ok():
			if !ack.Duplicate {
				stored++
			}
		case err := <-future.Err():
			return stored, fmt.Errorf("append to journal: %w", err)
		case <-ctx.Done():
			return stored, ctx.Err()
		}
	}
	return stored, nil
}

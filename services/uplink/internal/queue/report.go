package queue

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

// DroppedRule is the rule of the queue's own finding about findings it had to drop.
const DroppedRule = "Findings dropped"

// reportEvery is how long dropped findings are added up before they are reported.
const reportEvery = 10 * time.Second

// reportDropped stores a finding that says how many were dropped since the last one, if any were.
func (q *Queue) reportDropped(ctx context.Context) {
	q.mu.Lock()
	n := q.dropped.unreported
	q.mu.Unlock()
	if n == 0 {
		return
	}
	own, err := droppedFinding(n, q.now())
	if err != nil {
		q.log.ErrorContext(ctx, "Could not report dropped findings", "err", err)
		return
	}
	done := make(chan outcome, 1)
	q.commit([]op{{put: []entry{own}, done: done}})
	if result := <-done; result.err != nil {
		return // logged, and tried again next time
	}
	q.log.WarnContext(ctx, "Dropped findings because the queue is full", "count", n)
	q.mu.Lock()
	q.dropped.unreported -= n
	left := q.dropped.unreported
	q.mu.Unlock()
	w := newWriter(q.db)
	defer w.discard()
	err = w.set([]byte(unreportedKey), binary.BigEndian.AppendUint64(nil, left))
	if err == nil {
		err = w.commit()
	}
	if err != nil {
		q.log.ErrorContext(ctx, "Could not write to the queue", "err", err)
	}
}

func droppedFinding(n uint64, now time.Time) (entry, error) {
	var id id
	if _, err := rand.Read(id[:]); err != nil {
		return entry{}, err
	}
	finding := &findingv1.Finding{
		Id:       hex.EncodeToString(id[:]),
		Time:     timestamppb.New(now),
		Rule:     DroppedRule,
		Priority: findingv1.Priority_PRIORITY_CRITICAL,
		Effect:   findingv1.Effect_EFFECT_ALERT,
		Output: fmt.Sprintf("The node's queue was full: %d findings were dropped before the console had them, "+
			"the oldest of the lowest severity first", n),
		Tags:     []string{"palisade", "dropped"},
		Workload: &findingv1.Workload{Metadata: findingv1.MetadataState_METADATA_STATE_HOST},
	}
	raw, err := proto.Marshal(finding)
	return entry{id: id, rank: rankOf(finding.GetPriority()), raw: raw, finding: finding}, err
}

package tap

import (
	"context"
	"errors"
	"testing"
	"time"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/subscription"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

func batch(number uint64) *subscription.Batch {
	return subscription.NewBatch(&collectorv1.StreamEventsResponse{Batch: number, Events: []*eventv1.Event{{Sequence: 2 * number}, {Sequence: 2*number + 1}}})
}

func snapshot() []*correlatorv1.RecordedEntry {
	return []*correlatorv1.RecordedEntry{{Kind: &correlatorv1.RecordedEntry_Snapshot{Snapshot: &correlatorv1.Snapshot{BootId: "boot"}}}}
}

func next(t *testing.T, r *Reader) *correlatorv1.RecordedEntry {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	entry, err := r.Next(ctx)
	if err != nil {
		t.Fatalf("Next() = %v", err)
	}
	return entry
}

// joined is whether a snapshot is wanted.
func joined(tap *Tap) bool {
	select {
	case <-tap.Joins():
		return true
	default:
		return false
	}
}

func TestAReaderSeesASnapshotAndThenAllInOrder(t *testing.T) {
	tap := New()
	tap.Batch(time.Unix(1, 0), batch(1)) // nobody is there
	r, err := tap.Open()
	if err != nil || !joined(tap) {
		t.Fatalf("Open() = %v, and no snapshot is wanted", err)
	}
	if _, err := tap.Open(); !errors.Is(err, ErrBusy) {
		t.Errorf("second Open() = %v, want ErrBusy", err)
	}
	tap.Batch(time.Unix(2, 0), batch(2)) // is in the snapshot
	tap.Begin(time.Unix(3, 0), snapshot())
	tap.Batch(time.Unix(4, 0), batch(3))
	tap.News(time.Unix(5, 0), workload.Update{Gone: []workload.Ref{{Namespace: "ns", ID: "c1"}}})
	if got := next(t, r); got.GetSnapshot().GetBootId() != "boot" || got.GetTime().GetSeconds() != 3 {
		t.Errorf("first entry = %v, want the snapshot", got)
	}
	if got := next(t, r); got.GetBatch().GetBatch().GetBatch() != 3 {
		t.Errorf("second entry = %v, want batch 3", got)
	}
	if got := next(t, r); got.GetNews().GetGone()[0].GetId() != "c1" {
		t.Errorf("third entry = %v, want the news", got)
	}
	r.Close()
	if _, err := tap.Open(); err != nil {
		t.Errorf("Open() after Close() = %v", err)
	}
}

func TestASlowReaderIsToldWhatItMissed(t *testing.T) {
	tap := New()
	tap.limit = 200
	r, err := tap.Open()
	if err != nil || !joined(tap) {
		t.Fatalf("Open() = %v, and no snapshot is wanted", err)
	}
	defer r.Close()
	tap.Begin(time.Unix(1, 0), snapshot())
	put := uint64(0)
	for range 100 { // nobody reads, and nothing waits for that
		put++
		tap.Batch(time.Unix(2, 0), batch(put))
	}
	tap.News(time.Unix(2, 0), workload.Update{Complete: true})
	if joined(tap) {
		t.Error("a snapshot is wanted before the reader has caught up")
	}
	seen := uint64(0)
	next(t, r) // the snapshot
	for !joined(tap) {
		seen++
		if got := next(t, r).GetBatch().GetBatch().GetBatch(); got != seen {
			t.Fatalf("batch %d, want %d", got, seen)
		}
	}
	tap.Begin(time.Unix(3, 0), snapshot())
	want := &correlatorv1.Missed{Batches: put - seen, Events: 2 * (put - seen), News: 1}
	if got := next(t, r).GetMissed(); got.GetBatches() != want.GetBatches() || got.GetEvents() != want.GetEvents() || got.GetNews() != 1 {
		t.Errorf("missed = %v after %d batches, want %v", got, seen, want)
	}
	if got := next(t, r); got.GetSnapshot() == nil {
		t.Errorf("then = %v, want a snapshot", got)
	}
	tap.Batch(time.Unix(4, 0), batch(101))
	if got := next(t, r).GetBatch().GetBatch().GetBatch(); got != 101 {
		t.Errorf("then = batch %d, want 101", got)
	}
}

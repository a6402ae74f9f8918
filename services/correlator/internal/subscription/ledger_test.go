package subscription

import (
	"math/rand/v2"
	"testing"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
)

func admit(t *testing.T, l *ledger, instance string, number uint64) *Batch {
	t.Helper()
	b := l.admit(&collectorv1.StreamEventsResponse{Instance: instance, Batch: number})
	if b == nil {
		t.Fatalf("admit(%s, %d) = nil, want a batch", instance, number)
	}
	return b
}

func TestLedgerAcknowledgesInOrderWhateverTheOrderOfDoing(t *testing.T) {
	for seed := range uint64(100) {
		l := newLedger()
		const n = 50
		var batches []*Batch
		for i := range uint64(n) {
			batches = append(batches, admit(t, l, "a", i+1))
		}
		done := map[uint64]bool{}
		for _, i := range rand.New(rand.NewPCG(seed, 2)).Perm(n) { //nolint:gosec // a shuffle
			before := l.due()
			batches[i].Release()
			done[uint64(i)+1] = true //nolint:gosec // below 50
			due := l.due()
			if due < before {
				t.Fatalf("due went from %d to %d", before, due)
			}
			for number := uint64(1); number <= due; number++ {
				if !done[number] {
					t.Fatalf("due = %d, but %d is not done", due, number)
				}
			}
		}
		if got := l.due(); got != n || l.open.Len() != 0 {
			t.Fatalf("due = %d with %d open, want %d with none", got, l.open.Len(), n)
		}
	}
}

func TestLedgerStaysSmallWhileOneBatchWaits(t *testing.T) {
	l := newLedger()
	stuck := admit(t, l, "a", 1)
	for i := range uint64(10_000) {
		admit(t, l, "a", i+2).Release()
	}
	if got := l.open.Len(); got > 2 {
		t.Errorf("open = %d, want at most 2", got)
	}
	stuck.Release()
	if got := l.due(); got != 10_001 {
		t.Errorf("due = %d, want 10001", got)
	}
}

func TestLedgerTakesEachBatchOnceAndForgetsAnOldInstance(t *testing.T) {
	l := newLedger()
	first := admit(t, l, "a", 1)
	first.Keep()
	first.Release()
	if got := l.due(); got != 0 {
		t.Errorf("due = %d while a finding is on its way, want 0", got)
	}
	if b := l.admit(&collectorv1.StreamEventsResponse{Instance: "a", Batch: 1}); b != nil {
		t.Error("admitted a batch twice")
	}
	admit(t, l, "a", 0).Release() // a snapshot's
	fresh := admit(t, l, "b", 1)
	first.Release()
	if got := l.due(); got != 0 {
		t.Errorf("due = %d after the old instance's batch, want 0", got)
	}
	fresh.Release()
	if got := l.due(); got != 1 {
		t.Errorf("due = %d, want 1", got)
	}
}

// A collector that takes the rings over sends again what is in our hands. That is passed over, but not done.
func TestANewInstanceIsNotAcknowledgedBeforeWhatTheOldOneLeft(t *testing.T) {
	l := newLedger()
	waits := admit(t, l, "a", 1)
	admit(t, l, "a", 2).Release()
	again := admit(t, l, "b", 1)
	again.Release()
	admit(t, l, "b", 2).Release()
	if got := l.due(); got != 0 {
		t.Errorf("due = %d while the old instance's batch waits, want 0", got)
	}
	waits.Release()
	if got := l.due(); got != 2 || l.open.Len() != 0 {
		t.Errorf("due = %d with %d open, want 2 with none", got, l.open.Len())
	}
	admit(t, l, "b", 3)
	admit(t, l, "c", 1).Release()
	if got := l.due(); got != 0 {
		t.Errorf("due = %d, want 0", got)
	}
}

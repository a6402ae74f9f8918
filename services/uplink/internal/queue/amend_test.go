package queue

import (
	"slices"
	"testing"
	"time"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

// claimed is a finding whose container is known, or is not.
func claimed(n int, state findingv1.MetadataState) *findingv1.Finding {
	f := finding(n, notice)
	f.Workload = &findingv1.Workload{Metadata: state}
	f.Amended = state == findingv1.MetadataState_METADATA_STATE_KNOWN
	return f
}

const (
	pendingState = findingv1.MetadataState_METADATA_STATE_PENDING
	knownState   = findingv1.MetadataState_METADATA_STATE_KNOWN
)

// shows fails the test unless the queue has these findings, each with its container known or not.
func (q *Queue) shows(t *testing.T, want map[string]bool) {
	t.Helper()
	got := listed(t, q, 100, time.Time{})
	for _, stored := range got {
		id := numbers([]Stored{stored})[0]
		if known, ok := want[id]; !ok || known != (stored.Finding.GetWorkload().GetMetadata() == knownState) {
			t.Errorf("List has %v, want %v", stored.Finding, want)
		}
	}
	if len(got) != len(want) {
		t.Errorf("List = %v, want %v", numbers(got), want)
	}
}

func TestAnAmendmentTakesThePlaceOfWhatWasTold(t *testing.T) {
	tests := []struct {
		name string
		// before is done between the finding and its amendment.
		before func(t *testing.T, q *Queue)
		want   []string // to be taken, after both
	}{
		{"that waits", func(*testing.T, *Queue) {}, []string{"2", "1"}},
		{"that was delivered", func(t *testing.T, q *Queue) {
			if err := q.MarkDelivered(t.Context(), take(t, q, 10)); err != nil {
				t.Fatal(err)
			}
		}, []string{"1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			directory := t.TempDir()
			q, stop := start(t, directory, DefaultConfig())
			put(t, q, claimed(1, pendingState), claimed(2, knownState))
			tt.before(t, q)
			if got := put(t, q, claimed(1, knownState)); got != 1 {
				t.Errorf("Put of an amendment stored %d, want 1", got)
			}
			if got := put(t, q, claimed(1, knownState), claimed(1, pendingState), claimed(2, pendingState)); got != 0 {
				t.Errorf("Put of what is known stored %d, want 0", got)
			}
			for range 2 { // as it is, and after a restart
				q.shows(t, map[string]bool{"1": true, "2": true})
				if got := numbers(take(t, q, 10)); !slices.Equal(got, tt.want) {
					t.Errorf("Take = %v, want %v", got, tt.want)
				}
				stop()
				q, stop = start(t, directory, DefaultConfig())
			}
		})
	}
}

func TestAnAmendmentInTheSamePut(t *testing.T) {
	q, _ := start(t, t.TempDir(), DefaultConfig())
	put(t, q, claimed(1, pendingState), claimed(1, knownState), claimed(1, pendingState))
	q.shows(t, map[string]bool{"1": true})
	if got := q.Stats().Pending; got != 1 {
		t.Errorf("%d wait, want 1", got)
	}
}

// The finding that is amended is on its way to the console: its delivery must not mark the amendment as delivered.
func TestAnAmendmentWhileTheFindingIsUnderWay(t *testing.T) {
	q, _ := start(t, t.TempDir(), DefaultConfig())
	put(t, q, claimed(1, pendingState))
	batch := take(t, q, 10)
	put(t, q, claimed(1, knownState))
	if err := q.MarkDelivered(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	q.shows(t, map[string]bool{"1": true})
	if got := take(t, q, 10); len(got) != 1 || !got[0].Finding.GetAmended() {
		t.Errorf("Take = %v, want the amendment", got)
	}
	put(t, q, claimed(1, knownState))
	q.shows(t, map[string]bool{"1": true})
}

func FuzzPlace(f *testing.F) {
	f.Add([]byte{})
	f.Add(place{sequence: 7}.bytes())
	f.Add(place{sequence: 7, rank: 3, pending: true}.bytes())
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0xff, 2})
	f.Fuzz(func(t *testing.T, raw []byte) {
		p := placeOf(raw)
		if again := placeOf(p.bytes()); again != p {
			t.Errorf("placeOf(%x) = %+v, and again %+v", raw, p, again)
		}
	})
}

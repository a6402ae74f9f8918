package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

func open(t *testing.T, directory string) *Journal {
	t.Helper()
	j, err := Open(t.Context(), directory, DefaultRetention(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func batch(from, to int) []*findingv1.Finding {
	var out []*findingv1.Finding
	for n := from; n <= to; n++ {
		out = append(out, &findingv1.Finding{Id: fmt.Sprintf("%032x", n)})
	}
	return out
}

func appended(t *testing.T, j *Journal, node string, from, to int) int {
	t.Helper()
	stored, err := j.Append(t.Context(), node, batch(from, to))
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

// read follows the journal until n records came.
func read(t *testing.T, j *Journal, after uint64, n int) []Record {
	t.Helper()
	enough := errors.New("enough")
	var out []Record
	err := j.Follow(t.Context(), after, func(records []Record) error {
		if out = append(out, records...); len(out) >= n {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	return out
}

func TestAppendFollowReopen(t *testing.T) {
	directory := t.TempDir()
	j := open(t, directory)
	before, err := j.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := appended(t, j, "a", 1, 1000); got != 1000 {
		t.Errorf("Append of a batch stored %d, want 1000", got)
	}
	if got := appended(t, j, "a", 999, 1002); got != 2 {
		t.Errorf("Append of a batch with duplicates stored %d, want 2", got)
	}
	if got := appended(t, j, "a", 1, 1); got != 0 {
		t.Errorf("Append of a duplicate stored %d, want 0", got)
	}
	if got := appended(t, j, "b", 1, 1); got != 1 {
		t.Errorf("Append of another node's same id stored %d, want 1", got)
	}
	j.Close()
	j = open(t, directory)
	after, err := j.State(t.Context())
	if err != nil || after.ID != before.ID || after.Findings != 1003 {
		t.Errorf("State after reopening = %+v, %v, want 1003 findings of journal %s", after, err, before.ID)
	}
	records := read(t, j, 1000, 3)
	if len(records) != 3 || records[0].Sequence != 1001 || records[2].Node != "b" {
		t.Errorf("Follow(1000) = %+v, want 1001 to 1003", records)
	}
}

func TestParallelAppends(t *testing.T) {
	j := open(t, t.TempDir())
	var wg sync.WaitGroup
	for node := range 100 {
		wg.Go(func() {
			if _, err := j.Append(context.Background(), fmt.Sprint("n", node), batch(1, 10)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if state, err := j.State(t.Context()); err != nil || state.Findings != 1000 {
		t.Errorf("State = %+v, %v, want 1000 findings", state, err)
	}
}

func BenchmarkAppend(b *testing.B) {
	j, err := Open(b.Context(), b.TempDir(), DefaultRetention(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	n := 0
	for b.Loop() {
		if _, err := j.Append(b.Context(), "a", batch(n, n+499)); err != nil {
			b.Fatal(err)
		}
		n += 500
	}
	b.ReportMetric(float64(b.N)*500/b.Elapsed().Seconds(), "findings/s")
}

package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

// start opens a queue and runs it until the returned function, or the test, ends.
func start(t *testing.T, directory string, cfg Config) (q *Queue, stop func()) {
	t.Helper()
	q, err := Open(directory, cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = q.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		<-ended
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return q, stop
}

func finding(n int, priority findingv1.Priority) *findingv1.Finding {
	return &findingv1.Finding{
		Id: fmt.Sprintf("%032x", n), Rule: "Terminal in container", Priority: priority,
		Time: timestamppb.New(time.Unix(int64(n), 0)), Output: strings.Repeat("x", 200),
	}
}

func put(t *testing.T, q *Queue, findings ...*findingv1.Finding) int {
	t.Helper()
	stored, err := q.Put(t.Context(), findings)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

func take(t *testing.T, q *Queue, n int) []Stored {
	t.Helper()
	batch, err := q.Take(t.Context(), Bounds{Findings: n, Bytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

// next is what a watcher gets; a test that waits in vain fails.
func next(t *testing.T, w *Watcher) *findingv1.Finding {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stored, err := w.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return stored.Finding
}

func bounded(pending, delivered int) Config {
	cfg := DefaultConfig()
	cfg.Pending, cfg.Delivered = pending, delivered
	return cfg
}

func numbers(findings []Stored) []string {
	var out []string
	for _, stored := range findings {
		out = append(out, strings.TrimLeft(stored.Finding.GetId(), "0"))
	}
	return out
}

func listed(t *testing.T, q *Queue, n int, since time.Time) []Stored {
	t.Helper()
	found, err := q.List(t.Context(), Bounds{Findings: n, Bytes: 1 << 20}, since)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

const notice = findingv1.Priority_PRIORITY_NOTICE

func TestOrderOfArrivalAndDedupe(t *testing.T) {
	directory := t.TempDir()
	q, stop := start(t, directory, DefaultConfig())
	critical := findingv1.Priority_PRIORITY_CRITICAL
	if got := put(t, q, finding(3, notice), finding(1, critical), finding(3, notice), finding(2, notice)); got != 3 {
		t.Errorf("Put stored %d, want 3: one is twice in it", got)
	}
	if got := put(t, q, finding(1, notice)); got != 0 {
		t.Errorf("Put of a known id stored %d, want 0", got)
	}
	first := take(t, q, 2)
	if got, want := numbers(first), []string{"3", "1"}; !slices.Equal(got, want) {
		t.Errorf("Take = %v, want %v", got, want)
	}
	if err := q.MarkDelivered(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	stop()
	q, _ = start(t, directory, DefaultConfig())
	if got, want := numbers(take(t, q, 10)), []string{"2"}; !slices.Equal(got, want) {
		t.Errorf("Take after restart = %v, want %v", got, want)
	}
	if got := put(t, q, finding(3, notice), finding(4, notice)); got != 1 {
		t.Errorf("Put after restart stored %d, want 1", got)
	}
	all := listed(t, q, 10, time.Time{})
	if got, want := numbers(all), []string{"3", "1", "2", "4"}; !slices.Equal(got, want) {
		t.Errorf("List = %v, want %v", got, want)
	}
	if !all[0].Delivered || !all[1].Delivered || all[2].Delivered || all[3].Delivered {
		t.Errorf("List delivered = %v, want the first two", all)
	}
}

func TestListBounds(t *testing.T) {
	q, _ := start(t, t.TempDir(), DefaultConfig())
	for n := range 10 {
		put(t, q, finding(n+1, notice))
	}
	if got, want := numbers(listed(t, q, 3, time.Time{})), []string{"8", "9", "a"}; !slices.Equal(got, want) {
		t.Errorf("List(3) = %v, want the newest %v", got, want)
	}
	if got, want := numbers(listed(t, q, 100, time.Unix(9, 0))), []string{"9", "a"}; !slices.Equal(got, want) {
		t.Errorf("List(since 9) = %v, want %v", got, want)
	}
}

func TestRetentionKeepsTheNewestDelivered(t *testing.T) {
	q, _ := start(t, t.TempDir(), bounded(100, 2))
	for n := range 5 {
		put(t, q, finding(n+1, notice))
	}
	if err := q.MarkDelivered(t.Context(), take(t, q, 4)); err != nil {
		t.Fatal(err)
	}
	if got, want := numbers(listed(t, q, 100, time.Time{})), []string{"3", "4", "5"}; !slices.Equal(got, want) {
		t.Errorf("List = %v, want %v", got, want)
	}
	if got := put(t, q, finding(1, notice)); got != 1 {
		t.Errorf("Put of an id that is not kept any more stored %d, want 1", got)
	}
}

func TestFullQueueDropsTheOldestOfTheLowestSeverityAndSaysSo(t *testing.T) {
	directory := t.TempDir()
	q, stop := start(t, directory, bounded(3, 10))
	put(t, q, finding(1, findingv1.Priority_PRIORITY_DEBUG), finding(2, findingv1.Priority_PRIORITY_CRITICAL))
	put(t, q, finding(3, notice), finding(4, notice), finding(5, findingv1.Priority_PRIORITY_ALERT))
	if got, want := numbers(take(t, q, 10)), []string{"2", "4", "5"}; !slices.Equal(got, want) {
		t.Errorf("Take = %v, want %v", got, want)
	}
	if got := q.Stats(); got.Dropped != 2 || got.LastDropped.IsZero() {
		t.Errorf("Stats = %+v, want 2 dropped", got)
	}
	stop() // the count survives
	q, err := Open(directory, bounded(10, 10), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	q.report = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = q.Run(ctx) }()
	defer func() { cancel(); <-ended; q.Close() }()
	watcher := q.Watch(Bounds{Findings: 10, Bytes: 1 << 20})
	defer watcher.Stop()
	if own := next(t, watcher); own.GetRule() != DroppedRule || !strings.Contains(own.GetOutput(), " 2 findings") {
		t.Errorf("own finding = %v, want rule %q about 2 findings", own, DroppedRule)
	}
}

func TestDroppedWhileUnderWay(t *testing.T) {
	q, _ := start(t, t.TempDir(), bounded(1, 10))
	put(t, q, finding(1, notice))
	batch := take(t, q, 1)
	put(t, q, finding(2, notice))
	if err := q.MarkDelivered(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if got, want := numbers(listed(t, q, 10, time.Time{})), []string{"2"}; !slices.Equal(got, want) {
		t.Errorf("List = %v, want %v", got, want)
	}
}

func TestSlowWatcherIsCutAndNobodyWaits(t *testing.T) {
	q, _ := start(t, t.TempDir(), DefaultConfig())
	slow, quick := q.Watch(Bounds{Findings: 1, Bytes: 1 << 20}), q.Watch(Bounds{Findings: 10, Bytes: 1 << 20})
	defer slow.Stop()
	defer quick.Stop()
	for n := range 3 {
		put(t, q, finding(n+1, notice))
	}
	next(t, slow) // what it had
	if _, err := slow.Next(t.Context()); !errors.Is(err, ErrSlow) {
		t.Errorf("Next after a hole = %v, want ErrSlow", err)
	}
	for n := range 3 {
		if got, want := next(t, quick).GetId(), fmt.Sprintf("%032x", n+1); got != want {
			t.Errorf("quick watcher got %s, want %s", got, want)
		}
	}
}

func TestLargeGroupsAndFindings(t *testing.T) {
	q, _ := start(t, t.TempDir(), DefaultConfig())
	var findings []*findingv1.Finding
	for n := range 1000 {
		f := finding(n+1, notice)
		f.Output = strings.Repeat("y", 3000)
		findings = append(findings, f)
	}
	findings[500].Output = strings.Repeat("z", 900<<10)
	if got := put(t, q, findings...); got != 1000 {
		t.Errorf("Put stored %d, want 1000", got)
	}
	seen := 0
	for seen < 1000 {
		batch := take(t, q, 500)
		seen += len(batch)
		if err := q.MarkDelivered(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	if got := q.Stats(); got.Pending != 0 || got.Delivered != 1000 {
		t.Errorf("Stats = %+v, want 0 pending, 1000 delivered", got)
	}
}

func TestPutRefusesBadIDs(t *testing.T) {
	q, _ := start(t, t.TempDir(), DefaultConfig())
	for _, id := range []string{"", "abc", strings.Repeat("G", 32), strings.Repeat("A", 32), strings.Repeat("a", 33)} {
		if _, err := q.Put(t.Context(), []*findingv1.Finding{{Id: id}}); err == nil {
			t.Errorf("Put(id %q) error = nil, want ErrID", id)
		}
	}
}

func TestCorruptDatabaseIsSetAside(t *testing.T) {
	damage := map[string]func(t *testing.T, queue string){
		"garbage in the manifest": func(t *testing.T, queue string) {
			overwrite(t, filepath.Join(queue, "MANIFEST"))
		},
		"the process died at every attempt": func(t *testing.T, queue string) {
			if err := os.WriteFile(queue+".opening", []byte("5"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, hurt := range damage {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			q, stop := start(t, directory, DefaultConfig())
			put(t, q, finding(1, notice))
			stop()
			hurt(t, filepath.Join(directory, "queue"))
			q, _ = start(t, directory, DefaultConfig())
			if got := q.Stats(); len(got.Warnings) != 1 || got.Pending != 0 {
				t.Errorf("Stats = %+v, want a warning and an empty queue", got)
			}
			if aside, _ := filepath.Glob(filepath.Join(directory, "queue.corrupt-*")); len(aside) != 1 {
				t.Errorf("set aside = %v, want one directory", aside)
			}
			if got := put(t, q, finding(1, notice)); got != 1 {
				t.Errorf("Put into the new queue stored %d, want 1", got)
			}
		})
	}
}

func overwrite(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("garbage ", int(info.Size())/8+1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("0123456789abcdef0123456789abcdef")
	f.Add("\x00")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := parseID(text)
		if err == nil && fmt.Sprintf("%x", id[:]) != text {
			t.Errorf("parseID(%q) = %x", text, id)
		}
	})
}

// BenchmarkPut stores batches as the correlator sends them, from several callers at once.
func BenchmarkPut(b *testing.B) {
	q, err := Open(b.TempDir(), DefaultConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = q.Run(ctx) }()
	defer func() { cancel(); <-ended; q.Close() }()
	const batch = 500
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		findings := make([]*findingv1.Finding, batch)
		for i := range findings {
			findings[i] = finding(n*batch+i+1, notice)
		}
		if _, err := q.Put(ctx, findings); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*batch/b.Elapsed().Seconds(), "findings/s")
}

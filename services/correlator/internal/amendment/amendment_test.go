package amendment

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/delivery"
)

// bench is a book before a sink that keeps what it gets, and the containers that are known.
type bench struct {
	t     *testing.T
	book  *Book
	clock time.Time
	known map[string]bool
	err   error

	mu  sync.Mutex
	got []string
}

func newBench(t *testing.T, cfg Config) *bench {
	t.Helper()
	b := &bench{t: t, clock: time.Unix(1000, 0), known: map[string]bool{}}
	book, err := New(cfg, b, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	book.now = func() time.Time { return b.clock }
	b.book = book
	return b
}

func (b *bench) Put(_ context.Context, item delivery.Item) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return b.err
	}
	b.got = append(b.got, item.Finding.GetId()+item.Finding.GetOutput())
	if item.Done != nil {
		item.Done()
	}
	return nil
}

// tell puts a finding of a container that is not known.
func (b *bench) tell(id string) {
	b.t.Helper()
	b.tellOf(0, id)
}

// tellOf is tell of a cgroup.
func (b *bench) tellOf(cgroup uint64, id string) {
	b.t.Helper()
	late := func() *findingv1.Finding {
		if !b.known[id] {
			return nil
		}
		return &findingv1.Finding{Id: "other", Output: " known"}
	}
	f := &findingv1.Finding{Id: id, Output: " told"}
	if cgroup != 0 {
		f.Event = &eventv1.Event{CgroupId: cgroup}
	}
	if err := b.book.Put(b.t.Context(), delivery.Item{Finding: f, Late: late, Words: " (twice)"}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) settle() {
	b.t.Helper()
	if err := b.book.Settle(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) want(want ...string) {
	b.t.Helper()
	if !slices.Equal(b.got, want) {
		b.t.Errorf("got %q, want %q", b.got, want)
	}
	b.got = nil
}

func TestAmendsOnceWithTheSameID(t *testing.T) {
	b := newBench(t, DefaultConfig())
	b.tell("a")
	b.tell("b")
	if err := b.book.Put(t.Context(), delivery.Item{Finding: &findingv1.Finding{Id: "host"}}); err != nil {
		t.Fatal(err)
	}
	b.settle()
	b.want("a told", "b told", "host")
	b.known["b"] = true
	b.settle()
	b.settle()
	b.want("b known (twice)")
	b.known["a"] = true
	b.clock = b.clock.Add(time.Minute)
	b.settle()
	b.want("a known (twice)")
}

func TestWhatWaitsTooLongStaysAsItWasTold(t *testing.T) {
	b := newBench(t, Config{For: time.Minute, Findings: 10, Bytes: 1000})
	b.tell("a")
	b.clock = b.clock.Add(time.Minute)
	b.settle()
	b.known["a"] = true
	b.settle()
	b.want("a told")
	if len(b.book.kept) != 0 || b.book.all != (share{}) || len(b.book.shares) != 0 {
		t.Errorf("%d kept, %+v in all, %v by cgroup, want none", len(b.book.kept), b.book.all, b.book.shares)
	}
}

func TestBoundsLetGoOfTheOldest(t *testing.T) {
	for name, cfg := range map[string]Config{
		"of findings": {For: time.Minute, Findings: 3, Bytes: 1 << 20}, "of bytes": {For: time.Minute, Findings: 1000, Bytes: 3 * 12},
	} {
		b := newBench(t, cfg)
		for i := range 100 {
			id := fmt.Sprintf("%03d", i)
			b.tell(id)
			b.known[id] = true
		}
		b.got = nil
		if len(b.book.kept) > 3 {
			t.Errorf("%s: %d kept, want 3", name, len(b.book.kept))
		}
		b.settle()
		b.want("097 known (twice)", "098 known (twice)", "099 known (twice)")
	}
}

// B18: a container that makes many findings before anybody claims it pushes out its own, and nobody else's.
func TestB18AFloodPushesOutItsOwn(t *testing.T) {
	for name, cfg := range map[string]Config{
		"of findings": {For: time.Minute, Findings: 10, Bytes: 1 << 20}, "of bytes": {For: time.Minute, Findings: 1000, Bytes: 200},
	} {
		b := newBench(t, cfg)
		b.tellOf(1, "victim")
		b.tellOf(2, "other")
		for i := range 1000 {
			b.tellOf(3, fmt.Sprintf("%03d", i))
			if i%100 == 0 {
				b.settle() // nothing is known yet
			}
		}
		b.got = nil
		if b.book.all.findings > cfg.Findings || b.book.all.bytes > cfg.Bytes {
			t.Errorf("%s: %+v wait, want at most %+v", name, b.book.all, cfg)
		}
		b.known["victim"], b.known["other"], b.known["999"] = true, true, true
		b.settle()
		b.want("victim known (twice)", "other known (twice)", "999 known (twice)")
	}
}

func TestASinkThatFailsIsTold(t *testing.T) {
	b := newBench(t, DefaultConfig())
	b.tell("a")
	b.known["a"], b.err = true, errors.New("full")
	if err := b.book.Settle(t.Context()); !errors.Is(err, b.err) {
		t.Errorf("Settle() error = %v, want the sink's", err)
	}
}

// Findings come from the pipeline and from what folds them, while the pipeline settles.
func TestPutsWhileItSettles(t *testing.T) {
	b := newBench(t, Config{For: time.Hour, Findings: 100_000, Bytes: 1 << 30})
	var putting sync.WaitGroup
	for worker := range 4 {
		putting.Go(func() {
			for i := range 500 {
				f := &findingv1.Finding{Id: fmt.Sprint(worker, "-", i)}
				if err := b.book.Put(t.Context(), delivery.Item{Finding: f, Late: func() *findingv1.Finding { return &findingv1.Finding{} }}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 100 {
		b.settle()
	}
	putting.Wait()
	b.settle()
	times := map[string]int{}
	for _, id := range b.got {
		times[id]++
	}
	for id, n := range times {
		if n != 2 {
			t.Errorf("%s went on %d times, want twice: as it was told, and amended", id, n)
		}
	}
	if len(times) != 2000 {
		t.Errorf("%d findings, want 2000", len(times))
	}
}

func TestValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("Validate() of the default = %v", err)
	}
	err := Config{For: -1}.Validate()
	for _, key := range []string{"amendments.for", "amendments.findings", "amendments.bytes"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("Validate() = %v, want a fault of %s", err, key)
		}
	}
}

package index

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/console/internal/journal"
)

type console struct {
	journal *journal.Journal
	index   *Index
	stop    func()
}

// start opens a real journal and an index that follows it.
func start(t *testing.T, directory string) *console {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	j, err := journal.Open(t.Context(), filepath.Join(directory, "journal"), journal.DefaultRetention(), log)
	if err != nil {
		t.Fatal(err)
	}
	x, err := Open(t.Context(), filepath.Join(directory, "index"), j, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = x.Run(ctx) })
	c := &console{journal: j, index: x}
	c.stop = sync.OnceFunc(func() {
		cancel()
		tasks.Wait()
		if err := errors.Join(x.Close(), j.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(c.stop)
	return c
}

func (c *console) append(t *testing.T, node string, numbers ...int) {
	t.Helper()
	var findings []*findingv1.Finding
	for _, n := range numbers {
		findings = append(findings, &findingv1.Finding{
			Id: fmt.Sprintf("%032x", n), Node: node, Time: timestamppb.New(time.Unix(int64(n), 0)),
		})
	}
	if _, err := c.journal.Append(t.Context(), node, findings); err != nil {
		t.Fatal(err)
	}
}

// wants waits until the query has exactly these findings, as node/number.
func (c *console) wants(t *testing.T, query Query, want ...string) {
	t.Helper()
	var got []string
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		found, err := c.index.Find(t.Context(), query)
		if err == nil {
			got = nil
			for _, one := range found {
				got = append(got, one.Finding.GetNode()+"/"+strings.TrimLeft(one.Finding.GetId(), "0"))
			}
			if slices.Equal(got, want) {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("Find(%+v) = %v, %v, want %v", query, got, err, want)
		}
	}
}

func TestFind(t *testing.T) {
	c := start(t, t.TempDir())
	c.append(t, "a", 3, 1, 2)
	c.append(t, "b", 2)
	c.wants(t, Query{Limit: 10}, "a/3", "b/2", "a/2", "a/1")
	c.wants(t, Query{Limit: 2}, "a/3", "b/2")
	c.wants(t, Query{Limit: 10, Since: time.Unix(2, 0)}, "a/3", "b/2", "a/2")
	c.wants(t, Query{Limit: 10, After: 2, Oldest: true}, "a/2", "b/2")
	known, err := c.index.Known(t.Context(), "b", []string{fmt.Sprintf("%032x", 1), fmt.Sprintf("%032x", 2)})
	if _, has := known[fmt.Sprintf("%032x", 2)]; err != nil || len(known) != 1 || !has {
		t.Errorf("Known = %v, %v, want 2 alone", known, err)
	}
}

func TestClockOfTheFutureIsNotFirstForever(t *testing.T) {
	c := start(t, t.TempDir())
	c.append(t, "liar", 200_000_000_000) // in six thousand years
	c.wants(t, Query{Limit: 1, Since: time.Now().Add(-time.Minute)}, "liar/2e90edd000")
	c.wants(t, Query{Limit: 1, Since: time.Now().Add(time.Minute)})
}

// TestLateDuplicateIsShownOnce writes past the stream's own duplicate check, as a duplicate after its window would be.
func TestLateDuplicateIsShownOnce(t *testing.T) {
	c := start(t, t.TempDir())
	c.append(t, "a", 1)
	c.wants(t, Query{Limit: 10}, "a/1")
	found, err := c.index.Find(t.Context(), Query{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	raw := []byte("\n\x20" + found[0].Finding.GetId()) // field 1: the id
	err = c.index.insert(t.Context(), []journal.Record{{Sequence: 2, Received: time.Now(), Node: "a", Raw: raw}})
	if err != nil {
		t.Fatal(err)
	}
	c.wants(t, Query{Limit: 10}, "a/1")
}

// A finding is told again with the same id when its container is known: it is shown so, once, also by an index that is built anew, and
// nothing undoes it.
func TestAnAmendmentIsShownInThePlaceOfWhatWasTold(t *testing.T) {
	directory := t.TempDir()
	c := start(t, directory)
	id := fmt.Sprintf("%032x", 1)
	tell := func(state findingv1.MetadataState, container string) {
		t.Helper()
		f := &findingv1.Finding{
			Id: id, Node: "a", Time: timestamppb.New(time.Unix(1, 0)), Workload: &findingv1.Workload{Metadata: state, ContainerId: container},
		}
		if _, err := c.journal.Append(t.Context(), "a", []*findingv1.Finding{f}); err != nil {
			t.Fatal(err)
		}
	}
	shows := func(container string, amendable bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			found, err := c.index.Find(t.Context(), Query{Limit: 10})
			known, knownErr := c.index.Known(t.Context(), "a", []string{id})
			if err == nil && knownErr == nil && len(found) == 1 && found[0].Finding.GetWorkload().GetContainerId() == container && known[id] == amendable {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("Find = %v, %v; Known = %v, %v; want container %q", found, err, known, knownErr, container)
			}
		}
	}
	tell(findingv1.MetadataState_METADATA_STATE_PENDING, "")
	shows("", true)
	before, err := c.index.Find(t.Context(), Query{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	tell(findingv1.MetadataState_METADATA_STATE_KNOWN, "c1")
	shows("c1", false)
	// Who follows is told of it.
	if after, err := c.index.Find(t.Context(), Query{Limit: 10, After: before[0].Sequence, Oldest: true}); err != nil || len(after) != 1 {
		t.Errorf("Find after the first = %v, %v, want the amendment", after, err)
	}
	late, err := proto.Marshal(before[0].Finding)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.index.insert(t.Context(), []journal.Record{{Sequence: 3, Received: time.Now(), Node: "a", Raw: late}}); err != nil {
		t.Fatal(err)
	}
	shows("c1", false)
	c.stop()
	if err := os.RemoveAll(filepath.Join(directory, "index")); err != nil {
		t.Fatal(err)
	}
	c = start(t, directory)
	shows("c1", false)
}

func TestIndexIsRebuilt(t *testing.T) {
	damage := map[string]func(path string) error{
		"deleted":        os.Remove,
		"garbage":        func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("garbage", 9000)), 0o600) },
		"empty":          func(path string) error { return os.Truncate(path, 0) },
		"left as it was": func(string) error { return nil },
	}
	for name, hurt := range damage {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			c := start(t, directory)
			c.append(t, "a", 1, 2)
			c.wants(t, Query{Limit: 10}, "a/2", "a/1")
			c.stop()
			if err := hurt(filepath.Join(directory, "index", "index.db")); err != nil {
				t.Fatal(err)
			}
			c = start(t, directory)
			c.append(t, "a", 3)
			c.wants(t, Query{Limit: 10}, "a/3", "a/2", "a/1")
		})
	}
}

func TestIndexOfAnotherJournalIsRebuilt(t *testing.T) {
	directory := t.TempDir()
	c := start(t, directory)
	c.append(t, "a", 1, 2)
	c.wants(t, Query{Limit: 10}, "a/2", "a/1")
	c.stop()
	if err := os.RemoveAll(filepath.Join(directory, "journal")); err != nil {
		t.Fatal(err)
	}
	c = start(t, directory)
	c.append(t, "a", 9)
	c.wants(t, Query{Limit: 10}, "a/9")
}

func TestDatabaseBrokenWhileRunningIsReplaced(t *testing.T) {
	c := start(t, t.TempDir())
	c.append(t, "a", 1)
	c.wants(t, Query{Limit: 10}, "a/1")
	if _, err := c.index.db.Exec("DELETE FROM place"); err != nil {
		t.Fatal(err)
	}
	if err := c.index.replace(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.index.follow(timeout(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("follow error = %v, want the deadline", err)
	}
	c.wants(t, Query{Limit: 10}, "a/1")
}

func timeout(t *testing.T) context.Context {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	t.Cleanup(stop)
	return ctx
}

package queue

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4/y"
	"github.com/prometheus/client_golang/prometheus"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

func TestOpenRefusesANearlyFullDiskAndKeepsTheQueue(t *testing.T) {
	directory := t.TempDir()
	q, stop := start(t, directory, DefaultConfig())
	put(t, q, finding(1, notice))
	stop()
	marker := filepath.Join(directory, "queue.opening")
	if err := os.WriteFile(marker, []byte(strconv.Itoa(attempts)), 0o600); err != nil { // it died of the full disk
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.MinFreeBytes = 1 << 62
	for range attempts + 1 {
		_, err := Open(directory, cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if !errors.Is(err, ErrNoSpace) {
			t.Fatalf("Open error = %v, want ErrNoSpace", err)
		}
		for _, want := range []string{directory, " bytes free", "queue.min_free_bytes"} {
			if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("Open error = %q, want one line with %q", err, want)
			}
		}
	}
	q, _ = start(t, directory, DefaultConfig())
	if got := q.Stats(); got.Pending != 1 || len(got.Warnings) != 0 {
		t.Errorf("Stats with room again = %+v, want the finding and no warning", got)
	}
}

// The same with a real file system, and processes that would die of it.
func TestNearlyFullDiskIsNoCorruption(t *testing.T) {
	directory := t.TempDir()
	if err := syscall.Mount("tmpfs", directory, "tmpfs", 0, "size=128m"); err != nil {
		t.Skipf("mount a small file system: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(directory, syscall.MNT_DETACH) })
	q, stop := start(t, directory, DefaultConfig())
	put(t, q, finding(1, notice))
	stop()
	filler := filepath.Join(directory, "filler")
	if err := os.WriteFile(filler, make([]byte, 128<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the file system: %v, want ENOSPC", err)
	}
	info, err := os.Stat(filler)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filler, info.Size()-16<<10); err != nil { // room to begin, and not to end
		t.Fatal(err)
	}
	for range attempts + 1 {
		child := exec.CommandContext(t.Context(), os.Args[0])
		child.Env = append(os.Environ(), openDirectory+"="+directory)
		if err := child.Run(); err == nil {
			t.Error("Open on a full disk succeeded")
		}
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	q, stop = start(t, directory, DefaultConfig())
	defer stop() // before the file system goes
	if got := q.Stats(); got.Pending != 1 || len(got.Warnings) != 0 {
		t.Errorf("Stats with room again = %+v, want the finding and no warning", got)
	}
}

func TestEnvironmental(t *testing.T) {
	for _, err := range []error{
		&os.PathError{Op: "open", Path: "x", Err: syscall.EACCES},
		y.Wrap(&os.PathError{Op: "open", Path: "x", Err: syscall.ENOSPC}, "while opening memtables"),
		y.Wrapf(syscall.EMFILE, "cannot open %s", "000001.vlog"),
		y.Wrap(syscall.ENFILE, ""), y.Wrap(syscall.EDQUOT, ""), y.Wrap(syscall.EROFS, ""), y.Wrap(syscall.ENOMEM, ""),
		errors.New("read database: write x: no space left on device"), // a panic
	} {
		if !environmental(err) {
			t.Errorf("environmental(%v) = false, want true", err)
		}
	}
	if err := y.Wrap(errors.New("manifest has bad magic"), "open"); environmental(err) {
		t.Errorf("environmental(%v) = true, want false", err)
	}
}

func TestStatsWarnsAsLongAsACorruptQueueIsThere(t *testing.T) {
	directory := t.TempDir()
	_, stop := start(t, directory, DefaultConfig())
	stop()
	overwrite(t, filepath.Join(directory, "queue", "MANIFEST"))
	_, stop = start(t, directory, DefaultConfig())
	stop()
	q, _ := start(t, directory, DefaultConfig()) // not the process that set it aside
	aside, _ := filepath.Glob(filepath.Join(directory, "queue.corrupt-*"))
	if len(aside) != 1 {
		t.Fatalf("set aside = %v, want one directory", aside)
	}
	if got := q.Stats().Warnings; len(got) != 1 || !strings.Contains(got[0], aside[0]) {
		t.Errorf("Warnings after a restart = %q, want one about %s", got, aside[0])
	}
	if err := os.RemoveAll(aside[0]); err != nil {
		t.Fatal(err)
	}
	if got := q.Stats().Warnings; len(got) != 0 {
		t.Errorf("Warnings once it is removed = %q, want none", got)
	}
}

func TestPutIsRefusedWhileTheDiskIsNearlyFull(t *testing.T) {
	q, err := Open(t.TempDir(), DefaultConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	var free atomic.Int64
	q.free = func(string) (int64, error) { return free.Load(), nil }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = q.Run(ctx) }()
	defer func() { cancel(); <-ended; q.Close() }()
	free.Store(64 << 20)
	put(t, q, finding(1, notice))
	free.Store(64<<20 - 1)
	if _, err := q.Put(ctx, []*findingv1.Finding{finding(2, notice)}); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("Put below the floor error = %v, want ErrNoSpace", err)
	}
	if got := q.Stats(); got.Refusing == nil || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "findings are refused") {
		t.Errorf("Stats below the floor = %+v, want it to say that findings are refused", got)
	}
	if err := q.MarkDelivered(ctx, take(t, q, 10)); err != nil { // what is there still goes out
		t.Fatal(err)
	}
	free.Store(64 << 20)
	put(t, q, finding(2, notice))
	if got := q.Stats(); got.Refusing != nil || len(got.Warnings) != 0 || got.Pending != 1 {
		t.Errorf("Stats with room again = %+v, want one pending and no warning", got)
	}
}

// sized is a finding of about so many bytes.
func sized(n int, priority findingv1.Priority, bytes int) *findingv1.Finding {
	f := finding(n, priority)
	f.Output = strings.Repeat("x", bytes)
	return f
}

func TestBytesBoundThePending(t *testing.T) {
	directory := t.TempDir()
	cfg := DefaultConfig()
	cfg.PendingBytes = 250_000
	q, stop := start(t, directory, cfg)
	put(t, q, sized(1, findingv1.Priority_PRIORITY_DEBUG, 20_000), sized(2, findingv1.Priority_PRIORITY_CRITICAL, 100_000))
	put(t, q, sized(3, notice, 100_000), sized(4, notice, 20_000))
	if got := q.Stats(); got.Dropped != 0 || got.Pending != 4 || got.PendingBytes < 240_000 {
		t.Fatalf("Stats within the budget = %+v, want 4 pending of some 240 kB", got)
	}
	put(t, q, sized(5, findingv1.Priority_PRIORITY_ALERT, 100_000)) // the debug one, and of the notices the oldest
	if got, want := numbers(take(t, q, 10)), []string{"2", "4", "5"}; !slices.Equal(got, want) {
		t.Errorf("Take = %v, want %v", got, want)
	}
	before := q.Stats()
	if before.Dropped != 2 || before.PendingBytes > cfg.PendingBytes {
		t.Errorf("Stats = %+v, want 2 dropped and the rest within %d bytes", before, cfg.PendingBytes)
	}
	stop()
	q, _ = start(t, directory, cfg)
	// Badger knows the size of what is in the value log to within a few bytes.
	if got := q.Stats().PendingBytes; got < before.PendingBytes-100 || got > before.PendingBytes+100 {
		t.Errorf("PendingBytes after a restart = %d, want about %d", got, before.PendingBytes)
	}
	put(t, q, sized(6, findingv1.Priority_PRIORITY_ALERT, 100_000))
	if got, want := numbers(take(t, q, 10)), []string{"5", "6"}; !slices.Equal(got, want) {
		t.Errorf("Take after a restart = %v, want %v", got, want)
	}
}

func TestBytesBoundTheDelivered(t *testing.T) {
	cfg := DefaultConfig()
	cfg.DeliveredBytes = 50_000
	q, _ := start(t, t.TempDir(), cfg)
	for n := range 5 {
		put(t, q, sized(n+1, notice, 20_000))
	}
	batch := take(t, q, 10)
	for _, stored := range []Stored{batch[2], batch[0], batch[4], batch[1]} { // also from the middle
		if err := q.MarkDelivered(t.Context(), []Stored{stored}); err != nil {
			t.Fatal(err)
		}
	}
	if got := q.Stats(); got.Delivered != 2 || got.DeliveredBytes > 50_000 || got.DeliveredBytes < 40_000 ||
		got.Pending != 1 || got.PendingBytes != got.DeliveredBytes/2 || got.Dropped != 0 {
		t.Errorf("Stats = %+v, want 2 delivered of some 40 kB and 1 pending of half of that", got)
	}
}

func TestStalledWatcherIsCutByBytes(t *testing.T) {
	q, _ := start(t, t.TempDir(), DefaultConfig())
	bounds := Bounds{Findings: 4096, Bytes: 50_000}
	stalled, reading := q.Watch(bounds), q.Watch(bounds)
	defer stalled.Stop()
	defer reading.Stop()
	for n := range 10 {
		put(t, q, sized(n+1, notice, 20_000))
		next(t, reading) // 200 kB in all, and never more than one behind
	}
	next(t, stalled)
	next(t, stalled)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := stalled.Next(ctx); !errors.Is(err, ErrSlow) {
		t.Errorf("third Next of 20 kB within 50 kB error = %v, want ErrSlow", err)
	}
}

func TestFIFOKeepsSizesBesideSequences(t *testing.T) {
	var f fifo
	want := int64(0)
	for n := uint64(1); n <= 5000; n++ { // sizes differ, so one in the wrong place shows
		f.push(n, uint32(n))
		want += int64(n)
	}
	for _, n := range []uint64{2500, 1, 5000, 2, 4000, 2500} {
		if size, ok := f.remove(n); ok {
			want -= int64(n)
			if uint64(size) != n {
				t.Errorf("remove(%d) = %d, want its size", n, size)
			}
		}
	}
	for f.len() > 0 {
		if f.bytes != want {
			t.Fatalf("bytes = %d with %d left, want %d", f.bytes, f.len(), want)
		}
		want -= int64(f.pop())
	}
	if f.bytes != 0 {
		t.Errorf("bytes of an empty fifo = %d, want 0", f.bytes)
	}
}

package kerneltest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/guard"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
	"github.com/palisade-sec/palisade/services/collector/internal/ring"
)

// shared is the set that tests borrow, one after the other: a VM of the matrix takes most of a minute to load one. A test has one
// of its own (loadWith) if it needs other sizes or system calls, pins of its own, or breaks the set.
var shared lender

// lender loads a set for the first who asks, and keeps it until TestMain ends. Its pins are in a BPF file system that is mounted
// nowhere, so that they are gone with this process, however it ends.
type lender struct {
	lent   sync.Mutex // held by the test that has it
	pins   int        // a descriptor, once it was tried to load
	set    *probe.Set
	failed error
}

// config has a large ring for what tests flood. The urgent one is as small as a node's: nothing on it may be lost.
func (l *lender) config() probe.Config {
	cfg := unbounded() // what a test does is its own rate
	cfg.BulkBytes = 16 << 20
	cfg.Pins = fmt.Sprintf("/proc/self/fd/%d", l.pins)
	return cfg
}

func (l *lender) load() error {
	if l.set != nil || l.failed != nil {
		return l.failed
	}
	if l.pins, l.failed = detachedPins(); l.failed == nil {
		l.set, l.failed = probe.Load(l.config())
	}
	return l.failed
}

func (l *lender) close() error {
	if l.set == nil {
		return nil
	}
	return errors.Join(l.set.Remove(), unix.Close(l.pins))
}

// detachedPins opens a BPF file system of our own.
func detachedPins() (int, error) {
	fs, err := unix.Fsopen("bpf", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("make a BPF file system: %w", err)
	}
	defer unix.Close(fs)
	if err := errors.Join(unix.FsconfigSetString(fs, "mode", "0700"), unix.FsconfigCreate(fs)); err != nil {
		return -1, fmt.Errorf("make a BPF file system: %w", err)
	}
	pins, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make a BPF file system: %w", err)
	}
	return pins, nil
}

// borrow lends the shared set until the test ends. It is as if it had just been loaded: its rings are empty, everything is
// recorded, no guard is in force, no workload is registered. Only counters are not at zero.
func borrow(t *testing.T) *watcher {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	if !shared.lent.TryLock() {
		t.Fatal("the shared set is lent: a test borrows it once, and does not run in parallel")
	}
	t.Cleanup(shared.lent.Unlock)
	if err := shared.load(); err != nil {
		t.Fatalf("Load: %v", err)
	}
	w := newWatcher(shared.set)
	w.checkTier(t)
	drain(t, w.set)
	w.wants(t, everything())
	t.Cleanup(func() { takeBack(t, shared.set) })
	var err error
	if w.lostBefore, err = w.set.Lost(); err != nil {
		t.Fatal(err)
	}
	return w
}

// bounded borrows the set with other rates: a collector that was started with them takes its programs over.
func bounded(t *testing.T, rates probe.Rates) *watcher {
	t.Helper()
	w := borrow(t)
	cfg := shared.config()
	cfg.Rates = rates
	w.set = loadWith(t, cfg).set
	if !w.set.Resumed() {
		t.Fatal("resumed = false, want the shared programs taken over")
	}
	return w
}

// everything is an interest in all there is.
func everything() *collectorv1.Interest {
	all := &collectorv1.Interest{}
	for kind := record.Kind(1); kind < record.Kinds; kind++ {
		all.Classes = append(all.Classes, kind.Class())
	}
	return all
}

// drain reads the rings until they are empty. While the set is not lent it records only the life cycle of processes.
func drain(t *testing.T, set *probe.Set) {
	t.Helper()
	reader, err := ring.NewReader(set, decoder(), func(_ context.Context, _ []*eventv1.Event, done func()) error { done(); return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer startReader(t, reader)()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		urgent, bulk := reader.Waiting()
		if urgent+bulk == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d and %d bytes still wait in the rings", urgent, bulk)
		}
	}
}

// takeBack fails the test if it leaves anything behind that the next one would feel, and makes the set as it was.
func takeBack(t *testing.T, set *probe.Set) {
	t.Helper()
	guards := guard.NewTable(set.Guards())
	if status, err := guards.Status(); err != nil || status.Guards > 0 {
		t.Errorf("%d guards are left in force, %v", status.Guards, err)
	}
	if n := workloadTable(t, set).Len(); n > 0 {
		t.Errorf("%d workloads are left registered", n)
	}
	_, err := guards.Apply(nil)
	workloads := set.Workloads()
	err = errors.Join(
		err,
		set.Guards().Settings.Put(uint32(0), probe.GuardSettings{}),
		clearMap[uint64, uint8](workloads.Registered),
		workloads.Generation.Put(uint32(0), uint64(0)),
		clearMap[uint64, probe.Home](workloads.Homes), // found under numbers that will be given again
		set.WantInterest(&collectorv1.Interest{}),
	)
	if err != nil {
		t.Errorf("take the shared set back: %v", err)
	}
}

func clearMap[K, V any](m *ebpf.Map) error {
	var key K
	var value V
	var keys []K
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		keys = append(keys, key)
	}
	errs := []error{entries.Err()}
	for _, key := range keys {
		if err := m.Delete(key); !errors.Is(err, ebpf.ErrKeyNotExist) { // one that has given way to another
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// What one test did with the shared set is nothing to the next one.
func TestABorrowedSetIsAsLoaded(t *testing.T) {
	path, inode := secret(t, place(t))
	ours := isOpen(uint32(os.Getpid()), inode)
	t.Run("one that leaves records unread, and another interest", func(t *testing.T) {
		w := borrow(t)
		openClose(t, path, unix.O_RDONLY)
		register(t, workloadTable(t, w.set), 77)
		w.guards(t, nameGuard(1, 0, "evil.example"))
		w.wants(t, below(nil, nil))
	})
	t.Run("the next one", func(t *testing.T) {
		w := borrow(t)
		var workloads uint64
		var guards probe.GuardSettings
		err := errors.Join(w.set.Workloads().Generation.Lookup(uint32(0), &workloads), w.set.Guards().Settings.Lookup(uint32(0), &guards))
		if err != nil || workloads != 0 || guards != (probe.GuardSettings{}) {
			t.Errorf("generation of workloads, guards = %d, %+v, %v, want as loaded", workloads, guards, err)
		}
		w.start(t)
		openClose(t, path, unix.O_RDONLY)
		awaitAll(t, w)
		if n := w.count(ours); n != 1 {
			t.Errorf("%d opens told, want its own", n)
		}
	})
}

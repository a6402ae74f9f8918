package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
)

// A collector that is killed after it has told of losses, and before that was acknowledged, is followed by one that tells of them again
// by the same names. Who counts each name once finds: what was received and what is missing are what was issued.
func TestKilledTellsOfEachLossByOneName(t *testing.T) {
	pins := mountPins(t)
	first, dir := command(t, row(), "probes: {pins: "+pins+", rates: {urgent_per_second: 100, burst_seconds: 1}}")
	conn, err := rpc.Dial(filepath.Join(dir, "collector.sock"), uid)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	subscriber := newSubscriber()
	subscriber.hold = 200 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	subscribed := make(chan error, 1)
	go func() { subscribed <- subscriber.run(ctx, conn) }()
	defer func() { cancel(); <-subscribed }()

	collector := again(t, first)
	subscriber.await(t, "the first event", func() bool { return subscriber.starts == 1 })
	cgroup, id := ownCgroup(t)
	load := startLoad(ctx, &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: cgroup})
	die := func() {
		t.Helper()
		starts := subscriber.startsSeen()
		if err := errors.Join(collector.Process.Kill(), ended(collector.Wait())); err != nil {
			t.Fatal(err)
		}
		collector = again(t, first)
		subscriber.await(t, "the next collector", func() bool { return subscriber.starts > starts })
	}
	for range 5 {
		before := subscriber.missing(id)
		subscriber.await(t, "losses, not acknowledged yet", func() bool { return subscriber.missingLocked(id) > before })
		die()
	}
	issued := load.stop(t)
	all := func() bool { return len(subscriber.runs)+int(subscriber.missingLocked(id)) >= issued } //nolint:gosec // some thousands
	subscriber.await(t, "all that was issued", all)
	die()                       // whatever is not acknowledged is told again
	time.Sleep(2 * time.Second) // several looks at the counters: what is told wrongly comes now
	subscriber.mu.Lock()
	defer subscriber.mu.Unlock()
	missing := subscriber.missingLocked(id)
	if got := len(subscriber.runs) + int(missing); got != issued { //nolint:gosec // some thousands
		t.Errorf("%d execs received + %d missing, want the %d issued", len(subscriber.runs), missing, issued)
	}
	if missing == 0 || subscriber.retold == 0 {
		t.Errorf("%d missing, %d losses told again: nothing was tried", missing, subscriber.retold)
	}
	if len(subscriber.altered) > 0 || len(subscriber.epochs) != 1 {
		t.Errorf("altered %v in epochs %v, want nothing altered in one epoch", subscriber.altered, subscriber.epochs)
	}
	for at, l := range subscriber.losses {
		if at.ring == 0 || at.position == 0 || l.class == "any" || l.cgroup == id && l.reason != eventv1.LossReason_LOSS_REASON_RATE {
			t.Errorf("loss %+v at %v, want a name, a class and the rate as its reason", l, at)
		}
	}
	t.Logf("%d issued = %d received + %d missing; %d of %d losses were told again", issued, len(subscriber.runs), missing, subscriber.retold, len(subscriber.losses))
}

func (s *subscriber) startsSeen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.starts
}

// missing is how many execs of a cgroup are told to be missing.
func (s *subscriber) missing(cgroup uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.missingLocked(cgroup)
}

func (s *subscriber) missingLocked(cgroup uint64) (sum uint64) {
	for _, l := range s.losses {
		if l.class == "exec" && l.cgroup == cgroup {
			sum += l.count
		}
	}
	return sum
}

// ownCgroup makes a cgroup, open as a file, for one test. Its id is its inode's number.
func ownCgroup(t *testing.T) (fd int, id uint64) {
	t.Helper()
	hierarchy := "/sys/fs/cgroup"
	var fs unix.Statfs_t
	if err := unix.Statfs(hierarchy, &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		hierarchy += "/unified" // v1 beside it
	}
	directory, err := os.MkdirTemp(hierarchy, "palisade-killed-")
	if err != nil {
		t.Fatal(err)
	}
	opened, err := os.Open(directory)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(opened.Close(), os.Remove(directory)); err != nil {
			t.Errorf("remove cgroup: %v", err)
		}
	})
	var stat unix.Stat_t
	if err := unix.Fstat(int(opened.Fd()), &stat); err != nil { //nolint:gosec // a descriptor
		t.Fatal(err)
	}
	return int(opened.Fd()), stat.Ino //nolint:gosec // a descriptor
}

package queue

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

// crashDirectory makes the test binary a writer that is to be killed.
const crashDirectory = "PALISADE_TEST_CRASH_DIRECTORY"

// openDirectory makes the test binary open a queue and exit.
const openDirectory = "PALISADE_TEST_OPEN_DIRECTORY"

const (
	crashRounds  = 12
	crashCallers = 4
)

func TestMain(m *testing.M) {
	if directory := os.Getenv(crashDirectory); directory != "" {
		write(directory)
	}
	if directory := os.Getenv(openDirectory); directory != "" {
		if _, err := Open(directory, DefaultConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// write stores findings without end, also delivers some, and prints the number of each that was acknowledged.
func write(directory string) {
	first, _ := strconv.Atoi(os.Getenv(crashDirectory + "_FIRST"))
	q, err := Open(directory, DefaultConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	ctx := context.Background()
	go func() { _ = q.Run(ctx) }()
	for caller := range crashCallers {
		go func() {
			for n := first + caller; ; n += crashCallers {
				if _, err := q.Put(ctx, []*findingv1.Finding{finding(n, notice)}); err != nil {
					os.Exit(1)
				}
				fmt.Println(n) // one write(2): the parent sees whole lines
			}
		}()
	}
	for {
		batch, err := q.Take(ctx, Bounds{Findings: 20, Bytes: 1 << 20})
		if err == nil {
			err = q.MarkDelivered(ctx, batch[:len(batch)/2+1])
		}
		if err != nil {
			os.Exit(1)
		}
	}
}

// TestKillLosesNothingAcknowledged kills a real writer with SIGKILL again and again.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	directory := t.TempDir()
	acknowledged := map[string]bool{}
	next := 1
	for round := range crashRounds {
		next = crash(t, directory, next, 50+round*40, acknowledged)
	}
	q, _ := start(t, directory, DefaultConfig())
	if stats := q.Stats(); len(stats.Warnings) != 0 {
		t.Fatalf("Stats = %+v, want no warning", stats)
	}
	found, err := q.List(t.Context(), Bounds{Findings: 1 << 20, Bytes: 1 << 30}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	for _, stored := range found {
		times[stored.Finding.GetId()]++
	}
	for id := range acknowledged {
		if times[id] != 1 {
			t.Errorf("finding %s is there %d times, want once", id, times[id])
		}
	}
	t.Logf("%d findings acknowledged over %d kills, %d stored", len(acknowledged), crashRounds, len(found))
}

// crash runs a writer, kills it after so many acknowledgements, and returns the next number.
func crash(t *testing.T, directory string, first, after int, acknowledged map[string]bool) int {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), crashDirectory+"="+directory, crashDirectory+"_FIRST="+strconv.Itoa(first))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	last := first
	lines := bufio.NewScanner(out)
	for seen := 0; lines.Scan(); seen++ {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Errorf("child says %q", lines.Text())
			continue
		}
		acknowledged[fmt.Sprintf("%032x", n)] = true
		last = max(last, n)
		if seen == after {
			_ = child.Process.Kill() // what it had printed by then is still read
		}
	}
	if err := child.Wait(); err == nil {
		t.Fatal("child ended by itself")
	}
	return last + 1 + crashCallers
}

// TestCorruptTableEndsInAFreshQueue damages what Badger answers with a panic in a goroutine of its own: the process
// dies, is restarted, and after a few times begins anew.
func TestCorruptTableEndsInAFreshQueue(t *testing.T) {
	directory := t.TempDir()
	q, stop := start(t, directory, DefaultConfig())
	put(t, q, finding(1, notice))
	stop()
	tables, err := filepath.Glob(filepath.Join(directory, "queue", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("tables = %v, %v, want some", tables, err)
	}
	for _, table := range tables {
		overwrite(t, table)
	}
	for range attempts {
		child := exec.CommandContext(t.Context(), os.Args[0])
		child.Env = append(os.Environ(), openDirectory+"="+directory)
		if child.Run() == nil {
			break
		}
	}
	q, _ = start(t, directory, DefaultConfig())
	if got := put(t, q, finding(1, notice)); got != 1 {
		t.Errorf("Put into the new queue stored %d, want 1", got)
	}
	if aside, _ := filepath.Glob(filepath.Join(directory, "queue.corrupt-*")); len(aside) != 1 {
		t.Errorf("set aside = %v, want one directory", aside)
	}
}

package flight

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

// files are a bench's, of a suffix, in order.
func (b *bench) files(suffix string) []string {
	b.t.Helper()
	names, err := filepath.Glob(filepath.Join(b.directory, "*"+suffix))
	if err != nil {
		b.t.Fatal(err)
	}
	return names
}

func finding(at time.Time, incident string, priority findingv1.Priority) *findingv1.Finding {
	return &findingv1.Finding{Time: timestamp(at), Priority: priority, Incident: &findingv1.Incident{Id: incident}}
}

func TestWhatIsAroundAGraveFindingIsSetAside(t *testing.T) {
	directory := t.TempDir()
	small := func(c *Config) { c.WorkloadBytes, c.TotalBytes = minBytes, 1<<20 }
	b := newBench(t, directory, small)
	victim := container("victim")
	random := rand()
	b.note(victim, b.open("/long-before"))
	b.pass(time.Minute)
	b.note(victim, b.open("/before"))
	b.write()
	b.pass(20 * time.Second)
	b.note(victim, b.exec("/attack"))
	b.Pin(victim, 1, finding(b.clock, "grave", findingv1.Priority_PRIORITY_CRITICAL))
	b.Pin(victim, 1, finding(b.clock, "light", findingv1.Priority_PRIORITY_WARNING))
	b.pass(5 * time.Second)
	b.note(victim, b.open("/after"))
	b.write()
	for range 300 { // its own flood, which pushes all of it out of the ring
		b.pass(time.Second)
		for range 100 {
			b.note(victim, b.open("/flood/"+random()))
		}
		b.write()
	}
	if a, err := b.ask(Query{Workload: "victim"}); err != nil || strings.Contains(strings.Join(a.paths, " "), "/attack") {
		t.Fatalf("the attack is still in the ring (%v): the flood is too small", err)
	}
	want := []string{"/before", "exec /attack", "/after"}
	q := Query{Incident: "grave", Until: began.Add(time.Minute + 25*time.Second + time.Millisecond)}
	b.want(q, want...)
	if len(b.files(incidentSuffix)) == 0 || len(b.pins) != 1 {
		t.Errorf("files %v of %d incidents, want those of one", b.files(incidentSuffix), len(b.pins))
	}
	checkSizes(t, b)
	b.finish(t.Context())
	b = newBench(t, directory, small)
	b.clock = began.Add(10 * time.Minute)
	b.want(q, want...)
	q.Workload = "victim"
	b.want(q, want...)
	b.clock = time.Now().Add(b.cfg.Incidents.Age + time.Hour)
	b.write()
	if left := b.files(""); len(left) != 0 {
		t.Errorf("after its age there is still %v", left)
	}
}

// A slice is bounded, and so are those of one workload: it can push out neither others' nor its own first.
func TestSlicesAreBounded(t *testing.T) {
	b := newBench(t, t.TempDir(), func(c *Config) {
		c.WorkloadRate, c.TotalRate, c.Incidents.Bytes, c.Incidents.TotalBytes = 20_000, 20_000, minBytes, 4*minBytes
	})
	random := rand()
	noise := func(w *findingv1.Workload, incident string) {
		for range 8 {
			for range 3000 { // as much as waits in memory
				b.note(w, b.open("/"+random()))
			}
			b.flush(t.Context())
		}
		b.Pin(w, 1, finding(b.clock, incident, findingv1.Priority_PRIORITY_CRITICAL))
		for range 20 {
			b.pass(time.Second)
			b.write()
		}
	}
	b.note(container("other"), b.exec("/other"))
	b.Pin(container("other"), 1, finding(b.clock, "others", findingv1.Priority_PRIORITY_CRITICAL))
	noise(container("noisy"), "first")
	for i := range 5 {
		noise(container("noisy"), fmt.Sprint("more", i))
	}
	for incident, want := range map[string]string{"others": "exec /other", "first": "!limit 0"} {
		a, err := b.ask(Query{Incident: incident})
		if err != nil || !strings.Contains(strings.Join(a.paths, "\n"), want) {
			t.Errorf("slice of %s = %d events, %v, want %q among them", incident, len(a.paths), err, want)
		}
	}
	if _, pinned := b.sizes(); pinned > 4*minBytes || b.notes.refused == 0 || len(b.Warnings()) == 0 {
		t.Errorf("%d bytes set aside, %d refused, warnings %q; want at most %d, some and one", pinned, b.notes.refused, b.Warnings(), 4*minBytes)
	}
	checkSizes(t, b)
}

// Who makes up workloads without end cannot make what waits to be set aside grow without end.
func TestIncidentsAreBounded(t *testing.T) {
	b := newBench(t, t.TempDir(), nil)
	for n := range maxPins + 100 {
		b.Pin(container(fmt.Sprint("c", n/10)), 1, finding(b.clock, fmt.Sprint("i", n), findingv1.Priority_PRIORITY_CRITICAL))
	}
	for n := range maxPinsOfOne {
		b.Pin(container("one"), 1, finding(b.clock, fmt.Sprint("one", n), findingv1.Priority_PRIORITY_CRITICAL))
	}
	if len(b.pins) != maxPins || b.notes.refused != 100+maxPinsOfOne {
		t.Errorf("%d incidents and %d refused, want %d and %d", len(b.pins), b.notes.refused, maxPins, 100+maxPinsOfOne)
	}
	b.pass(time.Hour)
	for range maxPins {
		b.write()
	}
	if len(b.pins) != 0 {
		t.Errorf("%d incidents of which nothing is recorded are still there", len(b.pins))
	}
}

// Done on a real file system that is full.
func TestAFullDiskIsToldOfAndRecoveredFrom(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a small file system")
	}
	directory := t.TempDir()
	if err := syscall.Mount("none", directory, "tmpfs", 0, "size=512k"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(directory, syscall.MNT_DETACH) })
	b := newBench(t, directory, nil)
	b.note(container("c1"), b.open("/before"))
	b.write()
	filler := filepath.Join(directory, "filler")
	if err := os.WriteFile(filler, bytes.Repeat([]byte{1}, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk: %v, want ENOSPC", err)
	}
	random := rand()
	lost := 0
	for range 3 {
		for range 500 { // more than fits into the last block
			b.note(container("c1"), b.open("/"+random()))
			b.note(container("c2"), b.open("/"+random()))
			lost++
		}
		b.write()
		b.pass(time.Second)
	}
	if w := strings.Join(b.Warnings(), "\n"); !strings.Contains(w, "no space left") {
		t.Errorf("Warnings() = %q, want that there is no space", w)
	}
	if changes := b.Changes(); len(changes) != 1 || !changes[0].Bad || !strings.Contains(changes[0].Text, "no space left") {
		t.Errorf("Changes() = %+v, want one", changes)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	b.note(container("c1"), b.open("/after"))
	b.note(container("c2"), b.open("/after"))
	b.want(Query{Workload: "c1"}, "/before", "!cut 0", fmt.Sprintf("!disk %d", lost), "/after")
	b.want(Query{Workload: "c2"}, fmt.Sprintf("!disk %d", lost), "/after")
	if changes := b.Changes(); len(changes) != 1 || changes[0].Bad || !strings.Contains(changes[0].Text, strconv.Itoa(2*lost)) || len(b.Warnings()) != 0 {
		t.Errorf("Changes() = %+v and warnings %q, want that it is over and %d are missing", changes, b.Warnings(), 2*lost)
	}
	checkSizes(t, b)
}

func TestDamagedFilesAreSetAsideOrReadUpToThere(t *testing.T) {
	directory := t.TempDir()
	b := newBench(t, directory, nil)
	for i := range 3 {
		for n := range 10 {
			b.note(container("c1"), b.open(fmt.Sprintf("/%d-%d", i, n)))
			b.write()
		}
		b.finish(t.Context())
		b.pass(time.Second)
	}
	files := b.files(ringSuffix)
	raw, err := os.ReadFile(files[1])
	if err != nil || len(files) != 3 {
		t.Fatalf("files = %v, %v, want three", files, err)
	}
	damage := func(path string, at int) {
		t.Helper()
		changed := bytes.Clone(raw)
		changed[at] ^= 0x55
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	damage(files[0], 20)         // in the first block: nobody knows whose it is
	damage(files[1], len(raw)/2) // somewhere in the middle
	for name, text := range map[string]string{"00000000000000ff.events": "", "00000000000000fe.events": "not a segment, and long enough", "notes.txt": "not ours"} {
		if err := os.WriteFile(filepath.Join(b.directory, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(b.directory, "00000000000000fc.events"), 0o700); err != nil {
		t.Fatal(err)
	}
	b = newBench(t, directory, nil)
	b.clock = time.Now()
	a, err := b.ask(Query{Workload: "c1"})
	got := strings.Join(a.paths, " ")
	if err != nil || strings.Contains(got, "/0-") || !strings.Contains(got, "/1-0") || strings.Contains(got, "/1-9") || !strings.Contains(got, "!damaged 0 /2-0") || !strings.Contains(got, "/2-9") {
		t.Errorf("Read() = %q, %v, want the second up to the damage and all of the third", got, err)
	}
	if aside := b.files(corruptSuffix); len(aside) != 3 || len(b.Warnings()) != 1 {
		t.Errorf("set aside = %v, warnings %q, want three and one", aside, b.Warnings())
	}
	if _, err := os.Stat(filepath.Join(b.directory, "notes.txt")); err != nil {
		t.Errorf("a file that is not ours is gone: %v", err)
	}
	if _, err := os.Stat(filepath.Join(b.directory, "00000000000000ff.events")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty file is still there: %v", err)
	}
	b.note(container("c1"), b.open("/goes-on"))
	if a, err := b.ask(Query{Workload: "c1"}); err != nil || a.paths[len(a.paths)-1] != "/goes-on" {
		t.Errorf("then = %v, %v, want that recording goes on", a.paths, err)
	}
}

// crashDirectory makes the test binary a recorder that is to be killed.
const crashDirectory = "PALISADE_TEST_FLIGHT_DIRECTORY"

func TestMain(m *testing.M) {
	if directory := os.Getenv(crashDirectory); directory != "" {
		recordForEver(directory)
	}
	os.Exit(m.Run())
}

// recordForEver notes events with numbers as fast as it can, and prints the number of the last that is written.
func recordForEver(directory string) {
	cfg := DefaultConfig()
	cfg.WorkloadBytes, cfg.TotalBytes, cfg.WorkloadRate, cfg.TotalRate = 64<<20, 256<<20, maxRate, maxRate
	r, err := Open(cfg, directory, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	first, _ := strconv.Atoi(os.Getenv(crashDirectory + "_FIRST"))
	w := container("c1")
	for n := first; ; n++ {
		r.Note(w, 1, run, &eventv1.Event{
			Time: timestamp(time.Now()), BoottimeNs: uint64(n), Ring: 2, Position: uint64(n),
			Kind: &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{File: &eventv1.File{Path: fmt.Sprint("/", n)}}},
		})
		if n%100 == 0 {
			r.flush(context.Background())
			fmt.Println(n)
		}
	}
}

// What was written before a kill -9 is there after it, in order, once, and it is said that it was cut off.
func TestAKilledRecorderKeepsWhatItWrote(t *testing.T) {
	directory := t.TempDir()
	next := 0
	const kills = 8
	for round := range kills {
		child := exec.CommandContext(t.Context(), os.Args[0])
		child.Env = append(os.Environ(), crashDirectory+"="+directory, crashDirectory+"_FIRST="+strconv.Itoa(next))
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for seen := 0; lines.Scan(); seen++ {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Fatalf("child says %q", lines.Text())
			}
			if next = n; seen == 3+round*5 {
				_ = child.Process.Kill() // what it had printed by then is still read
			}
		}
		if err := child.Wait(); err == nil {
			t.Fatal("child ended by itself")
		}
	}
	b := newBench(t, directory, nil)
	b.clock = time.Now()
	a, err := b.ask(Query{Workload: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	cuts, last := 0, -1
	for _, line := range a.paths {
		n := 0
		if line == "!cut 0" {
			cuts++
		} else if _, err := fmt.Sscanf(line, "/%d", &n); err != nil || n > last+1 && last <= next {
			t.Fatalf("%q after event %d of %d, want the next", line, last, next)
		} else {
			last = max(last, n)
		}
	}
	if last < next || cuts != kills {
		t.Errorf("last event %d and %d cuts, want at least %d and %d", last, cuts, next, kills)
	}
	t.Logf("%d events over %d kills", len(a.paths), kills)
}

package flight

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

var began = time.Unix(1_700_000_000, 0)

// bench is a recorder whose rounds the test calls, on a clock of the test's.
type bench struct {
	*Recorder
	t         testing.TB
	directory string
	clock     time.Time
	position  uint64
}

func newBench(t testing.TB, directory string, change func(*Config)) *bench {
	t.Helper()
	cfg := DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	r, err := Open(cfg, directory, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatalf("Open() = %v", err)
	}
	b := &bench{Recorder: r, t: t, directory: r.directory, clock: began}
	r.now = func() time.Time { return b.clock }
	return b
}

func (b *bench) pass(d time.Duration) { b.clock = b.clock.Add(d) }

// write is a round of the writing goroutine.
func (b *bench) write() { b.round(context.Background()) }

func container(id string) *findingv1.Workload {
	return &findingv1.Workload{
		ContainerId: id, ContainerName: "name-" + id, Metadata: findingv1.MetadataState_METADATA_STATE_KNOWN, Labels: map[string]string{"large": "label"},
	}
}

var host = &findingv1.Workload{Metadata: findingv1.MetadataState_METADATA_STATE_HOST}

func timestamp(at time.Time) *timestamppb.Timestamp { return timestamppb.New(at) }

// event is one now, with a place of its own.
func (b *bench) event() *eventv1.Event {
	b.position += 64
	return &eventv1.Event{
		BoottimeNs: uint64(b.clock.Sub(began)) + 1e9, Time: timestamppb.New(b.clock), Process: &eventv1.ProcessKey{Pid: 7}, Comm: "app",
		Ring: 2, Position: b.position,
	}
}

func (b *bench) open(path string) *eventv1.Event {
	e := b.event()
	e.Kind = &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{File: &eventv1.File{Path: path}}}
	return e
}

func (b *bench) exec(path string) *eventv1.Event {
	e := b.event()
	e.Ring = urgent
	e.Kind = &eventv1.Event_Exec{Exec: &eventv1.Exec{Exe: &eventv1.File{Path: path}, Argv: []string{path}}}
	return e
}

var run = Run{BootID: "boot", Instance: "one", Epoch: "rings"}

func (b *bench) note(w *findingv1.Workload, events ...*eventv1.Event) {
	for _, e := range events {
		b.Note(w, 5005, run, e)
	}
}

// answer is what a query is answered with.
type answer struct {
	whose *correlatorv1.RecordedWorkload
	paths []string // of events, "!reason n" for a gap
	end   *correlatorv1.ReadEnd
}

func pathOf(e *eventv1.Event) string {
	if exec := e.GetExec(); exec != nil {
		return "exec " + exec.GetExe().GetPath()
	}
	return e.GetFileOpen().GetFile().GetPath()
}

// ask reads while nothing is written.
func (b *bench) ask(q Query) (answer, error) {
	b.t.Helper()
	if q.Limit == 0 {
		q.Limit = 100_000
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // the writing goroutine's part
		select {
		case done := <-b.syncs:
			b.write()
			close(done)
		case <-ctx.Done():
		}
	}()
	var a answer
	err := b.Read(ctx, q, func(r *correlatorv1.ReadEventsResponse) error {
		switch kind := r.GetAnswer().(type) {
		case *correlatorv1.ReadEventsResponse_Workload:
			a.whose = kind.Workload
		case *correlatorv1.ReadEventsResponse_Event:
			a.paths = append(a.paths, pathOf(kind.Event))
		case *correlatorv1.ReadEventsResponse_Gap:
			a.paths = append(a.paths, fmt.Sprintf("!%s %d", word(kind.Gap.GetReason()), kind.Gap.GetEvents()))
		case *correlatorv1.ReadEventsResponse_End:
			a.end = proto.CloneOf(kind.End)
		}
		return nil
	})
	return a, err
}

func (b *bench) want(q Query, want ...string) {
	b.t.Helper()
	a, err := b.ask(q)
	if err != nil {
		b.t.Fatalf("Read(%+v) = %v", q, err)
	}
	if got := strings.Join(a.paths, "\n"); got != strings.Join(want, "\n") {
		b.t.Errorf("Read(%+v) =\n%s\nwant\n%s", q, got, strings.Join(want, "\n"))
	}
	if a.whose == nil || a.end == nil {
		b.t.Errorf("Read(%+v) does not say whose events they are (%v) and how it ended (%v)", q, a.whose, a.end)
	}
}

func TestEventsComeBackByWorkloadTimeAndKind(t *testing.T) {
	b := newBench(t, t.TempDir(), nil)
	one, two := container("1111aaaa"), container("1111bbbb")
	b.note(one, b.exec("/app"), b.open("/a"))
	b.note(two, b.open("/other"))
	b.note(host, b.open("/host"))
	b.note(&findingv1.Workload{Metadata: findingv1.MetadataState_METADATA_STATE_PENDING}, b.open("/stray"))
	b.write()
	b.pass(time.Minute)
	b.note(one, b.open("/b"), b.exec("/late")) // still in memory
	since := began.Add(time.Minute)
	b.want(Query{Workload: "1111aaaa"}, "exec /app", "/a", "/b", "exec /late")
	b.want(Query{Workload: "name-1111aaaa", Since: since}, "/b", "exec /late")
	b.want(Query{Workload: "1111a", Until: since}, "exec /app", "/a")
	b.want(Query{Workload: "1111a", Kinds: field.KindExec}, "exec /app", "exec /late")
	b.want(Query{Workload: "1111b"}, "/other")
	b.want(Query{Workload: "host"}, "/host")
	b.want(Query{Workload: "cgroup 5005"}, "/stray")
	if _, err := b.ask(Query{Workload: "1111"}); !errors.Is(err, ErrSeveral) || !strings.Contains(err.Error(), "1111aaaa, 1111bbbb") {
		t.Errorf("Read(1111) = %v, want ErrSeveral with both", err)
	}
	if _, err := b.ask(Query{Workload: "2"}); !errors.Is(err, ErrUnknown) {
		t.Errorf("Read(2) = %v, want ErrUnknown", err)
	}
	if a, err := b.ask(Query{Workload: "1111a", Limit: 3}); err != nil || len(a.paths) != 3 || !a.end.GetMore() || !a.end.GetLast().AsTime().Equal(since) {
		t.Errorf("Read(limit 3) = %v, %v, want 3 events and that there are more", a, err)
	}
	if a, _ := b.ask(Query{Workload: "1111a", Limit: 4}); a.end.GetMore() {
		t.Error("Read(limit 4) says that there are more than the 4 that there are")
	}
	list := b.List()
	if len(list) != 4 || list[0].GetWorkload().GetContainerId() != "1111aaaa" || list[0].GetEvents() != 4 || list[0].GetWorkload().GetLabels() != nil {
		t.Errorf("List() = %v, want 4 and what was written last first, without labels", list)
	}
}

func TestARestartGoesOnAndFilesAreOurs(t *testing.T) {
	directory := t.TempDir()
	evil := container("../../etc/passwd")
	b := newBench(t, directory, nil)
	b.note(evil, b.open("/a"), b.open("/b"))
	b.write()
	b.note(evil, b.open("/c"))
	b.finish(t.Context())
	b = newBench(t, directory, nil)
	b.position = 1000
	b.note(evil, b.open("/d"))
	b.want(Query{Workload: "../../etc/passwd"}, "/a", "/b", "/c", "/d")
	names, err := os.ReadDir(b.directory)
	if err != nil || len(names) != 2 {
		t.Fatalf("files = %v, %v, want two", names, err)
	}
	for _, name := range names {
		info, err := name.Info()
		if _, ok := parseName(name.Name(), ringSuffix); !ok || err != nil || info.Mode() != 0o600 {
			t.Errorf("file %s of mode %v, want a number and 0600", name.Name(), info.Mode())
		}
	}
	if info, err := os.Stat(b.directory); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory has mode %v, want 0700", info.Mode())
	}
}

// After a restart the collector sends again what was not acknowledged.
func TestAnEventThatComesAgainIsSentOnce(t *testing.T) {
	directory := t.TempDir()
	b := newBench(t, directory, nil)
	events := []*eventv1.Event{b.open("/a"), b.open("/b"), b.open("/c")}
	b.note(container("c1"), events...)
	b.finish(t.Context())
	b = newBench(t, directory, nil)
	b.Note(container("c1"), 1, Run{BootID: "boot", Instance: "two", Epoch: "rings"}, events[1])
	b.Note(container("c1"), 1, Run{BootID: "boot", Instance: "two", Epoch: "rings"}, events[2])
	b.Note(container("c1"), 1, Run{BootID: "boot", Instance: "three", Epoch: "other"}, events[0])
	b.want(Query{Workload: "c1"}, "/a", "/b", "/c", "/a")
}

func TestAWorkloadKeepsItsLastBytes(t *testing.T) {
	b := newBench(t, t.TempDir(), func(c *Config) { c.WorkloadBytes, c.WorkloadRate, c.TotalRate = minBytes, 10_000, 10_000 })
	random := rand()
	for i := range 200 {
		for range 100 { // names that do not compress
			b.note(container("flood"), b.open(fmt.Sprintf("/%d/%s", i, random())))
		}
		b.note(container("quiet"), b.open("/quiet"))
		b.write()
		b.pass(time.Second)
	}
	flood, err := b.ask(Query{Workload: "flood"})
	if err != nil {
		t.Fatal(err)
	}
	last := flood.paths[len(flood.paths)-1]
	if !strings.HasPrefix(last, "/199/") || len(flood.paths) > 19_000 || strings.HasPrefix(flood.paths[0], "/0/") {
		t.Errorf("%d events from %s to %s, want the last of 20000", len(flood.paths), flood.paths[0], last)
	}
	if quiet, err := b.ask(Query{Workload: "quiet"}); err != nil || len(quiet.paths) != 200 {
		t.Errorf("%d events of the quiet one (%v), want all 200", len(quiet.paths), err)
	}
	for _, m := range b.List() {
		if m.GetBytes() > minBytes {
			t.Errorf("%s has %d bytes, want at most %d", m.GetWorkload().GetContainerId(), m.GetBytes(), minBytes)
		}
	}
	checkSizes(t, b)
}

// checkSizes compares what the recorder believes with what is on disk.
func checkSizes(t *testing.T, b *bench) {
	t.Helper()
	entries, err := os.ReadDir(b.directory)
	if err != nil {
		t.Fatal(err)
	}
	var onDisk int64
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		onDisk += (&segment{size: info.Size()}).allocated()
	}
	rings, pinned := b.sizes()
	if onDisk != rings+pinned {
		t.Errorf("%d bytes are on disk, the recorder counts %d", onDisk, rings+pinned)
	}
}

// B15: who fills the disk pushes out its own.
func TestB15AFloodPushesOutNobodyElse(t *testing.T) {
	const limit = 1 << 20
	b := newBench(t, t.TempDir(), func(c *Config) {
		c.WorkloadBytes, c.TotalBytes, c.WorkloadRate, c.TotalRate = minBytes, limit, 200, 1000
	})
	random := rand()
	b.note(container("quiet"), b.exec("/attack"))
	b.write()
	for i := range 40 {
		for range 300 {
			for f := range 8 {
				b.note(container(fmt.Sprint("flood", f)), b.open("/"+random()))
			}
		}
		if i%10 == 9 {
			b.note(container("quiet"), b.exec(fmt.Sprint("/", i)), b.open("/x"))
		}
		b.write()
		b.pass(time.Second)
	}
	b.want(Query{Workload: "quiet"}, "exec /attack", "exec /9", "/x", "exec /19", "/x", "exec /29", "/x", "exec /39", "/x")
	if rings, _ := b.sizes(); rings > limit {
		t.Errorf("%d bytes on disk, want at most %d", rings, limit)
	}
	flood, err := b.ask(Query{Workload: "flood1"})
	if err != nil || !strings.Contains(strings.Join(flood.paths, "\n"), "!rate ") {
		t.Errorf("a flooder's ring does not tell what was not taken (%v)", err)
	}
	if all, err := b.ask(Query{Workload: "flood1", Until: began.Add(time.Second)}); err == nil && strings.Contains(strings.Join(all.paths, ""), "/") {
		t.Error("the flooders' first second is still there: they did not flood the disk")
	}
	checkSizes(t, b)
}

// What is not taken is counted to the last, and said where it is missing.
func TestWhatIsOverTheRateIsCounted(t *testing.T) {
	b := newBench(t, t.TempDir(), func(c *Config) { c.WorkloadRate, c.TotalRate = 100, 100 })
	for range 1000 {
		b.note(container("c1"), b.open("/a"))
	}
	for range 20 { // what is urgent still is
		b.note(container("c1"), b.exec("/sh"))
	}
	a, err := b.ask(Query{Workload: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	events, execs, missed := 0, 0, 0
	for _, line := range a.paths {
		n := 0
		switch _, err := fmt.Sscanf(line, "!rate %d", &n); {
		case err == nil:
			missed += n
		case line == "exec /sh":
			execs++
		default:
			events++
		}
	}
	if events+missed != 1000 || execs != 20 || events < 100 || b.List()[0].GetMissed() != uint64(missed) {
		t.Errorf("%d events, %d execs, %d missed (List says %d), want 1000 together and 20", events, execs, missed, b.List()[0].GetMissed())
	}
	b.pass(10 * time.Second)
	b.note(container("c1"), b.open("/again"))
	if a, err := b.ask(Query{Workload: "c1", Since: b.clock}); err != nil || len(a.paths) != 1 {
		t.Errorf("after a pause = %q, %v, want the event", a.paths, err)
	}
}

// Nothing waits for the disk: what does not fit in memory is counted.
func TestWhatTheDiskIsTooSlowForIsCounted(t *testing.T) {
	b := newBench(t, t.TempDir(), func(c *Config) { c.WorkloadRate, c.TotalRate = 1e6, 1e6 })
	argv := make([]string, 16_000)
	put := 0
	for range 100 {
		e := b.exec("/sh")
		e.GetExec().Argv = argv
		b.note(container("c1"), e)
		put++
	}
	if b.waiting > maxRingWaiting+(1<<20) {
		t.Errorf("%d bytes wait, want at most %d and one event", b.waiting, maxRingWaiting)
	}
	b.note(container("c2"), b.exec("/other"))
	a, err := b.ask(Query{Workload: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	var missed int
	for _, line := range a.paths {
		n := 0
		if _, err := fmt.Sscanf(line, "!behind %d", &n); err == nil {
			missed, put = missed+n, put+1 // the gap is a line too
		}
	}
	if missed == 0 || len(a.paths)+missed != put {
		t.Errorf("%d lines and %d missed, want %d", len(a.paths), missed, put)
	}
	b.want(Query{Workload: "c2"}, "exec /other")
	if b.waiting != 0 {
		t.Errorf("%d bytes wait after writing", b.waiting)
	}
}

func TestAgeAndCountOfWorkloads(t *testing.T) {
	b := newBench(t, t.TempDir(), nil)
	b.note(container("old"), b.open("/a"))
	b.write()
	b.pass(30 * time.Minute)
	for i := range maxRings + 3 {
		b.note(container(fmt.Sprint("c", i)), b.open("/a"))
		if i%500 == 0 {
			b.write()
			b.pass(time.Second)
		}
	}
	b.write()
	if got := len(b.List()); got > maxRings {
		t.Errorf("%d workloads, want at most %d", got, maxRings)
	}
	if _, err := b.ask(Query{Workload: "old"}); !errors.Is(err, ErrUnknown) {
		t.Errorf("the workload written longest ago: %v, want it gone", err)
	}
	b.pass(2 * time.Hour)
	b.write()
	b.pass(2 * time.Minute)
	b.write()
	if got, rings := len(b.List()), len(b.rings); got != 0 || rings != 0 {
		t.Errorf("%d workloads and %d rings after two hours, want none", got, rings)
	}
	if names, _ := filepath.Glob(b.directory + "/*"); len(names) != 0 {
		t.Errorf("%d files are left", len(names))
	}
}

// rand gives texts that do not compress, the same each time.
func rand() func() string {
	state := uint64(88172645463325252)
	return func() string {
		var text strings.Builder
		for range 4 {
			state ^= state << 13
			state ^= state >> 7
			state ^= state << 17
			fmt.Fprintf(&text, "%016x", state)
		}
		return text.String()
	}
}

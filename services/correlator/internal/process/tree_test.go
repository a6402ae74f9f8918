package process

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

func key(k Key) *eventv1.ProcessKey {
	return &eventv1.ProcessKey{Pid: k.PID, StartBoottimeNs: k.StartBoottimeNs}
}

func exec(k, parent Key, exe string, argv ...string) *eventv1.Event {
	return &eventv1.Event{
		BoottimeNs: k.StartBoottimeNs + 1,
		Process:    key(k), Parent: key(parent), CgroupId: 7, Namespaces: &eventv1.Namespaces{Mnt: 1, Pid: 2},
		Credentials: &eventv1.Credentials{Uid: 1000},
		Kind:        &eventv1.Event_Exec{Exec: &eventv1.Exec{Exe: &eventv1.File{Path: exe}, Argv: argv, Cwd: "/srv"}},
	}
}

func existing(k, parent Key, exe string) *eventv1.Event {
	e := exec(k, parent, exe, exe)
	e.Kind = &eventv1.Event_Existing{Existing: e.GetExec()}
	return e
}

func fork(parent, child Key) *eventv1.Event {
	return &eventv1.Event{Process: key(parent), CgroupId: 7, Kind: &eventv1.Event_Fork{Fork: &eventv1.Fork{Child: key(child), ChildCgroupId: 7}}}
}

func exit(k Key) *eventv1.Event {
	return &eventv1.Event{Process: key(k), CgroupId: 7, Kind: &eventv1.Event_Exit{Exit: &eventv1.Exit{}}}
}

func open(k, parent Key) *eventv1.Event {
	return &eventv1.Event{
		Process: key(k), Parent: key(parent), CgroupId: 7, Comm: "comm", Namespaces: &eventv1.Namespaces{Mnt: 1, Pid: 2},
		Kind: &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{}},
	}
}

// lineage is the executables from a process up.
func lineage(p *field.Process) []string {
	var exes []string
	for ; p != nil; p = p.Parent {
		exes = append(exes, p.Exe)
	}
	return exes
}

var (
	initKey = Key{PID: 1, StartBoottimeNs: 1}
	shKey   = Key{PID: 10, StartBoottimeNs: 100}
	catKey  = Key{PID: 11, StartBoottimeNs: 110}
)

func TestLineageInAnyOrder(t *testing.T) {
	events := []*eventv1.Event{
		existing(initKey, Key{}, "/init"),
		fork(initKey, shKey), exec(shKey, initKey, "/bin/sh", "sh"),
		fork(shKey, catKey), exec(catKey, shKey, "/bin/cat", "cat", "/etc/shadow"),
	}
	for seed := range uint64(200) {
		tree := New(10)
		order := rand.New(rand.NewPCG(seed, 1)).Perm(len(events)) //nolint:gosec // a shuffle
		// A process's own fork and exec come in order; what others do comes at any time.
		for _, i := range order {
			tree.Apply(events[i])
		}
		got := lineage(tree.Get(catKey).Image)
		if want := []string{"/bin/cat", "/bin/sh", "/init"}; !slices.Equal(got, want) {
			t.Fatalf("order %v: lineage = %q, want %q", order, got, want)
		}
	}
}

func TestForkInheritsAndLaterExecOfTheParentChangesNothing(t *testing.T) {
	tree := New(10)
	tree.Apply(exec(shKey, initKey, "/bin/sh", "sh", "-c", "x"))
	tree.Apply(fork(shKey, catKey))
	child := tree.Get(catKey).Image
	want := field.Process{
		Key: catKey, Name: "sh", Exe: "/bin/sh", Argv: []string{"sh", "-c", "x"}, Cwd: "/srv/", UID: 1000,
		Parent: tree.Get(shKey).Image,
	}
	if diff := cmp.Diff(&want, child); diff != "" {
		t.Errorf("child (-want +got):\n%s", diff)
	}
	// The parent makes itself look harmless after the fork.
	disguise := exec(shKey, initKey, "/usr/bin/apt", "apt")
	disguise.BoottimeNs = catKey.StartBoottimeNs + 5
	tree.Apply(disguise)
	tree.Apply(exec(catKey, shKey, "/bin/cat", "cat"))
	if got, want := lineage(tree.Get(catKey).Image)[:2], []string{"/bin/cat", "/bin/sh"}; !slices.Equal(got, want) {
		t.Errorf("lineage = %q, want %q", got, want)
	}
}

func TestPidReuse(t *testing.T) {
	tree := New(10)
	old, young := Key{PID: 50, StartBoottimeNs: 100}, Key{PID: 50, StartBoottimeNs: 200}
	tree.Apply(exec(old, initKey, "/old"))
	tree.Apply(exec(young, initKey, "/young")) // the old one's exit was lost
	if got := tree.Live(50); got == nil || got.Key != young {
		t.Errorf("Live(50) = %v, want the young one", got)
	}
	if got := tree.Apply(open(old, initKey)).Image.Exe; got != "/old" {
		t.Errorf("late event of the old one: exe = %q, want /old", got)
	}
	if got := tree.Live(50); got.Key != young {
		t.Errorf("Live(50) after the late event = %v, want the young one", got.Key)
	}
	tree.Apply(exit(old))
	tree.Apply(fork(initKey, old)) // later still
	if got := tree.Live(50); got.Key != young {
		t.Errorf("Live(50) after the late fork = %v, want the young one", got.Key)
	}
	tree.Apply(exit(young))
	if got := tree.Live(50); got != nil {
		t.Errorf("Live(50) after the exit = %v, want nil", got.Key)
	}
}

func TestEvictionNeverTakesLive(t *testing.T) {
	const keep = 100
	tree := New(keep)
	for i := range uint32(1000) {
		tree.Apply(exec(Key{PID: 100 + i, StartBoottimeNs: 5}, initKey, "/daemon"))
	}
	for i := range uint64(100_000) {
		k := Key{PID: 5000, StartBoottimeNs: 10 + i}
		tree.Apply(fork(Key{PID: 100, StartBoottimeNs: 5}, k))
		tree.Apply(exit(k))
	}
	for i := range uint32(1000) {
		if tree.Live(100+i) == nil {
			t.Fatalf("live process %d was forgotten", 100+i)
		}
	}
	if all, exited := tree.Len(); exited != keep || all > 1000+keep+1 {
		t.Errorf("Len() = %d, %d, want at most %d, %d", all, exited, 1000+keep+1, keep)
	}
	last := Key{PID: 5000, StartBoottimeNs: 10 + 99_999}
	if got := tree.Apply(open(last, initKey)).Image.Exe; got != "/daemon" {
		t.Errorf("late event of the last exited: exe = %q, want /daemon", got)
	}
}

func TestSnapshotEndsWhatItDoesNotName(t *testing.T) {
	tree := New(10)
	tree.Apply(exec(shKey, initKey, "/bin/sh"))
	tree.Apply(exec(catKey, shKey, "/bin/cat"))
	tree.BeginSnapshot()
	tree.Apply(existing(shKey, initKey, "/bin/sh"))
	tree.EndSnapshot()
	if tree.Live(shKey.PID) == nil || tree.Live(catKey.PID) != nil {
		t.Errorf("live after the snapshot: sh %v, cat %v, want only sh", tree.Live(shKey.PID), tree.Live(catKey.PID))
	}
	tree.Apply(open(catKey, shKey)) // it was forked while the snapshot was taken
	if tree.Live(catKey.PID) == nil {
		t.Error("cat's own event did not revive it")
	}
	if _, exited := tree.Len(); exited != 1 { // init, known only by name
		t.Errorf("exited = %d, want 1", exited)
	}
}

func TestSnapshotCorrectsAProgramWhoseExecWasLost(t *testing.T) {
	at := func(e *eventv1.Event, boottime uint64) *eventv1.Event {
		e.BoottimeNs = boottime
		return e
	}
	tests := []struct {
		name  string
		event *eventv1.Event
		want  string
	}{
		{"an earlier event is still the old program's", at(open(shKey, initKey), 1999), "/bin/sh"},
		{"a later event is the new one's", at(open(shKey, initKey), 2001), "/bin/evil"},
		{"a late exec is believed", at(exec(shKey, initKey, "/bin/third"), 1500), "/bin/third"},
	}
	for _, tt := range tests {
		tree := New(10)
		tree.Apply(exec(shKey, initKey, "/bin/sh"))
		tree.BeginSnapshot()
		found := at(existing(shKey, initKey, "/bin/evil"), 2000)
		entry := tree.Apply(found)
		tree.EndSnapshot()
		if shown := entry.Shown(found); shown.Exe != "/bin/evil" || shown.Parent == nil {
			t.Errorf("%s: the snapshot's event shows %v, want /bin/evil with its parent", tt.name, shown)
		}
		if got := tree.Apply(tt.event).Image; got.Exe != tt.want || got.Parent == nil {
			t.Errorf("%s: image = %v, want %s with its parent", tt.name, got, tt.want)
		}
	}
}

func TestCutArgumentsAreMarked(t *testing.T) {
	tree := New(10)
	long := exec(shKey, initKey, "/bin/sh", "sh", strings.Repeat("ä", 3000))
	if entry := tree.Apply(long); !entry.Image.ArgvCut || Whole(entry.Image, long).ArgvCut {
		t.Errorf("cut = %v in the tree, %v in the event, want true, false", entry.Image.ArgvCut, Whole(entry.Image, long).ArgvCut)
	}
	truncated := exec(catKey, shKey, "/bin/cat", "cat")
	truncated.GetExec().ArgvTruncated = true
	if !tree.Apply(truncated).Image.ArgvCut {
		t.Error("what the kernel cut is not marked")
	}
}

func TestLongChainsAreCut(t *testing.T) {
	tree := New(10)
	k := Key{PID: 2, StartBoottimeNs: 1}
	tree.Apply(exec(k, initKey, "/loop"))
	for i := range uint64(10_000) {
		next := Key{PID: 2 + uint32(i%2), StartBoottimeNs: 2 + i}
		tree.Apply(fork(k, next))
		tree.Apply(exit(k))
		k = next
	}
	got := len(lineage(tree.Get(k).Image))
	if got < keepDepth || got > maxDepth+1 {
		t.Errorf("chain of %d images, want %d to %d", got, keepDepth, maxDepth+1)
	}
}

func TestRingIsNotClosed(t *testing.T) {
	tree := New(10)
	a, b := Key{PID: 1, StartBoottimeNs: 1}, Key{PID: 2, StartBoottimeNs: 2}
	tree.Apply(open(a, b))
	tree.Apply(open(b, a))
	tree.Apply(fork(b, a))
	if got := len(lineage(tree.Get(b).Image)); got > 2 {
		t.Errorf("chain of %d images, want at most 2", got)
	}
}

func TestArguments(t *testing.T) {
	tree := New(10)
	long := strings.Repeat("x", 4097) + "payload"
	e := exec(shKey, initKey, "/bin/sh", "sh", long, "tail")
	entry := tree.Apply(e)
	if got := Whole(entry.Image, e).Argv; len(got) != 3 || got[1] != long {
		t.Errorf("Whole() = %d arguments, want all 3", len(got))
	}
	if got := len(strings.Join(entry.Image.Argv, " ")); got > maxArgvBytes {
		t.Errorf("kept %d bytes of arguments, want at most %d", got, maxArgvBytes)
	}
	short := exec(catKey, shKey, "/bin/cat", "cat")
	if image := tree.Apply(short).Image; Whole(image, short) != image {
		t.Error("Whole() copied an image that has all")
	}
}

func TestEventsDoNotAllocate(t *testing.T) {
	tree := New(10)
	tree.Apply(exec(shKey, initKey, "/bin/sh"))
	e := open(shKey, initKey)
	if got := testing.AllocsPerRun(1000, func() { tree.Apply(e) }); got != 0 {
		t.Errorf("Apply(open) allocates %v times, want 0", got)
	}
}

func TestMemoryIsFlat(t *testing.T) {
	tree := New(4096)
	parent := Key{PID: 1, StartBoottimeNs: 1}
	tree.Apply(exec(parent, Key{}, "/init"))
	lifetimes := func(from, n uint64) {
		for i := from; i < from+n; i++ {
			k := Key{PID: uint32(2 + i%30_000), StartBoottimeNs: 2 + i}
			tree.Apply(fork(parent, k))
			tree.Apply(exec(k, parent, fmt.Sprintf("/bin/%d", i%100), "x"))
			tree.Apply(exit(k))
		}
	}
	lifetimes(0, 100_000)
	before := heap()
	lifetimes(100_000, 1_000_000)
	after := heap()
	if grown := int64(after) - int64(before); grown > 2<<20 {
		t.Errorf("heap grew by %d bytes over 1e6 lifetimes, want none (from %d)", grown, before)
	}
	t.Logf("heap %d KiB before, %d KiB after 1e6 lifetimes", before>>10, after>>10)
	runtime.KeepAlive(tree)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func BenchmarkApplyOpen(b *testing.B) {
	tree := New(10)
	tree.Apply(exec(shKey, initKey, "/bin/sh"))
	e := open(shKey, initKey)
	for b.Loop() {
		tree.Apply(e)
	}
}

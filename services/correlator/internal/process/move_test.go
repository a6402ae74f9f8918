package process

import (
	"slices"
	"testing"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

// begetters is the executables from a process up, by who started whom.
func begetters(p *field.Process) (exes []string) {
	for ; p != nil; p = p.StartedBy() {
		exes = append(exes, p.Exe)
	}
	return exes
}

func openAt(k, parent Key, boottime uint64) *eventv1.Event {
	e := open(k, parent)
	e.BoottimeNs = boottime
	return e
}

// orphan is a tree of init, a shell, and a daemon whose shell has ended.
func orphan() *Tree {
	tree := New(10)
	tree.Apply(existing(initKey, Key{}, "/init"))
	tree.Apply(fork(initKey, shKey))
	tree.Apply(exec(shKey, initKey, "/bin/sh"))
	tree.Apply(fork(shKey, catKey))
	tree.Apply(exec(catKey, shKey, "/bin/daemon"))
	tree.Apply(exit(shKey))
	return tree
}

func TestAnOrphansParentIsWhoTookItOver(t *testing.T) {
	tree := orphan()
	before := tree.Get(catKey).Image
	image := tree.Apply(openAt(catKey, initKey, 500)).Image
	if got, want := lineage(image), []string{"/bin/daemon", "/init"}; !slices.Equal(got, want) {
		t.Errorf("parents = %q, want %q", got, want)
	}
	if got, want := begetters(image), []string{"/bin/daemon", "/bin/sh", "/init"}; !slices.Equal(got, want) {
		t.Errorf("who started it = %q, want %q", got, want)
	}
	if got := lineage(before); got[1] != "/bin/sh" {
		t.Errorf("an event that waits has the parents %q, want what they were", got)
	}
	if got := tree.Parent(tree.Get(catKey)); got == nil || got.Key != shKey {
		t.Errorf("Parent() = %v, want who started it", got)
	}
	// An event from before comes late.
	if got := lineage(tree.Apply(openAt(catKey, shKey, 400)).Image); got[1] != "/init" {
		t.Errorf("parents after an old event = %q, want them as they are", got)
	}
	// Another program, and a child, keep both.
	next := exec(catKey, initKey, "/bin/next")
	next.BoottimeNs = 600
	child := Key{PID: 12, StartBoottimeNs: 700}
	tree.Apply(next)
	tree.Apply(fork(catKey, child))
	if got, want := lineage(tree.Get(child).Image), []string{"/bin/next", "/bin/next", "/init"}; !slices.Equal(got, want) {
		t.Errorf("child's parents = %q, want %q", got, want)
	}
	if got, want := begetters(tree.Get(child).Image), []string{"/bin/next", "/bin/next", "/bin/sh", "/init"}; !slices.Equal(got, want) {
		t.Errorf("who started the child = %q, want %q", got, want)
	}
	compareTrees(t, "described and made again", again(tree, 10), tree)
}

// runC starts a container's first process as its own sibling.
func TestASiblingsParentIsItsStartersParent(t *testing.T) {
	tree := New(10)
	tree.Apply(existing(initKey, Key{}, "/shim"))
	tree.Apply(fork(initKey, shKey))
	tree.Apply(exec(shKey, initKey, "/runc"))
	tree.Apply(fork(shKey, catKey))
	image := tree.Apply(exec(catKey, initKey, "/app")).Image
	if got, want := lineage(image), []string{"/app", "/shim"}; !slices.Equal(got, want) {
		t.Errorf("parents = %q, want %q", got, want)
	}
	if got, want := begetters(image), []string{"/app", "/runc", "/shim"}; !slices.Equal(got, want) {
		t.Errorf("who started it = %q, want %q", got, want)
	}
}

func TestADamagedParentClosesNoRing(t *testing.T) {
	tree := orphan()
	tree.Apply(openAt(initKey, catKey, 300))
	tree.Apply(openAt(catKey, initKey, 400))
	tree.Apply(openAt(initKey, catKey, 500))
	tree.Apply(openAt(shKey, catKey, 600))
	for entry := range tree.entries.all() {
		if n := len(lineage(entry.Image)); n > 4 {
			t.Errorf("%v has %d parents", entry.Key, n)
		}
		if n := len(begetters(entry.Image)); n > 4 {
			t.Errorf("%v was started by %d", entry.Key, n)
		}
	}
}

func TestALongAncestryIsCutAndSaysSo(t *testing.T) {
	tree := New(10)
	k := Key{PID: 2, StartBoottimeNs: 1}
	tree.Apply(exec(k, initKey, "/loop"))
	ends := func() *field.Process {
		last := tree.Get(k).Image
		for last.StartedBy() != nil {
			last = last.StartedBy()
		}
		return last
	}
	for i := range uint64(maxDepth - 1) {
		next := Key{PID: 3 + uint32(i), StartBoottimeNs: 2 + i}
		tree.Apply(fork(k, next))
		k = next
	}
	if got := len(begetters(tree.Get(k).Image)); got != maxDepth+1 || ends().AncestorsCut {
		t.Errorf("%d images, cut %v, want %d and not cut: init, and %d more", got, ends().AncestorsCut, maxDepth+1, maxDepth)
	}
	// Daemons that fork and end in turn, each taken over by init.
	for i := range uint64(10_000) {
		next := Key{PID: 1000 + uint32(i%2), StartBoottimeNs: 1000 + 2*i}
		tree.Apply(fork(k, next))
		tree.Apply(exit(k))
		k = next
		tree.Apply(openAt(k, initKey, 1001+2*i))
	}
	if got := len(begetters(tree.Get(k).Image)); got < keepDepth || got > maxDepth+1 || !ends().AncestorsCut {
		t.Errorf("%d images, cut %v, want %d to %d, and cut", got, ends().AncestorsCut, keepDepth, maxDepth+1)
	}
	if got := len(lineage(tree.Get(k).Image)); got != 2 {
		t.Errorf("%d images by parents, want the process and init", got)
	}
}

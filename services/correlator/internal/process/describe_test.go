package process

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

// again is a tree made of another's description.
func again(tree *Tree, keep int) *Tree {
	made := New(keep)
	for _, e := range tree.Describe() {
		made.Apply(e)
	}
	return made
}

// story is what led to a process, and where it is, as text.
func story(entry *Entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "cgroup %d mnt %d pid %d placed %v known %v live %v:",
		entry.CgroupID, entry.MntNS, entry.PIDNS, entry.Placed, entry.known, entry.state == alive)
	for image := entry.Image; image != nil; image = image.StartedBy() {
		flat := *image
		flat.Parent, flat.Creator = nil, nil
		flat.AncestorsCut = false // events have no word for it
		fmt.Fprintf(&b, " <- %+v", flat)
		if image.Creator != nil {
			fmt.Fprintf(&b, " (parent now %v %s)", image.Parent.Key, image.Parent.Exe)
		}
	}
	return b.String()
}

func compareTrees(t *testing.T, what string, got, want *Tree) {
	t.Helper()
	for entry := range want.entries.all() {
		key := entry.Key
		other := got.Get(key)
		if other == nil {
			t.Errorf("%s: %v is missing", what, key)
			continue
		}
		if story(other) != story(entry) {
			t.Errorf("%s: %v\n got %s\nwant %s", what, key, story(other), story(entry))
		}
	}
	for entry := range got.entries.all() {
		// A forgotten ancestor may be remembered again; it lives no more.
		if want.Get(entry.Key) == nil && entry.state == alive {
			t.Errorf("%s: %v lives, and was not there", what, entry.Key)
		}
	}
	for pid := range want.entries.last {
		if (got.Live(pid) == nil) != (want.Live(pid) == nil) {
			t.Errorf("%s: Live(%d) = %v, want %v", what, pid, got.Live(pid), want.Live(pid))
		}
	}
}

// random makes a tree with a history: programs that are replaced before and after children are forked, exits, pids that come again.
func random(seed uint64, keep int) *Tree {
	r := rand.New(rand.NewPCG(seed, 7)) //nolint:gosec // a test's choice
	tree := New(keep)
	tree.Apply(existing(initKey, Key{}, "/init"))
	alive, clock := []Key{initKey}, uint64(10)
	for range 300 {
		clock += 10
		k := alive[r.IntN(len(alive))]
		switch n := r.IntN(10); {
		case n < 4:
			child := Key{PID: 2 + uint32(r.IntN(40)), StartBoottimeNs: clock}
			alive = slices.DeleteFunc(alive, func(other Key) bool { return other.PID == child.PID && other != k })
			if child.PID == k.PID {
				continue
			}
			tree.Apply(fork(k, child))
			alive = append(alive, child)
		case n < 7:
			e := exec(k, Key{}, fmt.Sprintf("/bin/%d", clock), "x", fmt.Sprint(clock))
			e.BoottimeNs, e.CgroupId = clock, uint64(r.IntN(5))
			tree.Apply(e)
		case n < 8:
			tree.Apply(open(Key{PID: 500 + uint32(clock), StartBoottimeNs: clock}, k)) // its fork was lost
		case k != initKey:
			tree.Apply(exit(k))
			alive = slices.DeleteFunc(alive, func(other Key) bool { return other == k })
		}
	}
	return tree
}

func TestDescriptionMakesTheSameTree(t *testing.T) {
	for seed := range uint64(60) {
		const keep = 30
		tree := random(seed, keep)
		// What is remembered again of the forgotten needs room.
		compareTrees(t, fmt.Sprintf("seed %d", seed), again(tree, 10*keep), tree)
		if t.Failed() {
			return
		}
	}
}

func TestDescriptionKeepsWhatAParentRanBefore(t *testing.T) {
	tree := New(1)
	grandchild := Key{PID: 12, StartBoottimeNs: 120}
	tree.Apply(exec(shKey, initKey, "/bin/evil"))
	tree.Apply(fork(shKey, catKey))
	disguise := exec(shKey, initKey, "/usr/bin/apt")
	disguise.BoottimeNs = catKey.StartBoottimeNs + 5
	tree.Apply(disguise)
	tree.Apply(fork(catKey, grandchild))
	tree.Apply(exit(catKey))
	tree.Apply(exit(Key{PID: 99, StartBoottimeNs: 99})) // pushes the other one out
	if tree.Get(catKey) != nil {
		t.Fatal("the parent is remembered, and this test shows nothing")
	}
	got := lineage(again(tree, 10).Get(grandchild).Image)
	if want := "[/bin/evil /bin/evil /bin/evil ]"; fmt.Sprint(got) != want {
		t.Errorf("lineage = %q, want %s", got, want)
	}
}

// Whatever package field adds to a process, a recording must carry.
func TestDescriptionHasEveryFieldOfAProcess(t *testing.T) {
	image := &field.Process{}
	v := reflect.ValueOf(image).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString(fmt.Sprintf("/value/%d/", i))
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Uint32, reflect.Uint64:
			f.SetUint(uint64(i) + 1000)
		case reflect.Int64, reflect.Int32:
			f.SetInt(int64(i) + 1000)
		case reflect.Slice:
			f.Set(reflect.ValueOf([]string{"argument", "two"}))
		case reflect.Struct, reflect.Pointer: // Key and Parent
		default:
			t.Fatalf("%s is a %s: this test does not know it", v.Type().Field(i).Name, f.Kind())
		}
	}
	image.Key, image.Name = shKey, "name"
	image.Exe = "/value/name"
	tree := New(10)
	tree.Apply(&eventv1.Event{Process: key(shKey)})
	tree.Get(shKey).Image, tree.Get(shKey).known = image, true
	if got, want := story(again(tree, 10).Get(shKey)), story(tree.Get(shKey)); got != want {
		t.Errorf("described and made again\n got %s\nwant %s", got, want)
	}
}

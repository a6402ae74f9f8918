package process

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

// reached counts the images that the tree holds on to, by whatever way.
func reached(tree *Tree) int {
	seen := map[*field.Process]bool{}
	var visit func(*field.Process)
	visit = func(image *field.Process) {
		if image == nil || seen[image] {
			return
		}
		seen[image] = true
		visit(image.Parent)
		visit(image.Creator)
	}
	for entry := range tree.entries.all() {
		visit(entry.Image)
	}
	return len(seen)
}

// A family of subreapers, each of which takes a grandchild over, leaves it a child to start, and ends: nobody's parents and nobody's
// starters are many, but from the one's parents to their starters, to the parents of those, goes a way without an end.
func TestNoCrossingOfAncestriesIsKeptForEver(t *testing.T) {
	tree := New(10)
	tree.Apply(existing(initKey, Key{}, "/init"))
	clock := uint64(10)
	begin := func(parent Key) Key {
		clock++
		child := Key{PID: 2 + uint32(clock), StartBoottimeNs: clock}
		tree.Apply(fork(parent, child))
		return child
	}
	takenOver := func(k, by Key) {
		clock++
		tree.Apply(openAt(k, by, clock))
	}
	reaper := begin(initKey)
	tree.Apply(exec(reaper, initKey, "/reaper"))
	var early int
	for round := range 5000 {
		between := begin(reaper)
		taken := begin(between)
		tree.Apply(exit(between))
		takenOver(taken, reaper)
		next := begin(taken)
		tree.Apply(exit(reaper))
		tree.Apply(exit(taken))
		takenOver(next, initKey)
		reaper = next
		switch n := reached(tree); {
		case round == 500:
			early = n
		case n > 4*maxDepth && n > 2*early && round > 500:
			t.Fatalf("round %d: the tree holds %d images, and held %d after 500 rounds", round, n, early)
		}
	}
}

// What is copied for one process is bounded, and what is left out is told.
func TestParentsThatAreCopiedAreFew(t *testing.T) {
	tree := orphan()
	last := catKey
	tree.Apply(openAt(last, initKey, 500))
	for i := range uint64(2 * keepParents) {
		next := Key{PID: 100 + uint32(i), StartBoottimeNs: 600 + i}
		tree.Apply(fork(last, next))
		last = next
	}
	between, taken := Key{PID: 200, StartBoottimeNs: 700}, Key{PID: 201, StartBoottimeNs: 701}
	tree.Apply(fork(last, between))
	tree.Apply(fork(between, taken))
	tree.Apply(exit(between))
	image := tree.Apply(openAt(taken, last, 800)).Image
	oldest := image
	for oldest.Parent != nil {
		if oldest = oldest.Parent; oldest.Creator != nil {
			t.Fatalf("%v is a parent, and leads to who started it", oldest.Key)
		}
	}
	if got := len(lineage(image)); got != 1+keepParents || !oldest.AncestorsCut {
		t.Errorf("%d images by parents, cut %v, want %d, and cut", got, oldest.AncestorsCut, 1+keepParents)
	}
	if got, want := len(begetters(image)), len(begetters(tree.Get(last).Image))+2; got != want || image.AncestorsCut {
		t.Errorf("%d images by who started whom, cut %v, want %d, and not cut", got, image.AncestorsCut, want)
	}
}

// node is a process as the kernel has it.
type node struct {
	key, starter, parent Key
	reaper               bool
}

// kernel is processes that fork, take over and end as Linux has it, and what is told of them.
type kernel struct {
	tree  *Tree
	live  map[Key]*node
	clock uint64
}

func (s *kernel) fork(parent *node, r *rand.Rand) {
	child := &node{key: Key{PID: 2 + uint32(s.clock), StartBoottimeNs: s.clock}, starter: parent.key, parent: parent.key, reaper: r.IntN(3) == 0}
	s.live[child.key] = child
	s.tree.Apply(fork(parent.key, child.key))
}

func (s *kernel) exit(gone *node) {
	s.tree.Apply(exit(gone.key))
	delete(s.live, gone.key)
	heir := s.live[gone.parent]
	for !heir.reaper {
		heir = s.live[heir.parent]
	}
	for _, n := range s.live {
		if n.parent == gone.key {
			n.parent = heir.key
		}
	}
}

// Whatever is forked, taken over and ends: a process that acts has the parent that the kernel says and the starter that it had, one that
// lives is there, and what is kept is bounded.
func TestParentsAreTheKernels(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 11)) //nolint:gosec // a test's choice
		s := &kernel{tree: New(20), live: map[Key]*node{initKey: {key: initKey, reaper: true}}}
		s.tree.Apply(existing(initKey, Key{}, "/init"))
		for s.clock = 10; s.clock < 20_000; s.clock++ {
			keys := slices.SortedFunc(maps.Keys(s.live), func(a, b Key) int { return cmp.Compare(a.StartBoottimeNs, b.StartBoottimeNs) })
			n := s.live[keys[r.IntN(len(keys))]]
			switch act := r.IntN(10); {
			case act < 3 && len(keys) < 25:
				s.fork(n, r)
			case act < 6 && n.key != initKey:
				s.exit(n)
			case act < 7:
				e := exec(n.key, n.parent, "/bin/x")
				e.BoottimeNs = s.clock
				s.tree.Apply(e)
			case n.key != initKey:
				image := s.tree.Apply(openAt(n.key, n.parent, s.clock)).Image
				if image.Parent.Key != n.parent || image.StartedBy().Key != n.starter {
					t.Fatalf("seed %d, step %d: %v is of %v, started by %v, want %v and %v",
						seed, s.clock, n.key, image.Parent.Key, image.StartedBy().Key, n.parent, n.starter)
				}
			}
			if s.clock%1000 == 0 {
				s.check(t)
			}
		}
	}
}

func (s *kernel) check(t *testing.T) {
	t.Helper()
	for k := range s.live {
		if entry := s.tree.Get(k); entry == nil || s.tree.Live(k.PID) != entry {
			t.Fatalf("step %d: %v lives, and is not in the tree", s.clock, k)
		}
	}
	if all, _ := s.tree.Len(); reached(s.tree) > all*2*maxDepth {
		t.Fatalf("step %d: %d processes hold %d images", s.clock, all, reached(s.tree))
	}
}

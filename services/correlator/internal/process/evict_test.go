package process

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// Whatever comes, and in whatever order exits and pids are lost and come again: a process that lives is in the tree, and no more of
// the others than the limit.
func TestNoLiveProcessIsEverForgotten(t *testing.T) {
	for seed := range uint64(15) {
		r := rand.New(rand.NewPCG(seed, 3)) //nolint:gosec // a test's choice
		keep := 1 + r.IntN(20)
		tree := New(keep)
		tree.Apply(existing(initKey, Key{}, "/init"))
		live, over := map[uint32]Key{1: initKey}, []Key{}
		for clock := uint64(10); clock < 3000; clock++ {
			k := live[slices.Sorted(maps.Keys(live))[r.IntN(len(live))]]
			switch n := r.IntN(20); {
			case n < 8:
				child := Key{PID: 2 + uint32(r.IntN(200)), StartBoottimeNs: clock}
				if former, ok := live[child.PID]; ok { // its exit was lost
					if former == k {
						continue
					}
					over = append(over, former)
				}
				tree.Apply(fork(k, child))
				live[child.PID] = child
			case n < 10:
				tree.Apply(exec(k, Key{}, "/bin/x"))
			case n < 12:
				tree.Apply(open(k, Key{PID: 3000 + uint32(clock), StartBoottimeNs: clock})) // a parent that nobody has seen
			case n < 14 && len(over) > 0: // a late event of one that is over
				tree.Apply(open(over[r.IntN(len(over))], k))
			case k != initKey:
				tree.Apply(exit(k))
				delete(live, k.PID)
				over = append(over, k)
			}
			for pid, key := range live {
				if entry := tree.Live(pid); entry == nil || entry.Key != key {
					t.Fatalf("seed %d, step %d: Live(%d) = %v, want %v", seed, clock, pid, entry, key)
				}
			}
			if _, exited := tree.Len(); exited > keep {
				t.Fatalf("seed %d, step %d: %d exited processes are kept, want at most %d", seed, clock, exited, keep)
			}
		}
		// Those that are over and not known to be (late events of forgotten ones) may stay, but not without bound.
		if all, exited := tree.Len(); all-exited > len(live)+200 {
			t.Errorf("seed %d: %d entries live, want about %d", seed, all-exited, len(live))
		}
	}
}

package process

import (
	"math/rand/v2"
	"testing"
)

// A roster is a map by key that also knows who had a pid last.
func TestRoster(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test's choice
	got, want := roster{last: map[uint32]*Entry{}}, map[Key]*Entry{}
	for range 20_000 {
		key := Key{PID: 1 + r.Uint32N(5), StartBoottimeNs: 1 + r.Uint64N(6)}
		entry := want[key]
		if got.get(key) != entry {
			t.Fatalf("get(%v) = %v, want %v", key, got.get(key), entry)
		}
		if entry != nil {
			got.remove(entry)
			delete(want, key)
		} else {
			entry, last := &Entry{Key: key}, got.last[key.PID]
			if former := got.put(entry); former != last {
				t.Fatalf("put(%v) = %v, want %v", key, former, last)
			}
			want[key] = entry
		}
		seen := map[Key]bool{}
		for entry := range got.all() {
			if want[entry.Key] != entry || seen[entry.Key] {
				t.Fatalf("all() has %v, which is not there, or twice", entry.Key)
			}
			seen[entry.Key] = true
			if last := got.last[entry.Key.PID]; last.Key.StartBoottimeNs < entry.Key.StartBoottimeNs {
				t.Fatalf("last of pid %d = %v, want %v or a later one", entry.Key.PID, last.Key, entry.Key)
			}
		}
		if len(seen) != len(want) || got.count != len(want) {
			t.Fatalf("all() has %d of %d entries, count %d", len(seen), len(want), got.count)
		}
	}
}

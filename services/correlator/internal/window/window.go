// Package window counts how often a rule matched in a workload, for rules that are only worth a finding if it happens several times
// within a while. Data in: matches with their time; data out: whether this one completes the number. Its memory is bounded. One
// goroutine owns a Counter.
package window

import "container/list"

// maxCounts bounds how many rules' workloads are counted at once. Beyond it the one that matched longest ago is forgotten.
const maxCounts = 4096

// Key is whose matches are counted together.
type Key struct {
	Rule string
	// Workload is a container's id, or what else tells workloads apart.
	Workload string
}

// Counter counts matches.
type Counter struct {
	counts map[Key]*list.Element
	recent *list.List // of *count, the one that matched last first
}

// count is the times of the last matches, a ring.
type count struct {
	key   Key
	times []uint64
	next  int
	full  bool
}

// New returns a counter that has counted nothing.
func New() *Counter { return &Counter{counts: map[Key]*list.Element{}, recent: list.New()} }

// Add counts a match at a time in nanoseconds since boot, and says whether it is the times-th within so many nanoseconds. If it is,
// counting begins anew. Times that go back a little, as on several processors, do no harm.
func (c *Counter) Add(key Key, now uint64, times int, within uint64) bool {
	n := c.of(key, times)
	n.times[n.next] = now
	n.next = (n.next + 1) % times
	n.full = n.full || n.next == 0
	oldest := n.times[n.next]
	if !n.full || now > oldest && now-oldest > within {
		return false
	}
	n.next, n.full = 0, false
	return true
}

// of is the count of a key, with a ring of the size that its rule asks for now.
func (c *Counter) of(key Key, times int) *count {
	if e, ok := c.counts[key]; ok {
		c.recent.MoveToFront(e)
		n, _ := e.Value.(*count)
		if len(n.times) != times {
			*n = count{key: key, times: make([]uint64, times)}
		}
		return n
	}
	if c.recent.Len() >= maxCounts {
		last := c.recent.Back()
		if old, ok := c.recent.Remove(last).(*count); ok {
			delete(c.counts, old.key)
		}
	}
	n := &count{key: key, times: make([]uint64, times)}
	c.counts[key] = c.recent.PushFront(n)
	return n
}

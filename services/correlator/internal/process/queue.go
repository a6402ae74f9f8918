package process

// queue is the exited processes, oldest first. Entries are removed from its middle by leaving a hole.
type queue struct {
	limit   int
	items   []*Entry
	head    int
	removed int
}

// len is how many entries wait.
func (q *queue) len() int { return len(q.items) - q.head - q.removed }

// full says that one must go.
func (q *queue) full() bool { return q.len() > q.limit }

func (q *queue) push(entry *Entry) {
	if q.head > 1024 && q.head*2 > len(q.items) {
		q.compact()
	}
	entry.place = len(q.items)
	q.items = append(q.items, entry)
}

// compact closes the gap before head and every hole.
func (q *queue) compact() {
	kept := q.items[:0]
	for _, entry := range q.items[q.head:] {
		if entry != nil {
			entry.place = len(kept)
			kept = append(kept, entry)
		}
	}
	clear(q.items[len(kept):])
	q.items, q.head, q.removed = kept, 0, 0
}

// pop takes the oldest. It must not be called on an empty queue.
func (q *queue) pop() *Entry {
	for {
		entry := q.items[q.head]
		q.items[q.head] = nil
		q.head++
		if entry != nil {
			return entry
		}
		q.removed--
	}
}

func (q *queue) remove(entry *Entry) {
	if entry.place < len(q.items) && q.items[entry.place] == entry {
		q.items[entry.place] = nil
		q.removed++
	}
}

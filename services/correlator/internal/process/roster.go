package process

import "iter"

// roster is entries by key. Those that had the same pid, one after the other, hang together, the last of them first: so one look
// finds a process, and another tells who has a pid now.
type roster struct {
	last  map[uint32]*Entry
	count int
}

// get is the entry with that key, nil if there is none.
func (r *roster) get(key Key) *Entry {
	for entry := r.last[key.PID]; entry != nil; entry = entry.older {
		if entry.Key.StartBoottimeNs == key.StartBoottimeNs {
			return entry
		}
	}
	return nil
}

// put adds an entry, whose key is not there yet, and returns the one that had its pid last, nil if none had.
func (r *roster) put(entry *Entry) (former *Entry) {
	r.count++
	former = r.last[entry.Key.PID]
	if former == nil || former.Key.StartBoottimeNs < entry.Key.StartBoottimeNs {
		entry.older = former
		r.last[entry.Key.PID] = entry
		return former
	}
	above := former
	for above.older != nil && above.older.Key.StartBoottimeNs > entry.Key.StartBoottimeNs {
		above = above.older
	}
	entry.older, above.older = above.older, entry
	return former
}

// remove takes an entry out that is there.
func (r *roster) remove(entry *Entry) {
	r.count--
	last := r.last[entry.Key.PID]
	switch {
	case last != entry:
		for last.older != entry {
			last = last.older
		}
		last.older = entry.older
	case entry.older != nil:
		r.last[entry.Key.PID] = entry.older
	default:
		delete(r.last, entry.Key.PID)
	}
	entry.older = nil
}

// all is every entry, in no order.
func (r *roster) all() iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for _, entry := range r.last {
			for ; entry != nil; entry = entry.older {
				if !yield(entry) {
					return
				}
			}
		}
	}
}

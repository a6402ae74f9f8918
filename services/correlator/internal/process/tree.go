// Package process keeps the tree of a node's processes: which program each runs and what led to it. Data in: the
// collector's existing, fork, exec and exit events, in any order and with holes. Data out: for each event the process
// it is about, with its ancestors. It holds no lock: one goroutine owns a tree.
//
// A live process is never forgotten. An exited one is kept for a while, so that a late event still finds it; how many
// is bounded. Ancestors that exited long ago live on in the images of their descendants, at most maxDepth of them.
package process

import (
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

// Tree is the processes of one boot.
type Tree struct {
	entries roster
	gone    queue
	// snapshot collects the keys of the snapshot that is coming in, nil outside of one.
	snapshot map[Key]bool
}

// New returns an empty tree that remembers at most keepExited exited processes.
func New(keepExited int) *Tree {
	return &Tree{entries: roster{last: map[uint32]*Entry{}}, gone: queue{limit: keepExited}}
}

// Len is how many processes the tree holds, and how many of them have exited.
func (t *Tree) Len() (all, exited int) { return t.entries.count, t.gone.len() }

// Get is the process with that key, nil if the tree does not know it.
func (t *Tree) Get(key Key) *Entry { return t.entries.get(key) }

// Live is the live process that has the pid now, nil if the tree knows none.
func (t *Tree) Live(pid uint32) *Entry {
	if entry := t.entries.last[pid]; entry != nil && entry.state == alive {
		return entry
	}
	return nil
}

// Latest is the process that had the pid last, alive or not, nil if the tree knows none.
func (t *Tree) Latest(pid uint32) *Entry { return t.entries.last[pid] }

// Within is a process that was in the cgroup last, a live one if there is one, nil if the tree knows none. It looks at
// all of them.
func (t *Tree) Within(cgroupID uint64) *Entry {
	var found *Entry
	for entry := range t.entries.all() {
		if entry.CgroupID != cgroupID || !entry.Placed {
			continue
		}
		if found = entry; entry.state == alive {
			break
		}
	}
	return found
}

// Parent is the process that started this one, dead or alive, nil if the tree does not hold it any more. Who took it over since does not
// matter: a process that sends its children off stays where they came from.
func (t *Tree) Parent(entry *Entry) *Entry {
	parent := entry.Image.StartedBy()
	if parent == nil {
		return nil
	}
	return t.entries.get(parent.Key)
}

// Apply learns from an event and returns the process it is about, nil if the event has none. Only events that start
// or change a process allocate.
func (t *Tree) Apply(e *eventv1.Event) *Entry {
	key := KeyOf(e.GetProcess())
	if key.PID == 0 {
		return nil
	}
	entry := t.own(key, e)
	switch kind := e.GetKind().(type) {
	case *eventv1.Event_Existing:
		if t.snapshot != nil {
			t.snapshot[key] = true
		}
		t.existing(entry, e, kind.Existing)
	case *eventv1.Event_Exec:
		t.exec(entry, e, kind.Exec)
	case *eventv1.Event_Fork:
		t.fork(entry, kind.Fork)
	case *eventv1.Event_Exit:
		t.exit(entry, exited)
	}
	return entry
}

// own is the entry of the process that acts, and where it is by its own account.
func (t *Tree) own(key Key, e *eventv1.Event) *Entry {
	entry := t.entries.get(key)
	if entry == nil {
		// Its fork was lost, or has not arrived yet.
		entry = t.add(key)
		entry.Image.Name = e.GetComm()
		credentials(entry.Image, e)
		t.adopt(entry, KeyOf(e.GetParent()))
	} else if entry.state == presumed {
		t.revive(entry)
	}
	entry.correct(e.GetBoottimeNs())
	t.move(entry, KeyOf(e.GetParent()), e.GetBoottimeNs())
	entry.CgroupID = e.GetCgroupId()
	if ns := e.GetNamespaces(); ns != nil {
		entry.MntNS, entry.PIDNS = ns.GetMnt(), ns.GetPid()
		entry.Placed = true
	}
	return entry
}

// add makes an entry, which ends any other that has its pid.
func (t *Tree) add(key Key) *Entry {
	entry := &Entry{Key: key, Image: &field.Process{Key: key, LoginUID: field.NoLogin}}
	former := t.entries.put(entry)
	switch {
	case former == nil:
	case former.Key.StartBoottimeNs > key.StartBoottimeNs:
		t.exit(entry, presumed)
	case former.state == alive:
		t.exit(former, presumed) // its exit was lost: two live processes do not share a pid
	}
	return entry
}

// adopt links a process without parent below the one with that key, which is added if need be.
func (t *Tree) adopt(entry *Entry, parent Key) {
	if parent.PID == 0 || parent == entry.Key || entry.Image.Parent != nil {
		return
	}
	above := t.named(parent)
	if descends(above, entry, (*field.Process).StartedBy) || descends(above, entry, parentOf) {
		return // a damaged event must not close a ring
	}
	entry.Image.Parent = t.linkable(above)
	entry.height = above.height + 1
	if above.firstChild == 0 || entry.Key.StartBoottimeNs < above.firstChild {
		above.firstChild = entry.Key.StartBoottimeNs
	}
	entry.depth = above.depth + 1
	if entry.Home == 0 {
		entry.Home = above.Home
	}
}

// named is the entry of a process that another one names, which is added if need be.
func (t *Tree) named(key Key) *Entry {
	entry := t.entries.get(key)
	if entry == nil {
		entry = t.add(key)
		// Nothing says that it is alive but a child's memory of it, so it may be forgotten like the exited.
		if entry.state == alive {
			t.exit(entry, presumed)
		}
	}
	return entry
}

// move notes that the kernel calls another process the parent now: the one before has ended, and a subreaper or init has taken its
// children over; or the process was started as its parent's sibling (CLONE_PARENT). Who started it stays. An event that is not later than the
// one that said so says nothing new.
func (t *Tree) move(entry *Entry, parent Key, at uint64) {
	former := entry.Image.Parent
	if parent.PID == 0 || former == nil || former.Key == parent || parent == entry.Key || at <= entry.moved {
		return
	}
	entry.moved = at
	above := t.named(parent)
	if above.height >= maxDepth || descends(above, entry, parentOf) {
		return
	}
	moved := *entry.Image // events that wait keep the one they saw
	if creator := moved.StartedBy(); creator.Key == parent {
		moved.Parent, moved.Creator = creator, nil
	} else {
		moved.Parent, moved.Creator = parentsOnly(above.Image), creator
	}
	entry.Image, entry.firstChild, entry.height = &moved, 0, above.height+1
}

func parentOf(image *field.Process) *field.Process { return image.Parent }

// descends says whether an image of entry is above that of below, by that kind of ancestry.
func descends(below, entry *Entry, up func(*field.Process) *field.Process) bool {
	for image := below.Image; image != nil; image = up(image) {
		if image.Key == entry.Key {
			return true
		}
	}
	return false
}

// linkable is the image of a parent, with a chain short enough to be made longer.
func (t *Tree) linkable(parent *Entry) *field.Process {
	if parent.depth >= maxDepth || parent.height >= maxDepth {
		parent.Image = cut(parent.Image)
		parent.depth, parent.height = keepDepth, 0
		for image := parent.Image.Parent; image != nil; image = image.Parent {
			parent.height++
		}
	}
	return parent.Image
}

func (t *Tree) existing(entry *Entry, e *eventv1.Event, x *eventv1.Exec) {
	t.adopt(entry, KeyOf(e.GetParent()))
	if entry.known {
		entry.surmise(e, x)
		return
	}
	fill(entry.Image, e, x)
	entry.known = true
}

func (t *Tree) exec(entry *Entry, e *eventv1.Event, x *eventv1.Exec) {
	t.adopt(entry, KeyOf(e.GetParent()))
	// Children that have started since, and are linked already, are this program's: the exec comes late.
	late := entry.firstChild > e.GetBoottimeNs()
	if entry.known && !late {
		entry.Image = successor(entry.Image)
		entry.firstChild = 0
	}
	fill(entry.Image, e, x)
	entry.known = true
}

func (t *Tree) fork(parent *Entry, f *eventv1.Fork) {
	key := KeyOf(f.GetChild())
	if key.PID == 0 || key == parent.Key {
		return
	}
	child := t.entries.get(key)
	if child == nil {
		child = t.add(key)
	}
	t.adopt(child, parent.Key)
	child.Entered = child.Entered || parent.Entered
	if child.known {
		return // its own events came first and say more
	}
	if !child.Placed {
		child.CgroupID = f.GetChildCgroupId()
		if child.CgroupID == 0 {
			child.CgroupID = parent.CgroupID
		}
	}
	if parent.known {
		own := *child.Image
		*child.Image = *parent.Image
		child.Image.Key, child.Image.InnerPID = key, 0
		succeed(child.Image, &own)
		child.known = true
	}
	if child.state == presumed {
		t.revive(child)
	}
}

// exit moves an entry to the exited, and forgets the oldest of them if there are too many.
func (t *Tree) exit(entry *Entry, how state) {
	if entry.state != alive {
		entry.state = max(entry.state, how)
		return
	}
	entry.state = how
	for t.gone.push(entry); t.gone.full(); {
		t.entries.remove(t.gone.pop())
	}
}

// revive takes an entry back that was only presumed dead.
func (t *Tree) revive(entry *Entry) {
	if t.entries.last[entry.Key.PID] != entry {
		return // its pid is another process's by now: a late event
	}
	t.gone.remove(entry)
	entry.state = alive
}

// BeginSnapshot says that existing events of all processes follow.
func (t *Tree) BeginSnapshot() { t.snapshot = map[Key]bool{} }

// EndSnapshot presumes dead whatever was alive and is not in the snapshot: its exit was lost. It is no more than
// presumed, for a process forked while the snapshot was taken may be missing too.
func (t *Tree) EndSnapshot() {
	if t.snapshot == nil {
		return
	}
	if len(t.snapshot) > 0 {
		for entry := range t.entries.all() {
			if entry.state == alive && !t.snapshot[entry.Key] {
				t.exit(entry, presumed)
			}
		}
	}
	t.snapshot = nil
}

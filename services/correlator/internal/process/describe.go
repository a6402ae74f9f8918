package process

import (
	"cmp"
	"slices"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

// Describe is the tree as events: applied in this order to an empty tree they make one that is the same, as far as a process's own
// programs, its ancestors' and its place go. Ancestors that the tree has forgotten, and programs that a parent ran when it forked,
// are among them. An event's boottime is when it can have happened at the earliest.
func (t *Tree) Describe() []*eventv1.Event {
	d := description{programs: map[Key][]*program{}, byImage: map[*field.Process]*program{}}
	for entry := range t.entries.all() {
		d.add(entry.Image)
		d.byImage[entry.Image].last = true
	}
	var steps []step
	for key, programs := range d.programs {
		steps = append(steps, t.life(key, programs)...)
		if entry := t.entries.get(key); entry != nil && entry.Image.Creator != nil && entry.Image.Parent != nil {
			e := t.shown(key, entry.Image, entry.moved)
			e.Parent = keyMessage(entry.Image.Parent.Key)
			steps = append(steps, step{max(entry.moved, key.StartBoottimeNs), 2, 0, e})
		}
	}
	slices.SortFunc(steps, func(a, b step) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.turn, b.turn), cmp.Compare(a.depth, b.depth),
			cmp.Compare(a.event.GetProcess().GetPid(), b.event.GetProcess().GetPid()))
	})
	events := make([]*eventv1.Event, 0, len(steps)+t.entries.count)
	for _, s := range steps {
		events = append(events, s.event)
	}
	return append(events, t.exits(d.programs)...)
}

// description is the programs that the tree still holds, of each process.
type description struct {
	programs map[Key][]*program
	byImage  map[*field.Process]*program
}

// program is one that a process ran, and between which starts of its children it must have run.
type program struct {
	image *field.Process
	last  bool // it runs now
	// from and to are the earliest and the latest start of a child that links to it, zero if there is none.
	from, to uint64
	depth    int
}

// add takes in a program and those above it.
func (d *description) add(image *field.Process) *program {
	if p := d.byImage[image]; p != nil {
		return p
	}
	p := &program{image: image}
	d.byImage[image] = p
	d.programs[image.Key] = append(d.programs[image.Key], p)
	if image.Creator != nil && image.Parent != nil {
		d.add(image.Parent) // who took it over
	}
	creator := image.StartedBy()
	if creator == nil {
		return p
	}
	above, started := d.add(creator), image.Key.StartBoottimeNs
	p.depth = above.depth + 1
	if above.from == 0 || started < above.from {
		above.from = started
	}
	above.to = max(above.to, started)
	return p
}

// step is an event and its place in time. Of steps at the same time, a process's next program comes after the child that started
// before it, and a parent before its child.
type step struct {
	at          uint64
	turn, depth int
	event       *eventv1.Event
}

// life is a process as it began, and each program that it ran later.
func (t *Tree) life(key Key, programs []*program) []step {
	slices.SortFunc(programs, func(a, b *program) int {
		if a.last != b.last { // the one it runs now comes last
			if a.last {
				return 1
			}
			return -1
		}
		return cmp.Compare(a.from, b.from)
	})
	at := key.StartBoottimeNs
	steps := make([]step, 0, len(programs))
	for i, p := range programs {
		e := t.shown(key, p.image, at)
		switch known := t.knows(key, p); {
		case i == 0 && known:
			e.Kind = &eventv1.Event_Existing{Existing: programOf(p.image)}
		case known:
			e.Kind = &eventv1.Event_Exec{Exec: programOf(p.image)}
		case i > 0:
			continue // forgotten, and named again by a late event that told no more
		}
		steps = append(steps, step{at, min(i, 1), p.depth, e})
		at = max(at, p.to)
	}
	return steps
}

// knows says whether a process's program was told of. One that it runs no more has an executable, or was not.
func (t *Tree) knows(key Key, p *program) bool {
	if entry := t.entries.get(key); entry != nil && p.last {
		return entry.known
	}
	return p.image.Exe != ""
}

// shown is an event of a process, without kind.
func (t *Tree) shown(key Key, image *field.Process, at uint64) *eventv1.Event {
	e := &eventv1.Event{
		BoottimeNs: at, Process: keyMessage(key), Tid: key.PID, Comm: image.Name,
		Credentials: &eventv1.Credentials{Uid: image.UID, EffectiveUid: image.EUID, Gid: image.GID, LoginUid: image.LoginUID},
	}
	if creator := image.StartedBy(); creator != nil {
		e.Parent = keyMessage(creator.Key)
	}
	if entry := t.entries.get(key); entry != nil {
		e.CgroupId = entry.CgroupID
		if entry.Placed {
			e.Namespaces = &eventv1.Namespaces{Mnt: entry.MntNS, Pid: entry.PIDNS}
		}
	}
	return e
}

// exits ends those of the described that do not live: first those that the tree has forgotten, then, oldest first, the exited.
func (t *Tree) exits(described map[Key][]*program) []*eventv1.Event {
	var gone []Key
	for key := range described {
		if t.entries.get(key) == nil {
			gone = append(gone, key)
		}
	}
	slices.SortFunc(gone, func(a, b Key) int {
		return cmp.Or(cmp.Compare(a.StartBoottimeNs, b.StartBoottimeNs), cmp.Compare(a.PID, b.PID))
	})
	for _, entry := range t.gone.items[t.gone.head:] {
		if entry != nil {
			gone = append(gone, entry.Key)
		}
	}
	events := make([]*eventv1.Event, 0, len(gone))
	for _, key := range gone {
		e := &eventv1.Event{Process: keyMessage(key), Kind: &eventv1.Event_Exit{Exit: &eventv1.Exit{}}}
		if entry := t.entries.get(key); entry != nil {
			e.CgroupId = entry.CgroupID
		}
		events = append(events, e)
	}
	return events
}

func keyMessage(key Key) *eventv1.ProcessKey {
	return &eventv1.ProcessKey{Pid: key.PID, StartBoottimeNs: key.StartBoottimeNs}
}

// programOf is what fill would make the image of.
func programOf(image *field.Process) *eventv1.Exec {
	return &eventv1.Exec{
		Exe: &eventv1.File{
			Path: image.Exe, Inode: image.ExeInode, UpperLayer: image.ExeUpperLayer, Memfd: image.ExeMemfd, Unlinked: image.ExeUnlinked,
		},
		Argv: image.Argv, ArgvTruncated: image.ArgvCut, Cwd: image.Cwd, Tty: image.TTY,
		Session: image.Session, Group: image.Group, InnerPid: image.InnerPID, InnerGroup: image.InnerGroup,
		ExeCtimeNs: image.ExeCtimeNs, ExeMtimeNs: image.ExeMtimeNs,
	}
}

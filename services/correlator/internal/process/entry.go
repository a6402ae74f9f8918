package process

import (
	"strings"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

// Key names one process for as long as the node runs: a pid alone is reused.
type Key = field.Key

// KeyOf is the key in an event, zero if it has none.
func KeyOf(k *eventv1.ProcessKey) Key {
	return Key{PID: k.GetPid(), StartBoottimeNs: k.GetStartBoottimeNs()}
}

// Entry is what the tree knows of one process. It belongs to the tree: read it only until the next Apply.
type Entry struct {
	Key Key
	// Image is the program the process runs now. It is never changed once it is complete: the next exec puts another
	// one in its place. So an event that waits, and a child that was forked earlier, keep the one they saw, and a
	// parent that replaces its program after the fork does not rewrite what led to the child.
	Image *field.Process
	// CgroupID, MntNS and PIDNS are as of the process's last own event; Placed says that there was one.
	CgroupID uint64
	MntNS    uint32
	PIDNS    uint32
	Placed   bool
	// Home is the cgroup id of the container the process belongs to, zero if none is known. A child has its
	// parent's. The workload index sets it.
	Home uint64
	// Searched is the workload index's mark: at which of its generations no ancestor had a home.
	Searched uint64

	// Entered: it, or the process that forked it, executed a program outside the host's pid namespace. What a runtime does before it starts
	// a container's program is not that container's doing. The pipeline sets it; a child has its parent's.
	Entered bool

	// firstChild is the earliest start of a child that links to Image, zero if there is none.
	firstChild uint64

	// claim is the program that the last snapshot says the process runs, if that is another one than Image, and claimed
	// is when it was taken.
	claim   *field.Process
	claimed uint64

	known bool // its image came from an exec, an existing process, or a fork
	state state
	// depth is how many images are above this one by who started whom, height by who is whose parent.
	depth, height int
	moved         uint64 // when the kernel last named another parent than before, by the event's time
	place         int    // in the queue of the exited
	// older is the entry that had the pid before, which the roster keeps.
	older *Entry
}

// state is where a process is in its life.
type state uint8

const (
	alive state = iota
	// presumed is dead because a snapshot or a successor with its pid says so; an event of its own revives it.
	presumed
	exited
)

const (
	// maxArgvBytes is what is kept of a process's arguments beyond the exec itself, which carries them whole.
	maxArgvBytes = 4096
	// maxDepth bounds a chain of images: a chain that gets there is cut to its nearest keepDepth, and marked. Processes that fork
	// and exit in turn would else grow it for ever.
	maxDepth  = 64
	keepDepth = 32
	// keepParents is how many images are copied at most for a process that was taken over.
	keepParents = 16
)

// keepArgv is the first maxArgvBytes of argv, whole arguments, and one cut argument at the end. What it cuts it copies: the
// arguments are parts of one string with all the text of the exec (see package decode), which would be kept whole.
func keepArgv(argv []string) []string {
	left := maxArgvBytes
	for i, arg := range argv {
		if len(arg) >= left {
			kept := make([]string, 0, i+1)
			for _, whole := range argv[:i] {
				kept = append(kept, strings.Clone(whole))
			}
			return append(kept, strings.Clone(strings.ToValidUTF8(arg[:left], "")))
		}
		left -= len(arg) + 1
	}
	return argv
}

// Whole is the image as the event shows it: for an exec whose arguments are longer than what is kept, a copy with all
// of them. A payload behind the first 4 KiB is seen when it is started.
func Whole(image *field.Process, e *eventv1.Event) *field.Process {
	argv := e.GetExec().GetArgv()
	if len(argv) == 0 {
		argv = e.GetExisting().GetArgv()
	}
	if len(argv) == 0 || sameLength(image.Argv, argv) {
		return image
	}
	whole := *image
	whole.Argv = argv
	whole.ArgvCut = e.GetExec().GetArgvTruncated() || e.GetExisting().GetArgvTruncated()
	return &whole
}

// Shown is the program that the process ran at the event, as the event shows it. A snapshot's event shows the program
// that the snapshot found, even if it is not believed yet.
func (entry *Entry) Shown(e *eventv1.Event) *field.Process {
	if e.GetExisting() != nil && entry.claim != nil {
		return Whole(entry.claim, e)
	}
	return Whole(entry.Image, e)
}

// sameLength says whether nothing of argv was cut off to make kept.
func sameLength(kept, argv []string) bool {
	last := len(argv) - 1
	return len(kept) == len(argv) && (last < 0 || len(kept[last]) == len(argv[last]))
}

// surmise keeps what a snapshot says of a process whose program is known, if that is another program. Either its exec
// was lost, or its exec is still on its way: so nothing changes before an event that is later than the snapshot. The
// arguments are no difference; a process may rewrite its own, and then the exec's are better.
func (entry *Entry) surmise(e *eventv1.Event, x *eventv1.Exec) {
	entry.claim = nil
	if path := x.GetExe().GetPath(); path == "" || path == entry.Image.Exe {
		return
	}
	entry.claim, entry.claimed = successor(entry.Image), e.GetBoottimeNs()
	fill(entry.claim, e, x)
}

// correct believes the snapshot, if the event is later than it and the exec has not come.
func (entry *Entry) correct(boottimeNs uint64) {
	claim := entry.claim
	if claim == nil || boottimeNs <= entry.claimed {
		return
	}
	entry.claim = nil
	if claim.Exe == entry.Image.Exe {
		return
	}
	succeed(claim, entry.Image)
	entry.Image, entry.firstChild = claim, 0
}

// withSlash is a directory with a slash at its end, as the rules compare it.
func withSlash(directory string) string {
	if directory == "" || strings.HasSuffix(directory, "/") {
		return directory
	}
	return directory + "/"
}

// fill writes the program of an exec, or of an existing process, into an image that nobody has seen complete.
func fill(image *field.Process, e *eventv1.Event, x *eventv1.Exec) {
	exe := x.GetExe()
	image.Name = field.NameOf(exe.GetPath(), e.GetComm(), x.GetArgv())
	image.Exe, image.ExeInode = exe.GetPath(), exe.GetInode()
	image.ExeCtimeNs, image.ExeMtimeNs = x.GetExeCtimeNs(), x.GetExeMtimeNs()
	image.Argv = keepArgv(x.GetArgv())
	image.Cwd = withSlash(x.GetCwd())
	cut := !sameLength(image.Argv, x.GetArgv())
	if image.ArgvCut = cut || x.GetArgvTruncated(); cut { // as keepArgv says
		image.Name, image.Exe, image.Cwd = strings.Clone(image.Name), strings.Clone(image.Exe), strings.Clone(image.Cwd)
	}
	image.TTY = x.GetTty()
	image.Session, image.Group = x.GetSession(), x.GetGroup()
	image.InnerPID, image.InnerGroup = x.GetInnerPid(), x.GetInnerGroup()
	image.ExeUpperLayer = exe.GetUpperLayer()
	image.ExeMemfd = exe.GetMemfd()
	image.ExeUnlinked = exe.GetUnlinked()
	credentials(image, e)
}

func credentials(image *field.Process, e *eventv1.Event) {
	c := e.GetCredentials()
	if c == nil {
		image.LoginUID = field.NoLogin
		return
	}
	image.UID, image.EUID, image.GID, image.LoginUID = c.GetUid(), c.GetEffectiveUid(), c.GetGid(), c.GetLoginUid()
}

// successor is an image of the same process with the same ancestors, for another program.
func successor(image *field.Process) *field.Process {
	next := &field.Process{Key: image.Key}
	succeed(next, image)
	return next
}

// succeed gives an image the ancestors of another.
func succeed(image, former *field.Process) {
	image.Parent, image.Creator, image.AncestorsCut = former.Parent, former.Creator, former.AncestorsCut
}

// cut is a copy of the chain's nearest keepDepth images, by who started whom; the rest is let go, and the last says so.
func cut(image *field.Process) *field.Process {
	nearest := *image
	last := &nearest
	for range keepDepth - 1 {
		above := last.StartedBy()
		if above == nil {
			return &nearest
		}
		next := *above
		if last.Creator != nil {
			last.Creator = &next
		} else {
			last.Parent = &next
		}
		last = &next
	}
	last.AncestorsCut = last.AncestorsCut || last.StartedBy() != nil
	last.Parent, last.Creator = nil, nil
	return &nearest
}

// parentsOnly is an image whose parents lead to parents alone: as it is, or a copy that does not know who started them. Both ancestries
// are bounded, each by itself; a way that crossed from one to the other again and again would have no end, and nothing on it would ever
// be let go.
func parentsOnly(image *field.Process) *field.Process {
	copies, at := 0, 0
	for p := image; p != nil; p = p.Parent {
		if at++; p.Creator != nil {
			copies = at
		}
	}
	if copies == 0 {
		return image
	}
	nearest := *image
	last := &nearest
	for range min(copies, keepParents) - 1 {
		next := *last.Parent
		last.Parent, last.Creator = &next, nil
		last = &next
	}
	last.Creator = nil
	if copies > keepParents {
		last.Parent, last.AncestorsCut = nil, true
	}
	return &nearest
}

// Package field is the table of names that a rule's condition and output may use: for each name
// its type and how to read it from the event, the process and the workload at hand. Data in: a
// Context filled by the pipeline; data out: strings, numbers and addresses. It holds no state.
package field

import (
	"net/netip"
	"slices"
	"strings"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/uapi"
)

// NoLogin is the audit login uid of a process that descends from no login.
const NoLogin = ^uint32(0)

// maxAncestors bounds a walk up the process tree, so that a tree damaged into a ring ends.
const maxAncestors = 256

// Key names one process for as long as the node runs.
type Key struct {
	// PID is the thread group id in the initial pid namespace.
	PID uint32
	// StartBoottimeNs is nanoseconds since boot, suspend included; zero if not known.
	StartBoottimeNs uint64
}

// Process is what is known of a process at the moment of the event. The process tree fills it and
// must not change it while a Match that can reach it runs.
type Process struct {
	Key Key
	// Name is the file name of Exe, or comm where the exe is not known; see NameOf.
	Name string
	// Exe is the kernel's path of the executable.
	Exe string
	// Argv is the arguments as given, argv[0] first.
	Argv []string
	// ArgvCut: there were more arguments than Argv holds.
	ArgvCut bool
	// ExeInode is the executable's inode, zero if not known.
	ExeInode uint64
	// ExeCtimeNs and ExeMtimeNs are when the executable's inode and its bytes were last changed, as of the exec: nanoseconds since
	// 1970, zero if not known.
	ExeCtimeNs, ExeMtimeNs int64
	// Cwd is the working directory. Rules see it with a slash at its end, as Falco shows it; a
	// value that already ends in one is used as it is, without a copy.
	Cwd string
	// UID, EUID, GID and LoginUID are read where the event has no credentials of its own.
	UID, EUID, GID, LoginUID uint32
	// TTY is the controlling terminal's device number, zero if there is none.
	TTY uint32
	// Session and Group are the session leader's and the process group leader's pids.
	Session, Group uint32
	// InnerPID and InnerGroup are the process's pid and Group as its own pid namespace numbers them, zero if not known.
	InnerPID, InnerGroup uint32

	// ExeUpperLayer: the executable was written after the image was made.
	ExeUpperLayer bool
	// ExeMemfd: the executable never had a name in a file system.
	ExeMemfd bool
	// ExeUnlinked: the executable's last name is gone.
	ExeUnlinked bool

	// Parent is the process that the kernel calls its parent: who started it, or, once that has ended, who took it over. It is nil at the
	// oldest known ancestor.
	Parent *Process
	// Creator is who started it, where that is not Parent.
	Creator *Process
	// AncestorsCut: it had ancestors that are not kept.
	AncestorsCut bool
}

// multicall are programs that are many: which one runs is decided by the name they are called by.
var multicall = [...]string{"busybox", "toybox", "coreutils"}

// NameOf is the Process.Name for an executable's path, a comm and arguments: the last element of
// the path, without the " (deleted)" that the kernel puts behind it. A program such as busybox gets
// the name of the applet it runs. That comes from argv, but not as a mere claim: called by another
// name, busybox would be that other program.
func NameOf(exe, comm string, argv []string) string {
	name := baseName(strings.TrimSuffix(exe, " (deleted)"))
	if name == "" {
		return comm
	}
	if !slices.Contains(multicall[:], name) {
		return name
	}
	for _, arg := range argv[:min(len(argv), 2)] {
		if applet := baseName(strings.TrimPrefix(arg, "-")); applet != "" && applet != name {
			return applet
		}
	}
	return name
}

func baseName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// ancestor is the n-th one up, 0 being the process itself. Nil if there is none.
func (p *Process) ancestor(n int) *Process {
	if n > maxAncestors {
		return nil
	}
	for ; n > 0 && p != nil; n-- {
		p = p.Parent
	}
	return p
}

// args is argv without argv[0].
func (p *Process) args() []string {
	if len(p.Argv) < 2 {
		return nil
	}
	return p.Argv[1:]
}

// Resolver tells by what names a workload asked for an address. *dnsname.Cache is one.
type Resolver interface {
	// Any says whether one of the names that led the event's workload to the address satisfies match.
	Any(e *eventv1.Event, ip netip.Addr, match func(name string) bool) bool
}

// Accounts knows what the host's users and groups are called. *account.Table is one.
type Accounts interface {
	User(id uint32) (name string, ok bool)
	Group(id uint32) (name string, ok bool)
}

// Context is what a condition and an output see. One goroutine at a time may use it; it caches
// composed values for the Event it holds, so change Event, Process and Workload together, and use
// a new Event for each fact.
type Context struct {
	Event *eventv1.Event
	// Process is nil if the tree knows nothing of it, not even from the event.
	Process *Process
	// Workload is nil if nobody has said whose cgroup this is.
	Workload *findingv1.Workload
	// Names knows what addresses are called, nil if nobody does.
	Names Resolver
	// Accounts are the host's, nil if nobody has told them.
	Accounts Accounts

	cache cache
	// masks are masks spelled out, for all events: the same few come again and again.
	masks map[maskKey]string
}

// cache keeps the values that must be put together from parts, for the event they belong to.
type cache struct {
	event    *eventv1.Event
	cmdline  [8]string // of the process and of its nearest ancestors
	exeLine  string
	connName string
	// within are fd.name and fd.directory behind the container's id.
	within [2]string
}

// maskKey is a mask, and what its bits stand for.
type maskKey struct {
	spelling spelling
	mask     uint64
}

// maxMasks bounds the masks that are kept: whoever is watched chooses many of them.
const maxMasks = 1024

// spelled is a mask as text.
func (c *Context) spelled(how spelling, mask uint64) string {
	key := maskKey{how, mask}
	s, ok := c.masks[key]
	if ok {
		return s
	}
	if c.masks == nil || len(c.masks) >= maxMasks {
		c.masks = map[maskKey]string{}
	}
	s = string(how.appendTo(nil, mask))
	c.masks[key] = s
	return s
}

// cached is the cache, emptied first if it is of another event.
func (c *Context) cached() *cache {
	if c.cache.event != c.Event {
		c.cache = cache{event: c.Event}
	}
	return &c.cache
}

// parent is the process's parent, nil if not known.
func (c *Context) parent() *Process { return c.Process.ancestor(1) }

// spelling says how a mask is written.
type spelling uint8

const (
	openings spelling = iota
	modes
	capabilities
	protections
	memfds
	mounts
	umounts
	renames
	clones
	modules
	opens // the flags of open(2) in another call
)

// maskBits are the names of the bits.
var maskBits = [...][]uapi.Bit{
	openings: uapi.OpenFlags, modes: uapi.Modes, capabilities: uapi.Capabilities, protections: uapi.ProtFlags, memfds: uapi.MemfdFlags,
	mounts: uapi.MountFlags, umounts: uapi.UmountFlags, renames: uapi.RenameFlags, clones: uapi.CloneFlags, modules: uapi.ModuleFlags,
	opens: uapi.OpenFlags,
}

// flagsOf is how the flags of a change or a use of privilege are written.
func flagsOf(kind Kinds) spelling {
	switch kind {
	case KindRename:
		return renames
	case KindMount:
		return mounts
	case KindUmount:
		return umounts
	case KindSetns, KindUnshare:
		return clones
	case KindModuleLoad:
		return modules
	default:
		return opens
	}
}

// appendTo appends the mask as Falco writes it: names joined by |, 0 for none; capabilities by blanks, nothing for none.
func (s spelling) appendTo(dst []byte, mask uint64) []byte {
	switch {
	case s == openings:
		return openFlags(dst, mask)
	case s == capabilities:
		return uapi.AppendBits(dst, maskBits[s], mask, ' ')
	case mask == 0:
		return append(dst, '0')
	case s == modes:
		return modeNames(dst, mask)
	}
	return uapi.AppendBits(dst, maskBits[s], mask, '|')
}

// upperLayer is a bit that open(2) has no flag for.
const upperLayer = 1 << 40

// openFlags leaves out the bits that have no name on every architecture.
func openFlags(dst []byte, mask uint64) []byte {
	dst = append(dst, [...]string{"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"}[mask&accessMode]...)
	known := uint64(0)
	for _, b := range uapi.OpenFlags {
		known |= b.Mask
	}
	if mask&known != 0 {
		dst = uapi.AppendBits(append(dst, '|'), uapi.OpenFlags, mask&known, '|')
	}
	if mask&upperLayer != 0 {
		dst = append(dst, "|FD_UPPER_LAYER"...)
	}
	return dst
}

// modeNames begins with the type of the file, if the mode has one.
func modeNames(dst []byte, mask uint64) []byte {
	kind := uapi.FileTypes[mask>>12&15]
	if kind == "" {
		return uapi.AppendBits(dst, uapi.Modes, mask, '|')
	}
	dst = append(dst, kind...)
	if mask &^= modeType; mask != 0 {
		dst = uapi.AppendBits(append(dst, '|'), uapi.Modes, mask, '|')
	}
	return dst
}

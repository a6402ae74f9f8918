package sample

import (
	"net/netip"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/uapi"
)

// filler reads the keys that a class of event has besides the process's.
type filler func(d *decoder, e *eventv1.Event, c *field.Context)

// classes are what a sample may be of.
var classes = map[string]filler{
	"exec": func(d *decoder, e *eventv1.Event, c *field.Context) {
		e.Kind = &eventv1.Event_Exec{Exec: d.exec(c.Process)}
	},
	"existing": func(d *decoder, e *eventv1.Event, c *field.Context) {
		e.Kind = &eventv1.Event_Existing{Existing: d.exec(c.Process)}
	},
	"fork": func(_ *decoder, e *eventv1.Event, _ *field.Context) {
		e.Kind = &eventv1.Event_Fork{Fork: &eventv1.Fork{}}
	},
	"exit": func(_ *decoder, e *eventv1.Event, _ *field.Context) {
		e.Kind = &eventv1.Event_Exit{Exit: &eventv1.Exit{}}
	},
	"exec_failed": func(d *decoder, e *eventv1.Event, _ *field.Context) {
		e.Kind = &eventv1.Event_ExecFailed{ExecFailed: &eventv1.ExecFailed{File: d.file(0)}}
	},
	"file_open": func(d *decoder, e *eventv1.Event, _ *field.Context) {
		flags := d.access() | uint32(d.bits("flags", uapi.OpenFlags)) //nolint:gosec // flags of open(2) have 32 bits
		open := &eventv1.FileOpen{File: d.file(regular), Flags: flags}
		open.GivenPath, open.GivenPathSource = open.GetFile().GetPath(), eventv1.PathSource_PATH_SOURCE_KERNEL
		if given := d.str("given_path"); given != "" {
			open.GivenPath = given
		}
		e.Kind = &eventv1.Event_FileOpen{FileOpen: open}
	},
	"signal": func(d *decoder, e *eventv1.Event, _ *field.Context) {
		number := d.word("signal", func(n uint64) string { return uapi.Signal(uint32(n)) }, 15) //nolint:gosec // below maxWord
		e.Kind = &eventv1.Event_Signal{Signal: &eventv1.Signal{Number: uint32(number), Target: d.target()}}
	},

	"rename":     change(eventv1.FileOperation_FILE_OPERATION_RENAME, withTarget),
	"link":       change(eventv1.FileOperation_FILE_OPERATION_LINK, withTarget),
	"pivot_root": change(eventv1.FileOperation_FILE_OPERATION_PIVOT_ROOT, withTarget),
	"unlink":     change(eventv1.FileOperation_FILE_OPERATION_UNLINK, nothing),
	"rmdir":      change(eventv1.FileOperation_FILE_OPERATION_RMDIR, nothing),
	"chroot":     change(eventv1.FileOperation_FILE_OPERATION_CHROOT, nothing),
	"symlink":    change(eventv1.FileOperation_FILE_OPERATION_SYMLINK, func(d *decoder, f *eventv1.FileChange) { f.Text = d.str("points_to") }),
	"mkdir":      change(eventv1.FileOperation_FILE_OPERATION_MKDIR, withMode),
	"mknod":      change(eventv1.FileOperation_FILE_OPERATION_MKNOD, withMode),
	"chmod":      change(eventv1.FileOperation_FILE_OPERATION_CHMOD, withMode),
	"chown": change(eventv1.FileOperation_FILE_OPERATION_CHOWN, func(d *decoder, f *eventv1.FileChange) {
		f.Uid, f.Gid = d.number32("owner", ^uint32(0)), d.number32("group", ^uint32(0))
	}),
	"truncate": change(eventv1.FileOperation_FILE_OPERATION_TRUNCATE, func(d *decoder, f *eventv1.FileChange) { f.Size = d.number("size", 64, 0) }),
	"setxattr": change(eventv1.FileOperation_FILE_OPERATION_SETXATTR, func(d *decoder, f *eventv1.FileChange) { f.Text = d.str("attribute") }),
	"mount": change(eventv1.FileOperation_FILE_OPERATION_MOUNT, func(d *decoder, f *eventv1.FileChange) {
		f.Text, f.FileSystem, f.Flags = d.str("source"), d.str("fs"), d.bits("flags", uapi.MountFlags)
	}),
	"umount": change(eventv1.FileOperation_FILE_OPERATION_UMOUNT, func(d *decoder, f *eventv1.FileChange) { f.Flags = d.bits("flags", uapi.UmountFlags) }),

	"mmap_exec":     memory(eventv1.MemoryOperation_MEMORY_OPERATION_MMAP_EXEC),
	"mprotect_exec": memory(eventv1.MemoryOperation_MEMORY_OPERATION_MPROTECT_EXEC),
	"memfd": func(d *decoder, e *eventv1.Event, _ *field.Context) {
		e.Kind = &eventv1.Event_Memory{Memory: &eventv1.Memory{
			Operation: eventv1.MemoryOperation_MEMORY_OPERATION_MEMFD, Name: d.str("memfd"),
			Flags: uint32(d.bits("flags", uapi.MemfdFlags)), //nolint:gosec // five bits
		}}
	},

	"connect": connect, "accept": accept, "duplicate": duplicate, "socket": newSocket, "connect_unix": connectUnix,
	"bind":         socketOf(eventv1.SocketOperation_SOCKET_OPERATION_BIND),
	"listen":       socketOf(eventv1.SocketOperation_SOCKET_OPERATION_LISTEN),
	"send":         socketOf(eventv1.SocketOperation_SOCKET_OPERATION_SEND),
	"dns_question": dns(false), "dns_answer": dns(true),

	"setuid":           privilege(eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_SETUID, ids),
	"setgid":           privilege(eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_SETGID, ids),
	"setgroups":        privilege(eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_SETGROUPS, count("groups")),
	"capset":           privilege(eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_CAPSET, capabilitySets),
	"ptrace":           privilege(eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_PTRACE, named("request", uapi.PtraceRequest)),
	"process_vm_read":  privilege(eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_PROCESS_VM_READ, count("bytes")),
	"process_vm_write": privilege(eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_PROCESS_VM_WRITE, count("bytes")),
	"setns":            privilege(eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_SETNS, flagged(uapi.CloneFlags)),
	"unshare":          privilege(eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_UNSHARE, flagged(uapi.CloneFlags)),
	"module_load":      privilege(eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_MODULE_LOAD, flagged(uapi.ModuleFlags)),
	"module_unload":    privilege(eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_MODULE_UNLOAD, flagged(uapi.OpenFlags)),
	"bpf":              privilege(eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_BPF, named("cmd", uapi.BPFCommand)),
	"keyctl":           privilege(eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_KEYCTL, named("cmd", uapi.KeyctlOperation)),
	"userfaultfd":      privilege(eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_USERFAULTFD, flagged(uapi.OpenFlags)),
	"perf_event_open":  privilege(eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_PERF_EVENT_OPEN, named("type", uapi.PerfType)),
	"io_uring_setup":   privilege(eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_IO_URING_SETUP, count("entries")),
	"io_uring": func(d *decoder, e *eventv1.Event, _ *field.Context) {
		opcode := d.word("opcode", func(n uint64) string { return uapi.IOUringOp(uint32(n)) }, 0) //nolint:gosec // below maxWord
		e.Kind = &eventv1.Event_IoUring{IoUring: &eventv1.IoUring{Opcode: uint32(opcode)}}        //nolint:gosec // a small number
	},
}

const regular = 0o100000 // a file's type in its mode

// exec is the event of what the process runs.
func (d *decoder) exec(p *field.Process) *eventv1.Exec {
	x := &eventv1.Exec{
		Exe:  &eventv1.File{Path: p.Exe, Mode: regular | 0o755, UpperLayer: p.ExeUpperLayer, Memfd: p.ExeMemfd, Unlinked: p.ExeUnlinked},
		Argv: p.Argv, Cwd: p.Cwd, Tty: p.TTY, Session: p.Session, Group: p.Group, Setuid: d.boolean("setuid"),
	}
	if script := d.str("script"); script != "" {
		x.Script, x.Interpreter = &eventv1.File{Path: script}, p.Exe
	}
	return x
}

// file is the file that an event is about.
func (d *decoder) file(kind uint32) *eventv1.File {
	if d.boolean("directory") {
		kind = 0o040000
	}
	mode := d.number32("mode", 0o644)
	return &eventv1.File{Path: d.str("path"), Mode: kind | mode&0o7777, Inode: 7, UpperLayer: d.boolean("upper_layer")}
}

// access is how a file is opened, for reading if it is absent.
func (d *decoder) access() uint32 {
	switch s := d.str("access"); s {
	case "", "read":
		return 0
	case "write":
		return 1
	case "read_write":
		return 2
	case "path":
		return 0o10000000
	default:
		d.fail(d.values["access"], "access must be read, write, read_write or path, not %q", s)
		return 0
	}
}

func (d *decoder) target() *eventv1.ProcessKey {
	return &eventv1.ProcessKey{Pid: d.number32("target_pid", 500), StartBoottimeNs: 1}
}

func change(operation eventv1.FileOperation, fill func(*decoder, *eventv1.FileChange)) filler {
	return func(d *decoder, e *eventv1.Event, _ *field.Context) {
		f := &eventv1.FileChange{Operation: operation, File: &eventv1.File{Path: d.str("path"), Mode: regular | 0o644, Inode: 7}}
		fill(d, f)
		e.Kind = &eventv1.Event_FileChange{FileChange: f}
	}
}

func nothing(*decoder, *eventv1.FileChange) {}

func withTarget(d *decoder, f *eventv1.FileChange) { f.Target = &eventv1.File{Path: d.str("target")} }

func withMode(d *decoder, f *eventv1.FileChange) { f.Mode = d.number32("mode", 0o644) }

func memory(operation eventv1.MemoryOperation) filler {
	return func(d *decoder, e *eventv1.Event, _ *field.Context) {
		m := &eventv1.Memory{Operation: operation, Writable: d.boolean("writable")}
		m.Flags = uint32(d.bits("prot", uapi.ProtFlags)) //nolint:gosec // 26 bits
		if path := d.str("path"); path != "" {
			m.File = &eventv1.File{Path: path, Mode: regular | 0o755, Inode: 7}
		}
		e.Kind = &eventv1.Event_Memory{Memory: m}
	}
}

func privilege(operation eventv1.PrivilegeOperation, fill func(*decoder, *eventv1.Privilege)) filler {
	return func(d *decoder, e *eventv1.Event, _ *field.Context) {
		p := &eventv1.Privilege{Operation: operation, Target: d.target(), Name: d.str("module")}
		fill(d, p)
		e.Kind = &eventv1.Event_Privilege{Privilege: p}
	}
}

// ids are real, effective and saved id after the call.
func ids(d *decoder, p *eventv1.Privilege) {
	for _, key := range []string{"real_id", "effective_id", "saved_id"} {
		p.Arguments = append(p.Arguments, d.number(key, 32, 0))
	}
}

func count(key string) func(*decoder, *eventv1.Privilege) {
	return func(d *decoder, p *eventv1.Privilege) { p.Arguments = []uint64{d.number(key, 64, 1)} }
}

func named(key string, nameOf func(uint64) string) func(*decoder, *eventv1.Privilege) {
	return func(d *decoder, p *eventv1.Privilege) { p.Arguments = []uint64{d.word(key, nameOf, 0)} }
}

func flagged(table []uapi.Bit) func(*decoder, *eventv1.Privilege) {
	return func(d *decoder, p *eventv1.Privilege) { p.Arguments = []uint64{d.bits("flags", table)} }
}

func capabilitySets(d *decoder, p *eventv1.Privilege) {
	for _, key := range []string{"effective", "permitted", "inheritable"} {
		p.Arguments = append(p.Arguments, d.bits(key, uapi.Capabilities))
	}
}

// known is the names of one sample's far end.
type known struct {
	ip    netip.Addr
	names []string
}

// Any is field.Resolver.
func (k known) Any(_ *eventv1.Event, ip netip.Addr, match func(string) bool) bool {
	for _, name := range k.names {
		if ip == k.ip && match(name) {
			return true
		}
	}
	return false
}

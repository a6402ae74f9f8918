package field

import (
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/uapi"
)

// Kinds that share arguments.
const (
	namedKinds  = KindUnlink | KindRmdir | KindUmount | KindMemfd | KindSetxattr | KindModuleLoad | KindModuleUnload
	targetKinds = KindSignal | KindPtrace | KindProcessVMRead | KindProcessVMWrite
	protKinds   = KindMmapExec | KindMprotectExec
	flagKinds   = KindFileOpen | KindExec | KindRename | KindMount | KindUmount | KindMemfd | KindSetns | KindUnshare | KindModuleLoad |
		KindModuleUnload | KindUserfaultfd
)

// argumentFields are evt.arg.*: a system call's arguments, by the names Falco gives them. Falco knows all as strings;
// those that are numbers are compared as numbers here.
var argumentFields = map[string]Field{
	"evt.arg.flags":           {Doc: "flags by name (O_, EXE_, MS_, CLONE_, ...), joined by |", Kinds: flagKinds, Str: eventFlags},
	"evt.arg.path":            {Doc: "path that the call is about", Kinds: KindUnlink | KindRmdir | KindMkdir | KindMknod | KindChown | KindChroot | KindTruncate, Str: subjectPath},
	"evt.arg.filename":        {Doc: "path that the call is about; of an execve only a script's", Kinds: KindChmod | KindExec | KindExecFailed, Str: subjectPath},
	"evt.arg.name":            {Doc: "path of an unlinkat, rmdir or umount; name of a memfd, a module, an extended attribute", Kinds: namedKinds, Str: argumentName},
	"evt.arg.oldpath":         {Doc: "old name of a rename or link", Kinds: KindRename | KindLink, Str: subjectPath},
	"evt.arg.newpath":         {Doc: "new name of a rename or link", Kinds: KindRename | KindLink, Str: targetPath},
	"evt.arg.target":          {Doc: "what a symlink points to", Kinds: KindSymlink, Str: changeText},
	"evt.arg.linkpath":        {Doc: "name of a new symlink", Kinds: KindSymlink, Str: subjectPath},
	"evt.arg.dev":             {Doc: "what a mount mounts", Kinds: KindMount, Str: changeText},
	"evt.arg.dir":             {Doc: "mount point of a mount", Kinds: KindMount, Str: subjectPath},
	"evt.arg.fs":              {Doc: "type of file system of a mount (ours; Falco's is evt.arg.type)", Kinds: KindMount, Str: fileSystem},
	"evt.arg.type":            {Doc: "type of file system of a mount, SOCK_ of a socket, PERF_TYPE_ of a perf event", Kinds: KindMount | KindSocket | KindPerfEventOpen, Str: argumentType},
	"evt.arg.mode":            {Doc: "new mode by name (S_...), joined by |", Kinds: KindChmod | KindMkdir | KindMknod, Str: changeMode},
	"evt.arg.length":          {Doc: "new size of a truncate", Type: Number, Kinds: KindTruncate, Num: func(c *Context) (int64, bool) { return number(c.Event.GetFileChange().GetSize()), true }},
	"evt.arg.uid":             {Doc: "user id of a chown (-1: as it was), effective one after a setuid", Type: Number, Word: rootID, Kinds: KindChown | KindSetuid, Num: argumentUID},
	"evt.arg.ruid":            {Doc: "real user id after a setuid", Type: Number, Word: rootID, Kinds: KindSetuid, Num: idAfter(0)},
	"evt.arg.euid":            {Doc: "effective user id after a setuid", Type: Number, Word: rootID, Kinds: KindSetuid, Num: idAfter(1)},
	"evt.arg.suid":            {Doc: "saved user id after a setuid", Type: Number, Word: rootID, Kinds: KindSetuid, Num: idAfter(2)},
	"evt.arg.gid":             {Doc: "group id of a chown (-1: as it was), effective one after a setgid", Type: Number, Word: rootID, Kinds: KindChown | KindSetgid, Num: argumentGID},
	"evt.arg.rgid":            {Doc: "real group id after a setgid", Type: Number, Word: rootID, Kinds: KindSetgid, Num: idAfter(0)},
	"evt.arg.egid":            {Doc: "effective group id after a setgid", Type: Number, Word: rootID, Kinds: KindSetgid, Num: idAfter(1)},
	"evt.arg.sgid":            {Doc: "saved group id after a setgid", Type: Number, Word: rootID, Kinds: KindSetgid, Num: idAfter(2)},
	"evt.arg.cap_effective":   {Doc: "effective capabilities after a capset, separated by spaces", Kinds: KindCapset, Str: capsAfter(0)},
	"evt.arg.cap_permitted":   {Doc: "permitted capabilities after a capset, separated by spaces", Kinds: KindCapset, Str: capsAfter(1)},
	"evt.arg.cap_inheritable": {Doc: "inheritable capabilities after a capset, separated by spaces", Kinds: KindCapset, Str: capsAfter(2)},
	"evt.arg.sig":             {Doc: "signal by name (SIG...)", Kinds: KindSignal, Str: func(c *Context) (string, bool) { return uapi.Signal(c.Event.GetSignal().GetNumber()), true }},
	"evt.arg.pid":             {Doc: "process that a signal, ptrace or process_vm_ call is about, in the initial pid namespace", Type: Number, Kinds: targetKinds, Num: targetID},
	"evt.arg.request":         {Doc: "request of a ptrace (PTRACE_...)", Kinds: KindPtrace, Str: argumentWord(uapi.PtraceRequest)},
	"evt.arg.cmd":             {Doc: "command of a bpf (BPF_...) or keyctl (KEYCTL_...)", Kinds: KindBPF | KindKeyctl, Str: argumentCommand},
	"evt.arg.nstype":          {Doc: "type of namespace of a setns (CLONE_NEW...), 0 for any", Kinds: KindSetns, Str: eventFlags},
	"evt.arg.entries":         {Doc: "entries of a new io_uring", Type: Number, Kinds: KindIOUringSetup, Num: firstArgument},
	"evt.arg.opcode":          {Doc: "operation given to an io_uring (IORING_OP_...; ours)", Kinds: KindIOUring, Str: func(c *Context) (string, bool) { return uapi.IOUringOp(c.Event.GetIoUring().GetOpcode()), true }},
	"evt.arg.prot":            {Doc: "access to memory that is mapped or changed (PROT_...), joined by |", Kinds: protKinds, Str: memoryAccess},
	"evt.arg.writable":        {Doc: "the memory is or was writable too (ours)", Type: Bool, Kinds: protKinds, Num: func(c *Context) (int64, bool) { return flag(c.Event.GetMemory().GetWritable()) }},
	"evt.arg.domain":          {Doc: "address family of a socket (AF_...)", Kinds: KindSocket, Str: func(c *Context) (string, bool) { return uapi.Family(c.Event.GetSocket().GetFamily()), true }},
	"evt.arg.proto":           {Doc: "protocol of a socket, as a number", Type: Number, Kinds: KindSocket, Num: func(c *Context) (int64, bool) { return int64(c.Event.GetSocket().GetProtocol()), true }},
}

// argumentOrder is how evt.args lists them; an alias is left out.
var argumentOrder = [...]string{
	"request", "cmd", "opcode", "pid", "sig", "domain", "type", "proto", "dev", "dir", "oldpath", "newpath", "target", "linkpath", "path",
	"filename", "name", "mode", "uid", "gid", "ruid", "euid", "suid", "rgid", "egid", "sgid", "cap_effective", "cap_permitted",
	"cap_inheritable", "length", "nstype", "prot", "writable", "entries", "flags",
}

// eventArgs is for people, so it allocates; no condition should use it.
func eventArgs(c *Context) (string, bool) {
	var out []byte
	for _, name := range argumentOrder {
		before := len(out)
		if before > 0 {
			out = append(out, ' ')
		}
		out = append(append(out, name...), '=')
		with, ok := argumentFields["evt.arg."+name].AppendText(out, c)
		if !ok {
			with = out[:before]
		}
		out = with
	}
	return text(string(out))
}

// number is a count or size of the kernel's as rules compare it.
func number(n uint64) int64 {
	return int64(n) //nolint:gosec // sizes stay below 2^63, and what does not is -1 to the kernel too
}

// rootID reads the one name that has a fixed number everywhere.
func rootID(name string) (int64, bool) { return 0, name == "root" }

// unchangedID is what chown(2) takes for an id that stays.
const unchangedID = ^uint32(0)

func id(n uint32) int64 {
	if n == unchangedID {
		return -1
	}
	return int64(n)
}

func subjectPath(c *Context) (string, bool) { return text(subject(c.Event).GetPath()) }

// subject is the file an event is about, nil if there is none. Of an exec it is the script; the executable is the process's.
func subject(e *eventv1.Event) *eventv1.File {
	switch kind := e.GetKind().(type) {
	case *eventv1.Event_FileOpen:
		return kind.FileOpen.GetFile()
	case *eventv1.Event_FileChange:
		return kind.FileChange.GetFile()
	case *eventv1.Event_Memory:
		return kind.Memory.GetFile()
	case *eventv1.Event_Exec:
		return kind.Exec.GetScript()
	case *eventv1.Event_ExecFailed:
		return kind.ExecFailed.GetFile()
	}
	return nil
}

func targetPath(c *Context) (string, bool) {
	return text(c.Event.GetFileChange().GetTarget().GetPath())
}

func changeText(c *Context) (string, bool) { return text(c.Event.GetFileChange().GetText()) }

func fileSystem(c *Context) (string, bool) { return text(c.Event.GetFileChange().GetFileSystem()) }

func argumentName(c *Context) (string, bool) {
	switch kind := c.Event.GetKind().(type) {
	case *eventv1.Event_Memory:
		return text(kind.Memory.GetName())
	case *eventv1.Event_Privilege:
		return text(kind.Privilege.GetName())
	}
	if KindOf(c.Event) == KindSetxattr {
		return changeText(c)
	}
	return subjectPath(c)
}

func argumentType(c *Context) (string, bool) {
	switch kind := c.Event.GetKind().(type) {
	case *eventv1.Event_Socket:
		return uapi.SocketType(kind.Socket.GetType()), true
	case *eventv1.Event_Privilege:
		return argumentWord(uapi.PerfType)(c)
	}
	return fileSystem(c)
}

func argumentUID(c *Context) (int64, bool) {
	if change := c.Event.GetFileChange(); change != nil {
		return id(change.GetUid()), true
	}
	return idAfter(1)(c)
}

func argumentGID(c *Context) (int64, bool) {
	if change := c.Event.GetFileChange(); change != nil {
		return id(change.GetGid()), true
	}
	return idAfter(1)(c)
}

// idAfter is one of real, effective and saved id after the call: the last three arguments.
func idAfter(n int) func(*Context) (int64, bool) {
	return func(c *Context) (int64, bool) {
		ids := c.Event.GetPrivilege().GetArguments()
		if len(ids) < 3 {
			return 0, false
		}
		return id(uint32(ids[len(ids)-3+n])), true //nolint:gosec // an id has 32 bits
	}
}

func capsAfter(n int) func(*Context) (string, bool) {
	return func(c *Context) (string, bool) {
		masks := c.Event.GetPrivilege().GetArguments()
		if len(masks) <= n {
			return "", false
		}
		return c.spelled(capabilities, masks[n]), true
	}
}

// firstArgument is what a Privilege's operation was told.
func firstArgument(c *Context) (int64, bool) {
	arguments := c.Event.GetPrivilege().GetArguments()
	if len(arguments) == 0 {
		return 0, false
	}
	return number(arguments[0]), true
}

// argumentWord names the first argument.
func argumentWord(name func(uint64) string) func(*Context) (string, bool) {
	return func(c *Context) (string, bool) {
		n, ok := firstArgument(c)
		if !ok {
			return "", false
		}
		return name(uint64(n)), true //nolint:gosec // was one before
	}
}

func argumentCommand(c *Context) (string, bool) {
	if KindOf(c.Event) == KindBPF {
		return argumentWord(uapi.BPFCommand)(c)
	}
	return argumentWord(uapi.KeyctlOperation)(c)
}

// targetID is missing where the collector could not tell: the caller lives in another pid namespace.
func targetID(c *Context) (int64, bool) {
	target := c.Event.GetSignal().GetTarget()
	if target == nil {
		target = c.Event.GetPrivilege().GetTarget()
	}
	return int64(target.GetPid()), target.GetPid() != 0
}

func changeMode(c *Context) (string, bool) {
	return c.spelled(modes, uint64(c.Event.GetFileChange().GetMode())), true
}

func memoryAccess(c *Context) (string, bool) {
	return c.spelled(protections, uint64(c.Event.GetMemory().GetFlags())), true
}

// eventFlags are names joined by |, as Falco writes them. An executable without any property has none.
func eventFlags(c *Context) (string, bool) {
	switch kind := c.Event.GetKind().(type) {
	case *eventv1.Event_FileOpen:
		mask := uint64(kind.FileOpen.GetFlags())
		if kind.FileOpen.GetFile().GetUpperLayer() {
			mask |= upperLayer
		}
		return c.spelled(openings, mask), true
	case *eventv1.Event_Exec:
		return text(exeFlags(kind.Exec.GetExe()))
	case *eventv1.Event_FileChange:
		return c.spelled(flagsOf(KindOf(c.Event)), kind.FileChange.GetFlags()), true
	case *eventv1.Event_Memory:
		return c.spelled(memfds, uint64(kind.Memory.GetFlags())), true
	}
	mask, ok := firstArgument(c)
	if !ok {
		return "", false
	}
	return c.spelled(flagsOf(KindOf(c.Event)), uint64(mask)), true //nolint:gosec // was one before
}

// exeFlags is one of eight constants.
func exeFlags(exe *eventv1.File) string {
	names := [...]string{
		"", "EXE_UPPER_LAYER", "EXE_FROM_MEMFD", "EXE_UPPER_LAYER|EXE_FROM_MEMFD",
		"EXE_UNLINKED", "EXE_UPPER_LAYER|EXE_UNLINKED", "EXE_FROM_MEMFD|EXE_UNLINKED", "EXE_UPPER_LAYER|EXE_FROM_MEMFD|EXE_UNLINKED",
	}
	n := 0
	for bit, set := range [...]bool{exe.GetUpperLayer(), exe.GetMemfd(), exe.GetUnlinked()} {
		if set {
			n |= 1 << bit
		}
	}
	return names[n]
}

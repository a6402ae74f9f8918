package field

import (
	"math/bits"
	"slices"
	"strings"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// Kinds is a set of event kinds, one bit each.
type Kinds uint64

// The kinds a rule can match, each a class of records. Loss and Started are about the collector, not about a process,
// and are in no set: no rule sees them.
const (
	KindExec Kinds = 1 << iota
	KindFork
	KindExit
	KindFileOpen
	KindConnect
	KindAccept
	KindExisting
	KindExecFailed
	KindSignal
	KindRename
	KindUnlink
	KindRmdir
	KindLink
	KindSymlink
	KindMkdir
	KindMknod
	KindChmod
	KindChown
	KindTruncate
	KindSetxattr
	KindMount
	KindUmount
	KindPivotRoot
	KindChroot
	KindMmapExec
	KindMprotectExec
	KindMemfd
	KindSocket
	KindBind
	KindListen
	KindSend
	KindConnectUnix
	KindDNSQuestion
	KindDNSAnswer
	KindSetuid
	KindSetgid
	KindSetgroups
	KindCapset
	KindPtrace
	KindProcessVMRead
	KindProcessVMWrite
	KindSetns
	KindUnshare
	KindModuleLoad
	KindModuleUnload
	KindBPF
	KindKeyctl
	KindUserfaultfd
	KindPerfEventOpen
	KindIOUringSetup
	KindIOUring
	KindDuplicate

	// AllKinds is every kind a rule can match.
	AllKinds Kinds = 1<<iota - 1
)

// NumKinds is how many kinds there are; Kinds.Index is below it.
const NumKinds = 52

// LifeCycle are the kinds that the process tree lives on.
const LifeCycle = KindExec | KindFork | KindExit

// class is what a kind is called. types are the names by which evt.type knows it; its answer is the first. One record
// covers the whole family of system calls that end in the same kernel function, so every name of the family stands for
// all of it: `evt.type = open` is true of a file opened by openat2.
type class struct {
	name  string
	types []string
}

// classes are all kinds, in the order of their bits. Names are those of the collector's classes of records.
var classes = [NumKinds]class{
	{"exec", []string{"execve", "execveat"}},
	{"fork", []string{"clone", "clone3", "fork", "vfork"}},
	{"exit", []string{"procexit"}},
	{"file_open", []string{"openat", "open", "openat2", "creat"}},
	{"connect", []string{"connect"}},
	{"accept", []string{"accept4", "accept"}},
	// Ours: a process that ran before the collector did. It is no execve, nothing was started.
	{"existing", []string{"existing"}},
	// Ours: an execve that failed. Under its own name, so that a rule on new programs does not see the old one's facts.
	{"exec_failed", []string{"execve_failed"}},
	{"signal", []string{"kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal"}},
	{"rename", []string{"rename", "renameat", "renameat2"}},
	{"unlink", []string{"unlink", "unlinkat"}},
	{"rmdir", []string{"rmdir", "unlinkat"}},
	{"link", []string{"link", "linkat"}},
	{"symlink", []string{"symlink", "symlinkat"}},
	{"mkdir", []string{"mkdir", "mkdirat"}},
	{"mknod", []string{"mknod", "mknodat"}},
	{"chmod", []string{"chmod", "fchmod", "fchmodat", "fchmodat2"}},
	{"chown", []string{"chown", "fchown", "lchown", "fchownat"}},
	{"truncate", []string{"truncate", "ftruncate"}},
	{"setxattr", []string{"setxattr", "lsetxattr", "fsetxattr", "setxattrat"}},
	{"mount", []string{"mount", "move_mount"}},
	{"umount", []string{"umount2", "umount"}},
	{"pivot_root", []string{"pivot_root"}},
	{"chroot", []string{"chroot"}},
	{"mmap_exec", []string{"mmap", "mmap2"}},
	{"mprotect_exec", []string{"mprotect", "pkey_mprotect"}},
	{"memfd", []string{"memfd_create"}},
	{"socket", []string{"socket"}},
	{"bind", []string{"bind"}},
	{"listen", []string{"listen"}},
	{"send", []string{"sendto", "sendmsg", "sendmmsg"}},
	{"connect_unix", []string{"connect"}},
	{"dns_question", []string{"dns_question"}}, // ours, like the next
	{"dns_answer", []string{"dns_answer"}},
	{"setuid", []string{"setuid", "setreuid", "setresuid"}},
	{"setgid", []string{"setgid", "setregid", "setresgid"}},
	{"setgroups", []string{"setgroups"}},
	{"capset", []string{"capset"}},
	{"ptrace", []string{"ptrace"}},
	{"process_vm_read", []string{"process_vm_readv"}},
	{"process_vm_write", []string{"process_vm_writev"}},
	{"setns", []string{"setns"}},
	{"unshare", []string{"unshare"}},
	{"module_load", []string{"init_module", "finit_module"}},
	{"module_unload", []string{"delete_module"}},
	{"bpf", []string{"bpf"}},
	{"keyctl", []string{"keyctl", "add_key", "request_key"}},
	{"userfaultfd", []string{"userfaultfd"}},
	{"perf_event_open", []string{"perf_event_open"}},
	{"io_uring_setup", []string{"io_uring_setup"}},
	{"io_uring", []string{"io_uring"}}, // ours: no system call stands for it
	// Also fcntl's F_DUPFD and pidfd_getfd, whose own names would promise more: only sockets that become standard streams are told.
	{"duplicate", []string{"dup2", "dup", "dup3"}},
}

// KindsNamed are the kinds of which at least one name satisfies match.
func KindsNamed(match func(name string) bool) Kinds {
	var set Kinds
	for i := range classes {
		if slices.ContainsFunc(classes[i].types, match) {
			set |= 1 << i
		}
	}
	return set
}

// Has says whether any kind of other is in the set.
func (k Kinds) Has(other Kinds) bool { return k&other != 0 }

// Index is the place of a single kind, from 0 to NumKinds-1, and -1 for the empty set.
func (k Kinds) Index() int {
	if k == 0 {
		return -1
	}
	return bits.TrailingZeros64(uint64(k))
}

// String lists the set by the names evt.type answers.
func (k Kinds) String() string {
	var names []string
	for rest := k & AllKinds; rest != 0; rest &= rest - 1 {
		if name := typeName(rest & -rest); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// Classes lists the set by the names of the classes of records.
func (k Kinds) Classes() []string {
	var names []string
	for rest := k & AllKinds; rest != 0; rest &= rest - 1 {
		names = append(names, classes[rest.Index()].name)
	}
	return names
}

// IsClass says whether a class of records has that name.
func IsClass(name string) bool {
	return slices.ContainsFunc(classes[:], func(c class) bool { return c.name == name })
}

// typeName is what evt.type answers for a single kind, empty for none.
func typeName(kind Kinds) string {
	if kind == 0 {
		return ""
	}
	return classes[kind.Index()].types[0]
}

// KindOf is the kind of an event, empty for one that no rule can match.
func KindOf(e *eventv1.Event) Kinds {
	switch kind := e.GetKind().(type) {
	case *eventv1.Event_Exec:
		return KindExec
	case *eventv1.Event_Fork:
		return KindFork
	case *eventv1.Event_Exit:
		return KindExit
	case *eventv1.Event_FileOpen:
		return KindFileOpen
	case *eventv1.Event_Connect:
		return KindConnect
	case *eventv1.Event_Accept:
		return KindAccept
	case *eventv1.Event_Existing:
		return KindExisting
	case *eventv1.Event_ExecFailed:
		return KindExecFailed
	case *eventv1.Event_Signal:
		return KindSignal
	case *eventv1.Event_FileChange:
		return consecutive(KindRename, KindChroot, int32(kind.FileChange.GetOperation()))
	case *eventv1.Event_Memory:
		return consecutive(KindMmapExec, KindMemfd, int32(kind.Memory.GetOperation()))
	case *eventv1.Event_Socket:
		return consecutive(KindSocket, KindConnectUnix, int32(kind.Socket.GetOperation()))
	case *eventv1.Event_Dns:
		if kind.Dns.GetResponse() {
			return KindDNSAnswer
		}
		return KindDNSQuestion
	case *eventv1.Event_Privilege:
		return consecutive(KindSetuid, KindIOUringSetup, int32(kind.Privilege.GetOperation()))
	case *eventv1.Event_IoUring:
		return KindIOUring
	case *eventv1.Event_Duplicate:
		return KindDuplicate
	}
	return 0
}

// consecutive is the kind of an operation, which are numbered from 1 in the order of the kinds from first to last. One
// that we do not know yet is none.
func consecutive(first, last Kinds, operation int32) Kinds {
	if operation < 1 || operation > 63 {
		return 0
	}
	if kind := first << (operation - 1); kind <= last {
		return kind
	}
	return 0
}

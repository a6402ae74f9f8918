// Package record turns the bytes that the BPF programs put on the rings into events. In: one record, laid out as
// bpf/event.h says. Out: one palisade.event.v1.Event. Every length is checked before it is used; the kernel side
// is ours, but a decoder that trusts it turns one bug there into two.
package record

// Kind says what a record tells. The numbers are bpf/event.h's enum record_kind.
type Kind uint32

// The kinds of record.
const (
	Exec           Kind = 1
	Fork           Kind = 2
	Exit           Kind = 3
	FileOpen       Kind = 4
	Connect        Kind = 5
	Accept         Kind = 6
	Existing       Kind = 7 // only from the task iterator, never on a ring
	ExecFailed     Kind = 8
	Signal         Kind = 9
	Rename         Kind = 10
	Unlink         Kind = 11
	Rmdir          Kind = 12
	Link           Kind = 13
	Symlink        Kind = 14
	Mkdir          Kind = 15
	Mknod          Kind = 16
	Chmod          Kind = 17
	Chown          Kind = 18
	Truncate       Kind = 19
	Setxattr       Kind = 20
	Mount          Kind = 21
	Umount         Kind = 22
	PivotRoot      Kind = 23
	Chroot         Kind = 24
	MmapExec       Kind = 25
	MprotectExec   Kind = 26
	Memfd          Kind = 27
	Socket         Kind = 28
	Bind           Kind = 29
	Listen         Kind = 30
	Send           Kind = 31
	ConnectUnix    Kind = 32
	DNSQuestion    Kind = 33
	DNSAnswer      Kind = 34
	Setuid         Kind = 35
	Setgid         Kind = 36
	Setgroups      Kind = 37
	Capset         Kind = 38
	Ptrace         Kind = 39
	ProcessVMRead  Kind = 40
	ProcessVMWrite Kind = 41
	Setns          Kind = 42
	Unshare        Kind = 43
	ModuleLoad     Kind = 44
	ModuleUnload   Kind = 45
	BPF            Kind = 46
	Keyctl         Kind = 47
	Userfaultfd    Kind = 48
	PerfEventOpen  Kind = 49
	IOUringSetup   Kind = 50
	IOUring        Kind = 51
	Duplicate      Kind = 52
)

// Kinds is one more than the greatest kind.
const Kinds = 53

// classes are the names that losses and counts are reported under.
var classes = [Kinds]string{
	Exec: "exec", Fork: "fork", Exit: "exit", FileOpen: "file_open", Connect: "connect", Accept: "accept", Existing: "existing",
	ExecFailed: "exec_failed", Signal: "signal", Rename: "rename", Unlink: "unlink", Rmdir: "rmdir", Link: "link",
	Symlink: "symlink", Mkdir: "mkdir", Mknod: "mknod", Chmod: "chmod", Chown: "chown", Truncate: "truncate",
	Setxattr: "setxattr", Mount: "mount", Umount: "umount", PivotRoot: "pivot_root", Chroot: "chroot",
	MmapExec: "mmap_exec", MprotectExec: "mprotect_exec", Memfd: "memfd", Socket: "socket", Bind: "bind", Listen: "listen",
	Send: "send", ConnectUnix: "connect_unix", DNSQuestion: "dns_question", DNSAnswer: "dns_answer", Setuid: "setuid",
	Setgid: "setgid", Setgroups: "setgroups", Capset: "capset", Ptrace: "ptrace", ProcessVMRead: "process_vm_read",
	ProcessVMWrite: "process_vm_write", Setns: "setns", Unshare: "unshare", ModuleLoad: "module_load",
	ModuleUnload: "module_unload", BPF: "bpf", Keyctl: "keyctl", Userfaultfd: "userfaultfd",
	PerfEventOpen: "perf_event_open", IOUringSetup: "io_uring_setup", IOUring: "io_uring",
	Duplicate: "duplicate",
}

// Class is the name losses and counts are reported under, or "unknown".
func (k Kind) Class() string {
	if k == 0 || k >= Kinds {
		return "unknown"
	}
	return classes[k]
}

// KindOfClass is the kind with the name, 0 if there is none.
func KindOfClass(class string) Kind {
	for kind := Kind(1); kind < Kinds; kind++ {
		if classes[kind] == class {
			return kind
		}
	}
	return 0
}

package probe

import (
	"slices"

	"github.com/cilium/ebpf/btf"

	"github.com/palisade-sec/palisade/services/collector/internal/kernel"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// Place says what kind of place in the kernel a hook is, and so how its program gets there.
type Place int

// The places.
const (
	// Tracepoint is a typed tracepoint.
	Tracepoint Place = iota
	// Decision is one of the kernel's security decisions: an LSM hook, or in the tier modify-return the function that asks it.
	Decision
	// Announcement is an LSM hook without a result, so in the tier modify-return there is nothing to modify.
	Announcement
	// Call is the end of system calls: the functions of Calls, in every ABI the kernel has them in.
	Call
	// Iterator is run by user space.
	Iterator
	// Cgroup is the edge of the root cgroup, for packets.
	Cgroup
)

// Hook is a place in the kernel and the program that goes there.
type Hook struct {
	// Name of the tracepoint, LSM hook or iterator, or of a group of calls.
	Name string
	// Family is what it is about, for people: process, file, memory, network, dns, privilege.
	Family string
	Place  Place
	// Function of the kernel that asks an LSM hook; empty for security_NAME.
	Function string
	// Program is the C function; of a Call with Each its first part.
	Program string
	// Each says that each call has a program of its own, Program_CALL.
	Each bool
	// Kind of its records, 0 if it makes several; of a Call callKinds has it.
	Kind record.Kind
	// Calls are the system calls of a Call, without prefix.
	Calls []string
	// Since is the first kernel that has the place; empty for all that we support.
	Since string
	// Required hooks fail the start if the kernel refuses them; without the others something is degraded.
	Required bool
	// Without says what is missing without the hook, for people.
	Without string
}

// function is the kernel's that asks an LSM hook.
func (h Hook) function() string {
	if h.Function != "" {
		return h.Function
	}
	return "security_" + h.Name
}

// programOf is the C function for one of the hook's places.
func (h Hook) programOf(place string) string {
	if !h.Each {
		return h.Program
	}
	call, _ := callOf(place)
	return h.Program + "_" + call
}

// iterator is the one hook that user space runs.
const iterator = "iter/task"

// lifecycle is in every tier, in the order in which it is attached: exits before execs and forks, so that no process is
// seen to start whose end goes unseen.
var lifecycle = []Hook{
	{Name: "sched_process_exit", Kind: record.Exit, Family: "process", Program: "on_sched_process_exit", Required: true},
	{Name: "sched_process_fork", Kind: record.Fork, Family: "process", Program: "on_sched_process_fork", Required: true},
	{Name: "sched_process_exec", Kind: record.Exec, Family: "process", Program: "on_sched_process_exec", Required: true},
	{Name: "signal_generate", Kind: record.Signal, Family: "process", Program: "on_signal_generate", Without: "signals are not seen"},
	{Name: iterator, Family: "process", Place: Iterator, Program: "on_task", Without: "processes that ran before the collector are unknown"},
}

// packets is in every tier.
var packets = []Hook{
	{Name: "egress", Family: "dns", Place: Cgroup, Program: "on_egress", Without: "DNS questions are not seen, and no name is denied"},
	{Name: "ingress", Family: "dns", Place: Cgroup, Program: "on_ingress", Without: "DNS answers are not seen"},
}

// ends of system calls are all that the tracepoint tier has for files, memory, network and privilege.
var ends = []Hook{
	{Name: "sys_exit", Family: "file", Program: "on_sys_exit", Required: true},
}

// entries of system calls are for the sets of those that workloads use, in every tier, if they are asked for.
var entries = []Hook{
	{Name: "sys_enter", Family: "process", Program: "on_sys_enter", Without: "the sets of system calls that workloads use are unknown"},
}

// decisions are the kernel's own, for the tiers lsm and modify-return.
var decisions = []Hook{
	{Name: "bprm_check_security", Kind: record.ExecFailed, Function: "security_bprm_check", Family: "process", Place: Decision, Program: "on_bprm_check", Required: true},
	{Name: "file_open", Kind: record.FileOpen, Family: "file", Place: Decision, Program: "on_file_open", Required: true},
	{Name: "path_rename", Kind: record.Rename, Family: "file", Place: Decision, Program: "on_path_rename", Without: "renames are not seen"},
	{Name: "path_unlink", Kind: record.Unlink, Family: "file", Place: Decision, Program: "on_path_unlink", Without: "removed files are not seen"},
	{Name: "path_rmdir", Kind: record.Rmdir, Family: "file", Place: Decision, Program: "on_path_rmdir", Without: "removed directories are not seen"},
	{Name: "path_link", Kind: record.Link, Family: "file", Place: Decision, Program: "on_path_link", Without: "hard links are not seen"},
	{Name: "path_symlink", Kind: record.Symlink, Family: "file", Place: Decision, Program: "on_path_symlink", Without: "symbolic links are not seen"},
	{Name: "path_mkdir", Kind: record.Mkdir, Family: "file", Place: Decision, Program: "on_path_mkdir", Without: "new directories are not seen"},
	{Name: "path_mknod", Kind: record.Mknod, Family: "file", Place: Decision, Program: "on_path_mknod", Without: "new device nodes are not seen"},
	{Name: "path_chmod", Kind: record.Chmod, Family: "file", Place: Decision, Program: "on_path_chmod", Without: "changes of mode are not seen"},
	{Name: "path_chown", Kind: record.Chown, Family: "file", Place: Decision, Program: "on_path_chown", Without: "changes of owner are not seen"},
	{Name: "path_truncate", Kind: record.Truncate, Family: "file", Place: Decision, Program: "on_path_truncate", Without: "truncated files are not seen"},
	{Name: "file_truncate", Kind: record.Truncate, Family: "file", Place: Decision, Program: "on_file_truncate", Since: "6.2", Without: "files truncated by descriptor are not seen"},
	{Name: "sb_mount", Kind: record.Mount, Family: "file", Place: Decision, Program: "on_sb_mount", Without: "mounts are not seen"},
	{Name: "move_mount", Kind: record.Mount, Family: "file", Place: Decision, Program: "on_move_mount", Without: "mounts of the fsopen family are not seen"},
	{Name: "sb_umount", Kind: record.Umount, Family: "file", Place: Decision, Program: "on_sb_umount", Without: "unmounts are not seen"},
	{Name: "sb_pivotroot", Kind: record.PivotRoot, Family: "file", Place: Decision, Program: "on_sb_pivotroot", Without: "pivot_root is not seen"},
	{Name: "path_chroot", Kind: record.Chroot, Family: "file", Place: Decision, Program: "on_path_chroot", Without: "chroot is not seen"},
	{Name: "mmap_file", Kind: record.MmapExec, Family: "memory", Place: Decision, Program: "on_mmap_file", Without: "executable mappings are not seen"},
	{Name: "file_mprotect", Kind: record.MprotectExec, Family: "memory", Place: Decision, Program: "on_file_mprotect", Without: "memory made executable is not seen"},
	{Name: "socket_create", Kind: record.Socket, Family: "network", Place: Decision, Program: "on_socket_create", Without: "new sockets are not seen"},
	{Name: "socket_bind", Kind: record.Bind, Family: "network", Place: Decision, Program: "on_socket_bind", Without: "bound sockets are not seen"},
	{Name: "socket_listen", Kind: record.Listen, Family: "network", Place: Decision, Program: "on_socket_listen", Without: "listening sockets are not seen"},
	{Name: "socket_connect", Family: "network", Place: Decision, Program: "on_socket_connect", Required: true},
	{Name: "socket_sendmsg", Kind: record.Send, Family: "network", Place: Decision, Program: "on_socket_sendmsg", Without: "datagrams to new peers are not seen"},
	{Name: "sock_graft", Kind: record.Accept, Family: "network", Place: Announcement, Program: "on_sock_graft", Without: "accepted connections are not seen"},
	{Name: "task_fix_setuid", Kind: record.Setuid, Family: "privilege", Place: Decision, Program: "on_task_fix_setuid", Without: "changes of user id are not seen"},
	{Name: "task_fix_setgid", Kind: record.Setgid, Family: "privilege", Place: Decision, Program: "on_task_fix_setgid", Without: "changes of group id are not seen"},
}

// calls are those that no decision stands for, at their end.
var calls = []Hook{
	{Name: "setxattr", Family: "file", Place: Call, Program: "on_call_setxattr", Calls: []string{"setxattr", "lsetxattr", "fsetxattr"},
		Without: "extended attributes, and file capabilities among them, are not seen"},
	{Name: "memfd", Family: "memory", Place: Call, Program: "on_call_memfd", Calls: []string{"memfd_create"}, Without: "memory files are not seen before something uses them"},
	{Name: "exec", Family: "process", Place: Call, Program: "on_call_exec", Calls: []string{"execve", "execveat"}, Without: "failed execs are not seen"},
	{Name: "module", Family: "privilege", Place: Call, Program: "on_call_module", Calls: []string{"init_module", "finit_module", "delete_module"},
		Without: "kernel modules are not seen"},
	{Name: "duplicate", Family: "network", Place: Call, Program: "on_call_duplicate", Calls: duplicateCalls,
		Without: "sockets that become a program's input or output are not seen"},
	{Name: "privilege", Family: "privilege", Place: Call, Program: "on_call", Each: true, Calls: privilegeCalls,
		Without: "uses of privilege are not seen"},
}

// callsAtOnce is all of calls in one place, where the kernel's type information lacks some of their functions.
var callsAtOnce = []Hook{
	{Name: "sys_exit", Family: "privilege", Program: "on_sys_exit_calls", Without: "failed execs, memory files, modules, uses of privilege and sockets as input or output are not seen"},
}

// duplicateCalls also has fcntl64, by which only 32-bit programs go.
var duplicateCalls = []string{"dup", "dup2", "dup3", "fcntl", "fcntl64", "pidfd_getfd"}

var privilegeCalls = []string{
	"add_key", "bpf", "capset", "io_uring_setup", "keyctl", "perf_event_open", "process_vm_readv", "process_vm_writev",
	"ptrace", "request_key", "setgroups", "setgroups16", "setns", "unshare", "userfaultfd",
}

// decisionsOf leaves out what a kernel does not have yet, or cannot hand to a program.
func decisionsOf(k kernel.Kernel) []Hook {
	return slices.DeleteFunc(slices.Clone(decisions), func(h Hook) bool {
		younger := h.Since != "" && !k.HasFunction(h.function())
		return younger || h.Name == "path_chown" && !k.StructArguments
	})
}

// callsOf are the hooks for system calls.
func callsOf(k kernel.Kernel) []Hook {
	if !k.StructArguments {
		return callsAtOnce // chown is among them
	}
	for _, hook := range calls {
		for _, call := range hook.Calls {
			if optional := call == "setgroups16" || call == "fcntl64"; !optional && len(functionsOf([]string{call}, k)) == 0 {
				return callsAtOnce
			}
		}
	}
	return calls
}

// rings are the shapes that the tracepoint of io_uring's operations has had: two names and more than two lists of arguments.
var rings = map[string]Hook{
	"request":     {Name: "io_uring_submit_req", Kind: record.IOUring, Family: "privilege", Program: "on_io_uring_request", Without: ringUnseen},
	"old request": {Name: "io_uring_submit_sqe", Kind: record.IOUring, Family: "privilege", Program: "on_io_uring_request", Without: ringUnseen},
	"opcode":      {Name: "io_uring_submit_sqe", Kind: record.IOUring, Family: "privilege", Program: "on_io_uring_opcode", Without: ringUnseen},
}

const ringUnseen = "operations of io_uring are not told as such"

// ringHookOf chooses among the shapes that the tracepoint of io_uring's operations has had.
func ringHookOf(types *btf.Spec) Hook {
	if len(kernel.TracepointArguments(types, rings["request"].Name)) > 0 {
		return rings["request"]
	}
	arguments := kernel.TracepointArguments(types, rings["old request"].Name)
	if len(arguments) > 0 && kernel.IsPointerTo(arguments[0].Type, "io_kiocb") {
		return rings["old request"]
	}
	return rings["opcode"]
}

// opcodeIsThird says whether the tracepoint of io_uring's operations passes the request before the opcode.
func opcodeIsThird(k kernel.Kernel) bool {
	arguments := kernel.TracepointArguments(k.Types, rings["opcode"].Name)
	if len(arguments) < 3 {
		return false
	}
	_, pointer := arguments[1].Type.(*btf.Pointer)
	return pointer
}

// hooksOf lists what a tier attaches on a kernel, in order; with the sets of system calls if they are asked for.
func hooksOf(tier Tier, k kernel.Kernel, syscalls bool) []Hook {
	hooks := slices.Clone(lifecycle)
	if tier == TierTracepoint {
		hooks = append(hooks, ends...)
	} else {
		hooks = append(hooks, decisionsOf(k)...)
		hooks = append(hooks, callsOf(k)...)
	}
	hooks = append(hooks, ringHookOf(k.Types))
	if syscalls {
		hooks = append(hooks, entries...)
	}
	return append(hooks, packets...)
}

// callKinds says of which kind the records of a call's end are.
var callKinds = map[string]record.Kind{
	"setxattr": record.Setxattr, "lsetxattr": record.Setxattr, "fsetxattr": record.Setxattr, "memfd_create": record.Memfd,
	"execve": record.ExecFailed, "execveat": record.ExecFailed, "init_module": record.ModuleLoad,
	"finit_module": record.ModuleLoad, "delete_module": record.ModuleUnload, "add_key": record.Keyctl, "bpf": record.BPF,
	"capset": record.Capset, "io_uring_setup": record.IOUringSetup, "keyctl": record.Keyctl,
	"perf_event_open": record.PerfEventOpen, "process_vm_readv": record.ProcessVMRead,
	"process_vm_writev": record.ProcessVMWrite, "ptrace": record.Ptrace, "request_key": record.Keyctl,
	"setgroups": record.Setgroups, "setgroups16": record.Setgroups, "setns": record.Setns, "unshare": record.Unshare,
	"userfaultfd": record.Userfaultfd, "dup": record.Duplicate, "dup2": record.Duplicate, "dup3": record.Duplicate,
	"fcntl": record.Duplicate, "fcntl64": record.Duplicate, "pidfd_getfd": record.Duplicate,
}

// Program is one that is attached: a hook has one for each of its places.
type Program struct {
	Hook Hook
	// Place is the hook's name, or the kernel function of one of its calls.
	Place string
}

// Call is the system call at whose end the program runs, and whether in this architecture's own ABI; "" if the hook is none of
// calls.
func (p Program) Call() (name string, native bool) {
	if p.Hook.Place != Call {
		return "", false
	}
	return callOf(p.Place)
}

// Kind is that of the program's records, 0 if it makes several.
func (p Program) Kind() record.Kind {
	if call, _ := p.Call(); call != "" {
		return callKinds[call]
	}
	return p.Hook.Kind
}

// Programs are all that are attached, in that order. The iterator is not: it is run.
func (s *Set) Programs() []Program {
	programs := make([]Program, 0, len(s.held))
	for _, h := range s.held {
		programs = append(programs, Program{Hook: h.hook, Place: h.place})
	}
	return programs
}

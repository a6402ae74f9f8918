package selftest

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// trial is what a program waits for, or why we do not do it.
type trial struct {
	// do returns an error if the kernel may not have come as far as the program. It is nil if a child's life is the trial.
	do   func(*ground) error
	kind record.Kind // of the record it must make, if the program makes several
	why  string
}

func (t trial) kindOf(program probe.Program) record.Kind {
	if t.kind != 0 {
		return t.kind
	}
	return program.Kind()
}

func trialOf(program probe.Program) trial {
	name := program.Hook.Name
	if call, native := program.Call(); call != "" {
		if !native {
			return trial{why: "only 32-bit programs get there"}
		}
		name = call
	}
	t, ok := trials[name]
	if !ok {
		return trial{why: "nobody has written a trial for it"}
	}
	return t
}

// needs is the trial of what the kernel decides about only for those that have a capability.
func needs(capability string) trial { return trial{why: "needs " + capability} }

// refused is the error of a call that may have been refused before any program was called: by a seccomp profile, by
// another security module, for want of a capability. Any other error comes from where the programs are.
func refused(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS) {
		return err
	}
	return nil
}

// trials by the name of the hook, or of the call where the hook is one of calls.
var trials = map[string]trial{
	"sched_process_exit": {}, "sched_process_fork": {}, "sched_process_exec": {}, "signal_generate": {},
	"bprm_check_security": {},

	"sys_exit":            {do: makeMemory, kind: record.Memfd},
	"io_uring_submit_req": {do: ringNothing},
	"io_uring_submit_sqe": {do: ringNothing},
	"egress":              {why: "would need a packet to a name server"},
	"ingress":             {why: "would need a packet from a name server"},

	"file_open":     {do: openFile},
	"path_rename":   {do: rename},
	"path_unlink":   {do: unlink},
	"path_rmdir":    {do: removeDirectory},
	"path_link":     {do: linkTwice},
	"path_symlink":  {do: symlink},
	"path_mkdir":    {do: makeDirectory},
	"path_mknod":    {do: makeNode},
	"path_chmod":    {do: onMemory(func(fd int) error { return unix.Fchmod(fd, 0o600) })},
	"path_chown":    {do: onMemory(func(fd int) error { return unix.Fchown(fd, unix.Geteuid(), unix.Getegid()) })},
	"path_truncate": {do: onMemory(func(fd int) error { return unix.Truncate(pathOf(fd), 1) })},
	"file_truncate": {do: onMemory(func(fd int) error { return unix.Ftruncate(fd, 1) })},
	"sb_mount":      {do: remountNothing},
	"move_mount":    needs("CAP_SYS_ADMIN"),
	"sb_umount":     needs("CAP_SYS_ADMIN"),
	"sb_pivotroot":  needs("CAP_SYS_ADMIN"),
	"path_chroot":   needs("CAP_SYS_CHROOT"),
	"mmap_file":     {do: mapExecutable},
	"file_mprotect": {do: protectExecutable},

	"socket_create":   {do: makeSocket},
	"socket_bind":     {do: bindSocket},
	"socket_listen":   {do: listenSocket},
	"socket_connect":  {do: connectSocket, kind: record.ConnectUnix},
	"socket_sendmsg":  {do: sendDatagram},
	"sock_graft":      {do: acceptConnection},
	"task_fix_setuid": {do: call(unix.SYS_SETUID, uintptr(unix.Geteuid()))},
	"task_fix_setgid": {do: call(unix.SYS_SETGID, uintptr(unix.Getegid()))},

	"dup":         {why: noFreeInput},
	"dup2":        {why: "is the same function as dup3, and no call leads there on arm64"},
	"dup3":        {do: socketAsInput},
	"fcntl":       {why: noFreeInput},
	"pidfd_getfd": {why: noFreeInput},

	"setxattr":     {do: onMemory(func(fd int) error { return unix.Setxattr(pathOf(fd), aclName, acl, 0) })},
	"lsetxattr":    {do: attributeOfLink},
	"fsetxattr":    {do: onMemory(func(fd int) error { return unix.Fsetxattr(fd, aclName, acl, 0) })},
	"memfd_create": {do: makeMemory},

	// From here on the arguments are wrong, and these programs tell of failures too.
	"execve":            {do: call(unix.SYS_EXECVE)},
	"execveat":          {do: call(unix.SYS_EXECVEAT, none)},
	"init_module":       {do: call(unix.SYS_INIT_MODULE)},
	"finit_module":      {do: call(unix.SYS_FINIT_MODULE, none)},
	"delete_module":     {do: call(unix.SYS_DELETE_MODULE)},
	"add_key":           {do: call(unix.SYS_ADD_KEY)},
	"bpf":               {do: call(unix.SYS_BPF, 1<<16)},
	"capset":            {do: call(unix.SYS_CAPSET)},
	"io_uring_setup":    {do: call(unix.SYS_IO_URING_SETUP)},
	"keyctl":            {do: call(unix.SYS_KEYCTL, 1<<16)},
	"perf_event_open":   {do: call(unix.SYS_PERF_EVENT_OPEN)},
	"process_vm_readv":  {do: call(unix.SYS_PROCESS_VM_READV, none)},
	"process_vm_writev": {do: call(unix.SYS_PROCESS_VM_WRITEV, none)},
	"ptrace":            {do: call(unix.SYS_PTRACE, unix.PTRACE_SEIZE)}, // of process 0, which nobody is
	"request_key":       {do: call(unix.SYS_REQUEST_KEY)},
	"setgroups":         {do: call(unix.SYS_SETGROUPS, 1<<20)},
	"setgroups16":       {why: "no 64-bit call leads there"},
	"setns":             {do: call(unix.SYS_SETNS, none)},
	"unshare":           {do: call(unix.SYS_UNSHARE, 1)}, // no flag of unshare's
	"userfaultfd":       {do: call(unix.SYS_USERFAULTFD, 1<<30)},
}

// noFreeInput is of calls that take the first free descriptor: another thread might take it before.
const noFreeInput = "would need this process's input to be closed for a moment"

const none = ^uintptr(0) // a descriptor or process that does not exist

// call makes a system call, on this thread only; arguments that are not given are 0.
func call(number uintptr, arguments ...uintptr) func(*ground) error {
	var a [6]uintptr
	copy(a[:], arguments)
	return func(*ground) error {
		_, _, errno := unix.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
		return refused(errno)
	}
}

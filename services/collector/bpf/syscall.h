/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Which system calls matter, and where their arguments are. Numbers are in calls_<architecture>.h. */
#pragma once

#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* Calls with the same arguments and the same meaning are one. AT: paths are relative to descriptors. */
enum call {
	CALL_OTHER,
	CALL_OPEN, /* this and the next four return a descriptor of a file */
	CALL_CREATE, /* without flags */
	CALL_OPEN_AT,
	CALL_OPEN_AT_2, /* flags in memory */
	CALL_OPEN_HANDLE, /* without a path */
	CALL_CONNECT,
	CALL_ACCEPT, /* returns a descriptor of a socket */
	CALL_SOCKETCALL, /* ia32: which of the calls is in the first argument */
	CALL_EXEC,
	CALL_EXEC_AT,
	CALL_RENAME,
	CALL_RENAME_AT,
	CALL_UNLINK,
	CALL_UNLINK_AT,
	CALL_RMDIR,
	CALL_LINK,
	CALL_LINK_AT,
	CALL_SYMLINK,
	CALL_SYMLINK_AT,
	CALL_MKDIR,
	CALL_MKDIR_AT,
	CALL_MKNOD,
	CALL_MKNOD_AT,
	CALL_CHMOD,
	CALL_CHMOD_AT,
	CALL_CHMOD_FD,
	CALL_CHOWN,
	CALL_CHOWN_AT,
	CALL_CHOWN_FD,
	CALL_TRUNCATE,
	CALL_TRUNCATE_FD,
	CALL_TRUNCATE_64, /* ia32: the size is in two registers */
	CALL_TRUNCATE_64_FD,
	CALL_SETXATTR,
	CALL_SETXATTR_FD,
	CALL_MOUNT,
	CALL_MOVE_MOUNT,
	CALL_UMOUNT,
	CALL_PIVOT_ROOT,
	CALL_CHROOT,
	CALL_MMAP,
	CALL_MMAP_OLD, /* ia32: arguments in memory */
	CALL_MPROTECT,
	CALL_MEMFD,
	CALL_SOCKET,
	CALL_BIND,
	CALL_LISTEN,
	CALL_SENDTO,
	CALL_SENDMSG,
	CALL_SENDMMSG,
	CALL_DUP, /* in the order of enum duplicate_call */
	CALL_DUP2,
	CALL_DUP3,
	CALL_FCNTL,
	CALL_PIDFD_GETFD,
	CALL_SETUID, /* and whatever else changes user ids */
	CALL_SETGID,
	CALL_SETGROUPS,
	CALL_CAPSET,
	CALL_PTRACE,
	CALL_PROCESS_VM_READ,
	CALL_PROCESS_VM_WRITE,
	CALL_SETNS,
	CALL_UNSHARE,
	CALL_INIT_MODULE,
	CALL_FINIT_MODULE,
	CALL_DELETE_MODULE,
	CALL_BPF,
	CALL_KEYCTL,
	CALL_ADD_KEY, /* and request_key */
	CALL_USERFAULTFD,
	CALL_PERF_EVENT_OPEN,
	CALL_IO_URING_SETUP,
};

#define CALLS 560

/* A call that returns, or has returned. */
struct call_context {
	struct task_struct *task;
	struct pt_regs *regs;
	long result;
	__u32 flags; /* RECORD_COMPAT_32 or RECORD_X32 */
};

#if defined(__TARGET_ARCH_x86)
#include "calls_x86.h"
#elif defined(__TARGET_ARCH_arm64)
#include "calls_arm64.h"
#else
#error "unknown target architecture"
#endif

/* The n-th argument as a descriptor. */
static __always_inline int argument_fd(struct call_context *c, int n)
{
	return (int)argument(c, n);
}

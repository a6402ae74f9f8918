/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * scripts/syscall.tbl. AArch32 callers use other numbers and are not seen in the tracepoint tier: their flag is
 * in an arch-private place.
 */
#pragma once

static const volatile __u8 native_calls[CALLS] = {
	[5] = CALL_SETXATTR,
	[6] = CALL_SETXATTR,	    /* lsetxattr */
	[7] = CALL_SETXATTR_FD,
	[23] = CALL_DUP,
	[24] = CALL_DUP3,
	[25] = CALL_FCNTL,
	[33] = CALL_MKNOD_AT,
	[34] = CALL_MKDIR_AT,
	[35] = CALL_UNLINK_AT,
	[36] = CALL_SYMLINK_AT,
	[37] = CALL_LINK_AT,
	[38] = CALL_RENAME_AT,
	[39] = CALL_UMOUNT,
	[40] = CALL_MOUNT,
	[41] = CALL_PIVOT_ROOT,
	[45] = CALL_TRUNCATE,
	[46] = CALL_TRUNCATE_FD,
	[51] = CALL_CHROOT,
	[52] = CALL_CHMOD_FD,
	[53] = CALL_CHMOD_AT,
	[54] = CALL_CHOWN_AT,
	[55] = CALL_CHOWN_FD,
	[56] = CALL_OPEN_AT, /* openat */
	[91] = CALL_CAPSET,
	[97] = CALL_UNSHARE,
	[105] = CALL_INIT_MODULE,
	[106] = CALL_DELETE_MODULE,
	[117] = CALL_PTRACE,
	[143] = CALL_SETGID,	    /* setregid */
	[144] = CALL_SETGID,	    /* setgid */
	[145] = CALL_SETUID,	    /* setreuid */
	[146] = CALL_SETUID,	    /* setuid */
	[147] = CALL_SETUID,	    /* setresuid */
	[149] = CALL_SETGID,	    /* setresgid */
	[151] = CALL_SETUID,	    /* setfsuid */
	[152] = CALL_SETGID,	    /* setfsgid */
	[159] = CALL_SETGROUPS,
	[198] = CALL_SOCKET,
	[200] = CALL_BIND,
	[201] = CALL_LISTEN,
	[202] = CALL_ACCEPT,
	[203] = CALL_CONNECT,
	[206] = CALL_SENDTO,
	[211] = CALL_SENDMSG,
	[217] = CALL_ADD_KEY,
	[218] = CALL_ADD_KEY,	    /* request_key */
	[219] = CALL_KEYCTL,
	[221] = CALL_EXEC,
	[222] = CALL_MMAP,
	[226] = CALL_MPROTECT,
	[241] = CALL_PERF_EVENT_OPEN,
	[242] = CALL_ACCEPT,	    /* accept4 */
	[265] = CALL_OPEN_HANDLE, /* open_by_handle_at */
	[268] = CALL_SETNS,
	[269] = CALL_SENDMMSG,
	[270] = CALL_PROCESS_VM_READ,
	[271] = CALL_PROCESS_VM_WRITE,
	[273] = CALL_FINIT_MODULE,
	[276] = CALL_RENAME_AT,	    /* renameat2 */
	[279] = CALL_MEMFD,
	[280] = CALL_BPF,
	[281] = CALL_EXEC_AT,
	[282] = CALL_USERFAULTFD,
	[288] = CALL_MPROTECT,	    /* pkey_mprotect */
	[425] = CALL_IO_URING_SETUP,
	[429] = CALL_MOVE_MOUNT,
	[437] = CALL_OPEN_AT_2, /* openat2 */
	[438] = CALL_PIDFD_GETFD,
	[452] = CALL_CHMOD_AT,	    /* fchmodat2 */
};

static __always_inline enum call call_of(struct call_context *c)
{
	struct pt_regs *regs = c->regs; /* what is read through c would be relocated with it */
	__u32 nr = LOAD(regs, syscallno);

	if (compat_32(c->task)) { /* whose numbers are others, and are not known here */
		c->flags = RECORD_COMPAT_32;
		return CALL_OTHER;
	}
	return nr < CALLS ? native_calls[nr] : CALL_OTHER;
}

/* x0 holds the result by now. n is constant. */
static __always_inline __u64 argument(struct call_context *c, int n)
{
	struct pt_regs *regs = c->regs;

	return n == 0   ? LOAD(regs, orig_x0)
	       : n == 1 ? LOAD(regs, regs[1])
	       : n == 2 ? LOAD(regs, regs[2])
	       : n == 3 ? LOAD(regs, regs[3])
	       : n == 4 ? LOAD(regs, regs[4])
			: LOAD(regs, regs[5]);
}

/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl. */
#pragma once


static const volatile __u8 native_calls[CALLS] = {
	[2] = CALL_OPEN,	    /* open */
	[9] = CALL_MMAP,
	[10] = CALL_MPROTECT,
	[32] = CALL_DUP,
	[33] = CALL_DUP2,
	[41] = CALL_SOCKET,
	[42] = CALL_CONNECT,
	[43] = CALL_ACCEPT,
	[44] = CALL_SENDTO,
	[46] = CALL_SENDMSG,
	[49] = CALL_BIND,
	[50] = CALL_LISTEN,
	[59] = CALL_EXEC,
	[72] = CALL_FCNTL,
	[76] = CALL_TRUNCATE,
	[77] = CALL_TRUNCATE_FD,
	[82] = CALL_RENAME,
	[83] = CALL_MKDIR,
	[84] = CALL_RMDIR,
	[85] = CALL_CREATE,	    /* creat */
	[86] = CALL_LINK,
	[87] = CALL_UNLINK,
	[88] = CALL_SYMLINK,
	[90] = CALL_CHMOD,
	[91] = CALL_CHMOD_FD,
	[92] = CALL_CHOWN,
	[93] = CALL_CHOWN_FD,
	[94] = CALL_CHOWN,	    /* lchown */
	[101] = CALL_PTRACE,
	[105] = CALL_SETUID,	    /* setuid */
	[106] = CALL_SETGID,	    /* setgid */
	[113] = CALL_SETUID,	    /* setreuid */
	[114] = CALL_SETGID,	    /* setregid */
	[116] = CALL_SETGROUPS,
	[117] = CALL_SETUID,	    /* setresuid */
	[119] = CALL_SETGID,	    /* setresgid */
	[122] = CALL_SETUID,	    /* setfsuid */
	[123] = CALL_SETGID,	    /* setfsgid */
	[126] = CALL_CAPSET,
	[133] = CALL_MKNOD,
	[155] = CALL_PIVOT_ROOT,
	[161] = CALL_CHROOT,
	[165] = CALL_MOUNT,
	[166] = CALL_UMOUNT,
	[175] = CALL_INIT_MODULE,
	[176] = CALL_DELETE_MODULE,
	[188] = CALL_SETXATTR,
	[189] = CALL_SETXATTR,	    /* lsetxattr */
	[190] = CALL_SETXATTR_FD,
	[248] = CALL_ADD_KEY,
	[249] = CALL_ADD_KEY,	    /* request_key */
	[250] = CALL_KEYCTL,
	[257] = CALL_OPEN_AT, /* openat */
	[258] = CALL_MKDIR_AT,
	[259] = CALL_MKNOD_AT,
	[260] = CALL_CHOWN_AT,
	[263] = CALL_UNLINK_AT,
	[264] = CALL_RENAME_AT,
	[265] = CALL_LINK_AT,
	[266] = CALL_SYMLINK_AT,
	[268] = CALL_CHMOD_AT,
	[272] = CALL_UNSHARE,
	[288] = CALL_ACCEPT,	    /* accept4 */
	[292] = CALL_DUP3,
	[298] = CALL_PERF_EVENT_OPEN,
	[304] = CALL_OPEN_HANDLE, /* open_by_handle_at */
	[307] = CALL_SENDMMSG,
	[308] = CALL_SETNS,
	[310] = CALL_PROCESS_VM_READ,
	[311] = CALL_PROCESS_VM_WRITE,
	[313] = CALL_FINIT_MODULE,
	[316] = CALL_RENAME_AT,	    /* renameat2 */
	[319] = CALL_MEMFD,
	[321] = CALL_BPF,
	[322] = CALL_EXEC_AT,
	[323] = CALL_USERFAULTFD,
	[329] = CALL_MPROTECT,	    /* pkey_mprotect */
	[425] = CALL_IO_URING_SETUP,
	[429] = CALL_MOVE_MOUNT,
	[437] = CALL_OPEN_AT_2, /* openat2 */
	[438] = CALL_PIDFD_GETFD,
	[452] = CALL_CHMOD_AT,	    /* fchmodat2 */
	/* Those x32 has numbers of its own for. */
	[518] = CALL_SENDMSG,
	[520] = CALL_EXEC,
	[521] = CALL_PTRACE,
	[538] = CALL_SENDMMSG,
	[539] = CALL_PROCESS_VM_READ,
	[540] = CALL_PROCESS_VM_WRITE,
	[545] = CALL_EXEC_AT,
};

static const volatile __u8 ia32_calls[CALLS] = {
	[5] = CALL_OPEN,	    /* open */
	[8] = CALL_CREATE,	    /* creat */
	[9] = CALL_LINK,
	[10] = CALL_UNLINK,
	[11] = CALL_EXEC,
	[14] = CALL_MKNOD,
	[15] = CALL_CHMOD,
	[16] = CALL_CHOWN,	    /* lchown16 */
	[21] = CALL_MOUNT,
	[22] = CALL_UMOUNT,	    /* umount */
	[23] = CALL_SETUID,	    /* setuid16 */
	[26] = CALL_PTRACE,
	[38] = CALL_RENAME,
	[39] = CALL_MKDIR,
	[40] = CALL_RMDIR,
	[41] = CALL_DUP,
	[46] = CALL_SETGID,	    /* setgid16 */
	[52] = CALL_UMOUNT,	    /* umount2 */
	[55] = CALL_FCNTL,	    /* fcntl */
	[61] = CALL_CHROOT,
	[63] = CALL_DUP2,
	[70] = CALL_SETUID,	    /* setreuid16 */
	[71] = CALL_SETGID,	    /* setregid16 */
	[81] = CALL_SETGROUPS,	    /* setgroups16 */
	[83] = CALL_SYMLINK,
	[90] = CALL_MMAP_OLD,
	[92] = CALL_TRUNCATE,
	[93] = CALL_TRUNCATE_FD,
	[94] = CALL_CHMOD_FD,
	[95] = CALL_CHOWN_FD,	    /* fchown16 */
	[102] = CALL_SOCKETCALL,
	[125] = CALL_MPROTECT,
	[128] = CALL_INIT_MODULE,
	[129] = CALL_DELETE_MODULE,
	[138] = CALL_SETUID,	    /* setfsuid16 */
	[139] = CALL_SETGID,	    /* setfsgid16 */
	[164] = CALL_SETUID,	    /* setresuid16 */
	[170] = CALL_SETGID,	    /* setresgid16 */
	[182] = CALL_CHOWN,	    /* chown16 */
	[185] = CALL_CAPSET,
	[192] = CALL_MMAP,	    /* mmap2 */
	[193] = CALL_TRUNCATE_64,
	[194] = CALL_TRUNCATE_64_FD,
	[198] = CALL_CHOWN,	    /* lchown */
	[203] = CALL_SETUID,	    /* setreuid */
	[204] = CALL_SETGID,	    /* setregid */
	[206] = CALL_SETGROUPS,
	[207] = CALL_CHOWN_FD,
	[208] = CALL_SETUID,	    /* setresuid */
	[210] = CALL_SETGID,	    /* setresgid */
	[212] = CALL_CHOWN,
	[213] = CALL_SETUID,	    /* setuid */
	[214] = CALL_SETGID,	    /* setgid */
	[215] = CALL_SETUID,	    /* setfsuid */
	[216] = CALL_SETGID,	    /* setfsgid */
	[217] = CALL_PIVOT_ROOT,
	[221] = CALL_FCNTL,	    /* fcntl64 */
	[226] = CALL_SETXATTR,
	[227] = CALL_SETXATTR,	    /* lsetxattr */
	[228] = CALL_SETXATTR_FD,
	[286] = CALL_ADD_KEY,
	[287] = CALL_ADD_KEY,	    /* request_key */
	[288] = CALL_KEYCTL,
	[295] = CALL_OPEN_AT, /* openat */
	[296] = CALL_MKDIR_AT,
	[297] = CALL_MKNOD_AT,
	[298] = CALL_CHOWN_AT,
	[301] = CALL_UNLINK_AT,
	[302] = CALL_RENAME_AT,
	[303] = CALL_LINK_AT,
	[304] = CALL_SYMLINK_AT,
	[306] = CALL_CHMOD_AT,
	[310] = CALL_UNSHARE,
	[330] = CALL_DUP3,
	[336] = CALL_PERF_EVENT_OPEN,
	[342] = CALL_OPEN_HANDLE, /* open_by_handle_at */
	[345] = CALL_SENDMMSG,
	[346] = CALL_SETNS,
	[347] = CALL_PROCESS_VM_READ,
	[348] = CALL_PROCESS_VM_WRITE,
	[350] = CALL_FINIT_MODULE,
	[353] = CALL_RENAME_AT,	    /* renameat2 */
	[356] = CALL_MEMFD,
	[357] = CALL_BPF,
	[358] = CALL_EXEC_AT,
	[359] = CALL_SOCKET,
	[361] = CALL_BIND,
	[362] = CALL_CONNECT,
	[363] = CALL_LISTEN,
	[364] = CALL_ACCEPT,	    /* accept4 */
	[369] = CALL_SENDTO,
	[370] = CALL_SENDMSG,
	[374] = CALL_USERFAULTFD,
	[380] = CALL_MPROTECT,	    /* pkey_mprotect */
	[425] = CALL_IO_URING_SETUP,
	[429] = CALL_MOVE_MOUNT,
	[437] = CALL_OPEN_AT_2, /* openat2 */
	[438] = CALL_PIDFD_GETFD,
	[452] = CALL_CHMOD_AT,	    /* fchmodat2 */
};

/* Also says which table the number is of. */
static __always_inline enum call call_of(struct call_context *c)
{
	struct pt_regs *regs = c->regs; /* what is read through c would be relocated with it */
	__u64 nr = LOAD(regs, orig_ax);

	if (compat_32(c->task)) {
		c->flags = RECORD_COMPAT_32;
		return nr < CALLS ? ia32_calls[nr] : CALL_OTHER;
	}
	if (nr & X32_SYSCALL_BIT)
		c->flags = RECORD_X32;
	nr &= ~(__u64)X32_SYSCALL_BIT; /* x32 numbers most calls as x86-64 does */
	return nr < CALLS ? native_calls[nr] : CALL_OTHER;
}

/* At the call's end the registers still hold what the caller put there; only rax changed. n is constant. */
static __always_inline __u64 argument(struct call_context *c, int n)
{
	struct pt_regs *regs = c->regs;

	if (c->flags & RECORD_COMPAT_32)
		return (__u32)(n == 0   ? LOAD(regs, bx)
			       : n == 1 ? LOAD(regs, cx)
			       : n == 2 ? LOAD(regs, dx)
			       : n == 3 ? LOAD(regs, si)
			       : n == 4 ? LOAD(regs, di)
					: LOAD(regs, bp));
	return n == 0   ? LOAD(regs, di)
	       : n == 1 ? LOAD(regs, si)
	       : n == 2 ? LOAD(regs, dx)
	       : n == 3 ? LOAD(regs, r10)
	       : n == 4 ? LOAD(regs, r8)
			: LOAD(regs, r9);
}

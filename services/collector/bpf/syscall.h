/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Which system calls matter, per architecture and per ABI, and where their arguments are. */
#pragma once

#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

enum call {
	CALL_OTHER,
	CALL_OPEN, /* returns a descriptor of a file */
	CALL_CONNECT,
	CALL_ACCEPT, /* returns a descriptor of a socket */
	CALL_SOCKETCALL, /* ia32: which of the calls is in the first argument */
};

#define CALLS 512

/* net.h: what socketcall's first argument means. */
#define SYS_CONNECT 3
#define SYS_ACCEPT  5
#define SYS_ACCEPT4 18

#if defined(__TARGET_ARCH_x86)
#define X32_SYSCALL_BIT 0x40000000

static const volatile __u8 native_calls[CALLS] = {
	[2] = CALL_OPEN,   /* open */
	[42] = CALL_CONNECT,
	[43] = CALL_ACCEPT,
	[85] = CALL_OPEN,  /* creat */
	[257] = CALL_OPEN, /* openat */
	[288] = CALL_ACCEPT, /* accept4 */
	[304] = CALL_OPEN, /* open_by_handle_at */
	[437] = CALL_OPEN, /* openat2 */
};

static const volatile __u8 ia32_calls[CALLS] = {
	[5] = CALL_OPEN,   /* open */
	[8] = CALL_OPEN,   /* creat */
	[102] = CALL_SOCKETCALL,
	[295] = CALL_OPEN, /* openat */
	[342] = CALL_OPEN, /* open_by_handle_at */
	[362] = CALL_CONNECT,
	[364] = CALL_ACCEPT, /* accept4 */
	[437] = CALL_OPEN, /* openat2 */
};

static __always_inline bool compat(struct task_struct *task)
{
	return task->thread_info.status & TS_COMPAT;
}

static __always_inline enum call call_of(struct task_struct *task, struct pt_regs *regs)
{
	__u64 nr = regs->orig_ax;

	if (compat(task))
		return nr < CALLS ? ia32_calls[nr] : CALL_OTHER;
	nr &= ~(__u64)X32_SYSCALL_BIT; /* x32 numbers these calls as x86-64 does */
	return nr < CALLS ? native_calls[nr] : CALL_OTHER;
}

/* At sys_exit the argument registers still hold what the caller put there; only rax changed. */
static __always_inline __u64 first_argument(struct task_struct *task, struct pt_regs *regs)
{
	return compat(task) ? (__u32)regs->bx : regs->di;
}

static __always_inline __u64 second_argument(struct task_struct *task, struct pt_regs *regs)
{
	return compat(task) ? (__u32)regs->cx : regs->si;
}

#elif defined(__TARGET_ARCH_arm64)

static const volatile __u8 native_calls[CALLS] = {
	[56] = CALL_OPEN,  /* openat */
	[202] = CALL_ACCEPT,
	[203] = CALL_CONNECT,
	[242] = CALL_ACCEPT, /* accept4 */
	[265] = CALL_OPEN, /* open_by_handle_at */
	[437] = CALL_OPEN, /* openat2 */
};

/* AArch32 callers use other numbers and are not seen yet: their flag is in an arch-private place. */
static __always_inline enum call call_of(struct task_struct *task, struct pt_regs *regs)
{
	__u32 nr = regs->syscallno;

	return nr < CALLS ? native_calls[nr] : CALL_OTHER;
}

static __always_inline __u64 first_argument(struct task_struct *task, struct pt_regs *regs)
{
	return regs->orig_x0; /* x0 holds the result by now */
}

static __always_inline __u64 second_argument(struct task_struct *task, struct pt_regs *regs)
{
	return regs->regs[1];
}

#else
#error "unknown target architecture"
#endif

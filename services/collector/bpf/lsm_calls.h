/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Calls that no LSM hook stands for, at their end. User space attaches each program to the functions of its calls,
 * __x64_sys_NAME, __ia32_sys_NAME and so on: (registers, result).
 */
#pragma once

#include "calls.h"
#include "calls_privilege.h"
#include "calls_socket.h"

static __always_inline struct call_context call_returned(__u64 *ctx)
{
	struct call_context c = {
		.task = current_task(),
		.regs = (struct pt_regs *)ctx[0],
		.result = ctx[1],
	};

	return c;
}

/* One program a call: what it does for the others the verifier would have to look at in each of the places of all of them. */
#define PRIVILEGE_CALL(name, call)                                                                 \
	SEC("fexit/call_" #name)                                                                   \
	int on_call_##name(__u64 *ctx)                                                             \
	{                                                                                          \
		struct call_context c = call_returned(ctx);                                        \
                                                                                                   \
		call_of(&c);                                                                       \
		return handle_privilege(&c, call);                                                 \
	}

PRIVILEGE_CALL(add_key, CALL_ADD_KEY)
PRIVILEGE_CALL(bpf, CALL_BPF)
PRIVILEGE_CALL(capset, CALL_CAPSET)
PRIVILEGE_CALL(io_uring_setup, CALL_IO_URING_SETUP)
PRIVILEGE_CALL(keyctl, CALL_KEYCTL)
PRIVILEGE_CALL(perf_event_open, CALL_PERF_EVENT_OPEN)
PRIVILEGE_CALL(process_vm_readv, CALL_PROCESS_VM_READ)
PRIVILEGE_CALL(process_vm_writev, CALL_PROCESS_VM_WRITE)
PRIVILEGE_CALL(ptrace, CALL_PTRACE)
PRIVILEGE_CALL(request_key, CALL_ADD_KEY)
PRIVILEGE_CALL(setgroups, CALL_SETGROUPS)
PRIVILEGE_CALL(setgroups16, CALL_SETGROUPS)
PRIVILEGE_CALL(setns, CALL_SETNS)
PRIVILEGE_CALL(unshare, CALL_UNSHARE)
PRIVILEGE_CALL(userfaultfd, CALL_USERFAULTFD)

SEC("fexit/call_module")
int on_call_module(__u64 *ctx)
{
	struct call_context c = call_returned(ctx);
	enum call call = call_of(&c);

	handle_module(&c, call);
	return 0;
}

SEC("fexit/call_exec")
int on_call_exec(__u64 *ctx)
{
	struct call_context c = call_returned(ctx);
	enum call call = call_of(&c);

	handle_exec(&c, call);
	return 0;
}

SEC("fexit/call_memfd")
int on_call_memfd(__u64 *ctx)
{
	struct call_context c = call_returned(ctx);

	call_of(&c);
	handle_memfd(&c);
	return 0;
}

SEC("fexit/call_setxattr")
int on_call_setxattr(__u64 *ctx)
{
	struct change_args args = { .fd = AT_FDCWD, .kind = RECORD_SETXATTR };
	struct call_context c = call_returned(ctx);

	if (call_of(&c) == CALL_SETXATTR_FD)
		args.fd = argument_fd(&c, 0);
	else
		args.path = argument(&c, 0);
	args.text = argument(&c, 1);
	change_call(&c, &args);
	return 0;
}

SEC("fexit/call_duplicate")
int on_call_duplicate(__u64 *ctx)
{
	struct call_context c = call_returned(ctx);
	enum call call = call_of(&c);

	handle_duplicate(&c, call);
	return 0;
}

/* Set by user space: path_chown cannot be used, because Linux before 6.1 hands no struct to a program. */
const volatile __u8 chown_at_exit = 0;

/*
 * All of these at once, for kernels whose type information lacks the functions of calls that can be configured out
 * (pahole before 1.25 leaves out functions of which there are two versions). Every system call then pays for a look at its
 * number.
 */
SEC("tp_btf/sys_exit")
int on_sys_exit_calls(__u64 *ctx)
{
	struct call_context c = call_returned(ctx);
	enum call call = call_of(&c);

	if (call < CALL_EXEC)
		return 0;
	if (call == CALL_EXEC || call == CALL_EXEC_AT)
		handle_exec(&c, call);
	else if (call == CALL_MEMFD)
		handle_memfd(&c);
	else if (is_module_call(call))
		handle_module(&c, call);
	else if (call == CALL_SETXATTR || call == CALL_SETXATTR_FD ||
		 (chown_at_exit && call >= CALL_CHOWN && call <= CALL_CHOWN_FD))
		handle_change(&c, call);
	else if (call >= CALL_DUP && call <= CALL_PIDFD_GETFD)
		handle_duplicate(&c, call);
	else if (call >= CALL_SETGROUPS)
		handle_privilege(&c, call);
	return 0;
}

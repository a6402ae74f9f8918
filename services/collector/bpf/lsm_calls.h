/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Calls that no LSM hook stands for, at their end. User space attaches each program to the functions of its calls,
 * __x64_sys_NAME, __ia32_sys_NAME and so on: (registers, result).
 */
#pragma once

#include "calls.h"
#include "calls_privilege.h"

/* Of the architectures we support, with pages of 4 KiB and without KASAN. */
#define THREAD_SIZE 16384

/*
 * A call's registers: its argument. Linux 5.10 does not let programs see that ("invalid bpf_context access"), but it is what
 * the entry code has put at the bottom of the task's kernel stack (task_pt_regs).
 */
static __always_inline struct pt_regs *registers_of(__u64 *ctx)
{
#ifdef LEGACY
	struct task_struct *task = current_task();

	return (void *)((__u64)LOAD(task, stack) + THREAD_SIZE - bpf_core_type_size(struct pt_regs));
#else
	return (struct pt_regs *)ctx[0];
#endif
}

static __always_inline struct call_context call_returned(__u64 *ctx)
{
	struct call_context c = {
		.task = current_task(),
		.regs = registers_of(ctx),
		.result = ctx[1],
	};

	return c;
}

SEC("fexit/call_privilege")
int on_call_privilege(__u64 *ctx)
{
	struct call_context c = call_returned(ctx);
	enum call call = call_of(&c);

	handle_privilege(&c, call);
	return 0;
}

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

/* Instead of path_chown, whose arguments are structs: Linux before 6.1 cannot hand those to a program. */
SEC("fexit/call_chown")
int on_call_chown(__u64 *ctx)
{
	struct call_context c = call_returned(ctx);
	enum call call = call_of(&c);

	handle_change(&c, call);
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The collector's programs. Entry points only adapt arguments. Which of them are loaded is a table in
 * internal/probe: each tier has its own. Compiled twice: for Linux from 5.12 on, and with LEGACY for 5.10.
 */
#include "calls.h"
#include "calls_privilege.h"
#include "calls_socket.h"
#include "event.h"
#include "file.h"
#include "guard.h"
#include "kernel.h"
#include "lsm.h"
#include "lsm_calls.h"
#include "lsm_socket.h"
#include "memory.h"
#include "open.h"
#include "process.h"
#include "socket.h"
#include "syscall.h"
#include "syscalls_used.h"
#include "task.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL"; /* a spelling the kernel takes for GPL-compatible */

SEC("tp_btf/sched_process_exec")
int on_sched_process_exec(__u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	__u32 guard = 0;

	if (kill_guarded)
		guard = guard_kill(guard_of_executable(BPF_CORE_READ(task, mm, exe_file)));
	if (guard || wanted(RECORD_EXEC))
		emit_exec(task, (struct linux_binprm *)ctx[2], guard);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int on_sched_process_fork(__u64 *ctx)
{
	if (wanted(RECORD_FORK))
		emit_fork((struct task_struct *)ctx[0], (struct task_struct *)ctx[1]);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int on_sched_process_exit(__u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	bool dead;

	/* Without the argument two last threads that race may both see zero: then two events. */
	if (exit_tells_group_dead)
		dead = ctx[1];
	else
		dead = LOAD(task, signal, live.counter) == 0;
	if (dead && wanted(RECORD_EXIT))
		emit_exit(task);
	return 0;
}

SEC("tp_btf/signal_generate")
int on_signal_generate(__u64 *ctx)
{
	if (wanted(RECORD_SIGNAL))
		emit_signal(ctx[1], ctx[0], (struct task_struct *)ctx[2]);
	return 0;
}

static __always_inline void emit_io_uring(__u64 opcode)
{
	struct task_struct *task = current_task();
	struct privilege_record r = {};

	if (!wanted(RECORD_IO_URING) || !privilege_begin(&r, task, RECORD_IO_URING))
		return;
	r.args[0] = opcode;
	r.arg_count = 1;
	privilege_submit(&r);
}

/* io_uring_submit_req, and io_uring_submit_sqe of Linux 6.0 to 6.3: the request comes first. */
SEC("tp_btf/io_uring_submit_req")
int on_io_uring_request(__u64 *ctx)
{
	struct io_kiocb *request = (struct io_kiocb *)ctx[0];

	emit_io_uring(BPF_CORE_READ(request, opcode));
	return 0;
}

/* Set by user space: the request stands before the opcode. */
const volatile __u8 opcode_is_third = 0;

/* io_uring_submit_sqe of Linux 5.10: (ctx, opcode, …), or, as Debian's kernel has it from 5.15, (ctx, request, opcode, …). */
SEC("tp_btf/io_uring_submit_sqe")
int on_io_uring_opcode(__u64 *ctx)
{
	if (opcode_is_third)
		emit_io_uring(ctx[2] & 0xff);
	else
		emit_io_uring(ctx[1] & 0xff);
	return 0;
}

static __always_inline void opened(struct call_context *c, enum call call)
{
	struct opening o = { .task = c->task, .call = c, .which = call, .killed = true };

	if (c->result < 0)
		return;
	o.file = file_of(c->task, c->result);
	if (o.file && guard_generation(GUARD_WRITE) && opens_to_write(o.file))
		o.guard = guard_kill(guard_of_file(GUARD_WRITE, o.file));
	if (o.guard || wanted(RECORD_FILE_OPEN))
		emit_file_open(&o);
}

SEC("tp_btf/sys_exit")
int on_sys_exit(__u64 *ctx)
{
	struct call_context c = {
		.task = current_task(),
		.regs = (struct pt_regs *)ctx[0],
		.result = ctx[1],
	};
	enum call call = call_of(&c);

	if (call == CALL_OTHER)
		return 0;
	if (call <= CALL_OPEN_HANDLE) {
		opened(&c, call);
	} else if (call == CALL_MMAP || call == CALL_MMAP_OLD) {
		handle_mmap(&c, call);
	} else if (call == CALL_MPROTECT) {
		handle_mprotect(&c);
	} else if (call == CALL_MEMFD) {
		handle_memfd(&c);
	} else if (call == CALL_EXEC || call == CALL_EXEC_AT) {
		handle_exec(&c, call);
	} else if (is_module_call(call)) {
		handle_module(&c, call);
	} else if (call >= CALL_RENAME && call <= CALL_CHROOT) {
		handle_change(&c, call);
	} else if (call >= CALL_DUP && call <= CALL_PIDFD_GETFD) {
		handle_duplicate(&c, call);
	} else if (call >= CALL_SETUID) {
		handle_privilege(&c, call);
	} else {
		handle_socket_call(&c, call);
	}
	return 0;
}

SEC("tp_btf/sys_enter")
int on_sys_enter(__u64 *ctx)
{
	note_call(current_task(), ctx[1]);
	return 0;
}

SEC("iter/task")
int on_task(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct area *a;
	__u64 end;

	if (!task || LOAD(task, pid) != LOAD(task, tgid))
		return 0;
	a = area_of(iterator_area);
	if (!a)
		return 0;
	workload_find((__u64)cgroup_of(BPF_CORE_READ(task, cgroups))); /* kept for user space */
	end = exec_fill(a, iterator_area, task, RECORD_EXISTING, bpf_ktime_get_boot_ns());
	end = times_put(a, end, task);
	bound(end, AREA_RECORD_MAX);
	((struct record_header *)a->record)->size = end;
	bpf_seq_write(ctx->meta->seq, a->record, end);
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The tracepoint tier: what typed tracepoints can tell, for kernels that allow nothing better. Entry
 * points only adapt arguments. Needs Linux 5.12 (typed current task, global functions on memory).
 */
#include "event.h"
#include "file.h"
#include "kernel.h"
#include "process.h"
#include "socket.h"
#include "syscall.h"
#include "task.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL"; /* a spelling the kernel takes for GPL-compatible */

SEC("tp_btf/sched_process_exec")
int on_sched_process_exec(__u64 *ctx)
{
	emit_exec((struct task_struct *)ctx[0]);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int on_sched_process_fork(__u64 *ctx)
{
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
		dead = task->signal->live.counter == 0;
	if (dead)
		emit_exit(task);
	return 0;
}

/* The connect or accept that a socketcall stands for; its arguments lie in user memory. */
static __always_inline void socketcall(struct task_struct *task, struct pt_regs *regs, long result)
{
	__u32 args[2] = {}, which = first_argument(task, regs);

	if (which == SYS_CONNECT) {
		bpf_probe_read_user(args, sizeof(args), (void *)second_argument(task, regs));
		emit_connect(task, args[0], args[1], result);
	} else if ((which == SYS_ACCEPT || which == SYS_ACCEPT4) && result >= 0) {
		emit_accept(task, result);
	}
}

SEC("tp_btf/sys_exit")
int on_sys_exit(__u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task_btf();
	struct pt_regs *regs = (struct pt_regs *)ctx[0];
	long result = ctx[1];
	enum call call = call_of(task, regs);

	if (call == CALL_OTHER)
		return 0;
	if (call == CALL_OPEN && result >= 0)
		emit_file_open(task, result);
	else if (call == CALL_CONNECT)
		emit_connect(task, first_argument(task, regs), second_argument(task, regs), result);
	else if (call == CALL_ACCEPT && result >= 0)
		emit_accept(task, result);
	else if (call == CALL_SOCKETCALL)
		socketcall(task, regs, result);
	return 0;
}

SEC("iter/task")
int on_task(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	__u32 zero = 0;
	__u64 end;
	struct scratch *s;

	if (!task || task->pid != task->tgid)
		return 0;
	s = bpf_map_lookup_elem(&iterator_scratch, &zero);
	if (!s)
		return 0;
	end = exec_fill(s, task, RECORD_EXISTING);
	((struct record_header *)s->record)->size = end;
	bpf_seq_write(ctx->meta->seq, s->record, end);
	return 0;
}

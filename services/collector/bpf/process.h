/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Life cycle of processes: exec, fork, exit. */
#pragma once

#include "event.h"
#include "file.h"
#include "kernel.h"
#include "path.h"
#include "ring.h"
#include "task.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define PAGE 4096

/* Set by user space: from 6.16 on sched_process_exit says itself whether the group is dead. */
const volatile __u8 exit_tells_group_dead = 0;

/*
 * Keeps clang from proving away, or moving, a bound that the verifier must see. For 64-bit variables:
 * of 32-bit ones clang compares a shifted copy and the verifier forgets the original's bound.
 */
#define bound(var, max)                                                                            \
	do {                                                                                       \
		asm volatile("" : "+r"(var));                                                      \
		if (var > (max))                                                                   \
			var = (max);                                                               \
	} while (0)

/*
 * Page by page, because one page that is swapped out must not hide the others. Leaves the bytes
 * copied in s->argv_copied and returns whether such a page was met. The count is in memory and the
 * function global so that the verifier does not follow every combination of readable pages (it gives
 * up after a million instructions).
 */
__attribute__((noinline)) int argv_pages(struct scratch *s, __u64 to, __u64 from, __u64 want)
{
	__u64 done = 0, at, len;
	int i, missing = 0;

	if (!s)
		return 0;
	s->argv_copied = 0;
	for (i = 0; i <= ARGV_MAX / PAGE && done < want; i++) {
		len = PAGE - ((from + done) & (PAGE - 1));
		if (len > want - done)
			len = want - done;
		bound(len, PAGE);
		/* Bounded where it is used: Linux 6.1 forgets the bounds of what it spills. */
		at = to + s->argv_copied;
		bound(at, sizeof(struct exec_record) + 2 * PATH_MAX + ARGV_MAX);
		if (bpf_probe_read_user(&s->record[at], len, (void *)(from + done)))
			missing = 1;
		else
			s->argv_copied += len;
		done += len;
	}
	return missing;
}

static __always_inline void argv_fill(struct scratch *s, struct exec_record *r, __u64 to,
				      struct mm_struct *mm)
{
	__u64 start = mm->arg_start;
	__u64 bytes = mm->arg_end - start;
	__u64 want = bytes;

	r->argv_bytes = bytes;
	if (bytes > ARGV_MAX) {
		want = ARGV_MAX;
		r->flags |= EXEC_ARGV_TRUNCATED;
	}
	bound(want, ARGV_MAX);
	if (bpf_probe_read_user(&s->record[to], want, (void *)start) == 0) {
		r->argv_len = want;
		return;
	}
	if (argv_pages(s, to, start, want))
		r->flags |= EXEC_ARGV_UNREADABLE;
	r->argv_len = s->argv_copied;
}

/*
 * Everything of an exec record but argv; returns where the record ends so far. A kernel thread has
 * no mm and gets no exe.
 */
static __always_inline __u64 exec_fill(struct scratch *s, struct task_struct *task, __u32 kind)
{
	struct exec_record *r = (void *)s->record;
	struct file *exe = BPF_CORE_READ(task, mm, exe_file);
	__u64 end = sizeof(*r);
	struct path pwd;
	bool whole;

	__builtin_memset(&r->exe, 0, sizeof(*r) - sizeof(r->header));
	header_fill(&r->header, task, kind);
	r->tty = tty_device(task);
	r->session = session_id(task);
	if (exe) {
		file_fill(s, &r->exe, exe, end);
		end += r->exe.path_len;
	}
	BPF_CORE_READ_INTO(&pwd, task, fs, pwd);
	if (!pwd.dentry)
		return end;
	bound(end, sizeof(*r) + PATH_MAX);
	r->cwd_len = path_put(s, end, &pwd, &whole);
	end += r->cwd_len;
	bound(end, sizeof(*r) + 2 * PATH_MAX);
	return end;
}

static __always_inline void emit_exec(struct task_struct *task)
{
	struct scratch *s = scratch_get(RECORD_EXEC);
	struct exec_record *r;
	__u64 end;

	if (!s)
		return;
	r = (void *)s->record;
	end = exec_fill(s, task, RECORD_EXEC);
	argv_fill(s, r, end, task->mm);
	submit(s, end + r->argv_len, RECORD_EXEC);
}

static __always_inline void emit_fork(struct task_struct *parent, struct task_struct *child)
{
	struct scratch *s;
	struct fork_record *r;

	if (child->pid != child->tgid) /* a thread */
		return;
	s = scratch_get(RECORD_FORK);
	if (!s)
		return;
	r = (void *)s->record;
	header_fill(&r->header, parent, RECORD_FORK);
	r->child_start_boottime_ns = child->start_boottime;
	r->child_cgroup_id = cgroup_id(child);
	r->child_tgid = child->tgid;
	r->pad = 0;
	submit(s, sizeof(*r), RECORD_FORK);
}

/* As the kernel's wait_task_zombie() decides it. */
static __always_inline __u32 wait_status(struct task_struct *task)
{
	struct signal_struct *signal = task->signal;

	if (signal->flags & SIGNAL_GROUP_EXIT)
		return signal->group_exit_code;
	return task->group_leader->exit_code;
}

static __always_inline void emit_exit(struct task_struct *task)
{
	struct scratch *s = scratch_get(RECORD_EXIT);
	struct exit_record *r;

	if (!s)
		return;
	r = (void *)s->record;
	header_fill(&r->header, task, RECORD_EXIT);
	r->wait_status = wait_status(task) & 0xffff;
	r->pad = 0;
	submit(s, sizeof(*r), RECORD_EXIT);
}

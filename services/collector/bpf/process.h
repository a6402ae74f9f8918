/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Life cycle of processes: exec, fork, exit. */
#pragma once

#include "area.h"
#include "event.h"
#include "exec.h"
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

/* Arguments on their way from the caller's memory to a record. */
struct argv_copy {
	struct area *area;
	__u64 to;
	__u64 from;
	__u64 want;
	__u64 done; /* of want, readable or not */
	__u64 missing;
};

static long argv_page(__u32 i, struct argv_copy *c)
{
	__u64 len = PAGE - ((c->from + c->done) & (PAGE - 1)), at;

	if (c->done >= c->want)
		return 1;
	if (len > c->want - c->done)
		len = c->want - c->done;
	bound(len, PAGE);
	/* Bounded where it is used: Linux 6.1 forgets the bounds of what it spills. */
	at = c->to + c->area->argv_copied;
	bound(at, sizeof(struct exec_record) + 2 * PATH_MAX + ARGV_MAX);
	if (bpf_probe_read_user(&c->area->record[at], len, (void *)(c->from + c->done)))
		c->missing = 1;
	else
		c->area->argv_copied += len;
	c->done += len;
	return 0;
}

#define ARGV_PAGES (ARGV_MAX / PAGE + 1)

/*
 * Page by page, because one page that is swapped out must not hide the others. Leaves the bytes
 * copied in argv_copied and returns whether such a page was met. The count is in memory and the function
 * global so that the verifier does not follow every combination of readable pages (it gives up after a million
 * instructions).
 */
__attribute__((noinline)) int argv_pages(int number, __u64 to, __u64 from, __u64 want)
{
	struct argv_copy c = { .area = area_of(number), .to = to, .from = from, .want = want };
	int i;

	if (!c.area)
		return 0;
	c.area->argv_copied = 0;
#ifndef LEGACY
	if (has_loop) {
		bpf_loop(ARGV_PAGES, argv_page, &c, 0);
		return c.missing;
	}
#endif
	for (i = 0; i < ARGV_PAGES; i++)
		if (argv_page(i, &c))
			break;
	return c.missing;
}

static __always_inline void argv_fill(struct area *a, int number, struct exec_record *r, __u64 to,
				      struct mm_struct *mm)
{
	__u64 start = LOAD(mm, arg_start);
	__u64 bytes = LOAD(mm, arg_end) - start;
	__u64 want = bytes;

	r->argv_bytes = bytes;
	if (bytes > ARGV_MAX) {
		want = ARGV_MAX;
		r->flags |= EXEC_ARGV_TRUNCATED;
	}
	bound(want, ARGV_MAX);
	if (bpf_probe_read_user(&a->record[to], want, (void *)start) == 0) {
		r->argv_len = want;
		return;
	}
	if (argv_pages(number, to, start, want))
		r->flags |= EXEC_ARGV_UNREADABLE;
	r->argv_len = a->argv_copied;
}

/* Everything of an exec record but argv. Returns where the record ends so far. A kernel thread has no mm and gets no exe. */
static __always_inline __u64 exec_fill(struct area *a, int number, struct task_struct *task, __u32 kind,
				       __u64 now)
{
	struct exec_record *r = (void *)a->record;
	struct file *exe = LOAD(task, mm, exe_file);
	struct dentry *dentry = LOAD(task, fs, pwd.dentry);
	struct vfsmount *mnt = LOAD(task, fs, pwd.mnt);
	__u64 end = sizeof(*r);
	bool whole;

	header_fill(&r->header, task, kind, now);
	__builtin_memset(&r->exe, 0, sizeof(*r) - sizeof(r->header));
	r->tty = tty_device(task);
	groups_fill(r, task);
	if (exe)
		end += file_fill(a, number, &r->exe, exe, &a->record[end]);
	if (!dentry)
		return end;
	bound(end, sizeof(*r) + PATH_MAX);
	r->cwd_len = path_put(a, number, &a->record[end], dentry, mnt, &whole);
	end += r->cwd_len;
	bound(end, sizeof(*r) + 2 * PATH_MAX);
	return end;
}

static __always_inline void exec_submit(struct area *a, int number, struct task_struct *task,
					struct linux_binprm *bprm, __u32 guard, __u64 now)
{
	struct exec_record *r = (void *)a->record;
	__u64 end = exec_fill(a, number, task, RECORD_EXEC, now);

	header_result(&r->header, 0);
	if (guard)
		header_kill(&r->header, guard);
	argv_fill(a, number, r, end, LOAD(task, mm));
	end += r->argv_len;
	exec_gains(r, task, bprm);
	end = script_put(a, end, bprm);
	end = times_put(a, end, task);
	bound(end, AREA_RECORD_MAX);
	submit(r, end, RECORD_EXEC);
}

/* A guard, if it is not 0, has killed the process. */
static __always_inline void emit_exec(struct task_struct *task, struct linux_binprm *bprm, __u32 guard)
{
	__u64 workload = workload_id(task), now = bpf_ktime_get_boot_ns();
	struct area *a;
	int number;

	if (!admit(workload, RECORD_EXEC, now))
		return;
	a = area_begin(workload, RECORD_EXEC, &number);
	if (!a)
		return;
	exec_submit(a, number, task, bprm, guard, now);
	give_back(&a->busy);
}

static __always_inline void emit_fork(struct task_struct *parent, struct task_struct *child)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct fork_record r = {};

	if (LOAD(child, pid) != LOAD(child, tgid)) /* a thread */
		return;
	if (!admit(workload_id(parent), RECORD_FORK, now))
		return;
	header_fill(&r.header, parent, RECORD_FORK, now);
	r.child_start_boottime_ns = LOAD(child, start_boottime);
	r.child_cgroup_id = cgroup_id(child);
	r.child_tgid = LOAD(child, tgid);
	submit(&r, sizeof(r), RECORD_FORK);
}

/* As the kernel's wait_task_zombie() decides it. */
static __always_inline __u32 wait_status(struct task_struct *task)
{
	struct signal_struct *signal = LOAD(task, signal);

	if (LOAD(signal, flags) & SIGNAL_GROUP_EXIT)
		return LOAD(signal, group_exit_code);
	return LOAD(task, group_leader, exit_code);
}

static __always_inline void emit_exit(struct task_struct *task)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct exit_record r = {};

	if (!admit(workload_id(task), RECORD_EXIT, now))
		return;
	header_fill(&r.header, task, RECORD_EXIT, now);
	r.wait_status = wait_status(task) & 0xffff;
	submit(&r, sizeof(r), RECORD_EXIT);
}

/* Signals of the kernel itself have no siginfo of their own, or a positive code (siginfo.h: SI_FROMUSER). */
static __always_inline void emit_signal(__u64 info, int number, struct task_struct *target)
{
	struct task_struct *task = current_task();
	struct kernel_siginfo *siginfo = (void *)info;
	struct signal_record r = {};
	__u64 now;

	if (info <= 1 || BPF_CORE_READ(siginfo, si_code) > 0)
		return;
	now = bpf_ktime_get_boot_ns();
	if (!admit(workload_id(task), RECORD_SIGNAL, now))
		return;
	header_fill(&r.header, task, RECORD_SIGNAL, now);
	r.target_start_boottime_ns = LOAD(target, group_leader, start_boottime);
	r.target_tgid = LOAD(target, tgid);
	r.number = number;
	submit(&r, sizeof(r), RECORD_SIGNAL);
}

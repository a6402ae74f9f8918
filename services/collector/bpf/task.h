/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Facts about a task. Tasks here are typed pointers (BTF), see LOAD. */
#pragma once

#include "cgroup.h"
#include "event.h"
#include "kernel.h"
#include "workload.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

static __always_inline __u64 cgroup_id(struct task_struct *task)
{
	struct css_set *set = LOAD(task, cgroups);
	struct cgroup *cgroup;

	if (!by_memory_v1())
		return LOAD(set, dfl_cgrp, kn, id);
	cgroup = memory_cgroup(set);
	return BPF_CORE_READ(cgroup, kn, id);
}

/* Whose rate it is, and whose loss: a nested cgroup is no way to another one. The task is the current one. */
static __always_inline __u64 workload_id(struct task_struct *task)
{
	return workload_of_current(cgroup_id(task));
}

/* What a struct pid is called at a level of nested pid namespaces, which must be one of its own. */
static __always_inline struct upid *name_at(struct pid *pid, __u64 level)
{
	return (void *)((__u64)pid + bpf_core_field_offset(struct pid, numbers) + level * bpf_core_type_size(struct upid));
}

/*
 * The pointer is copied out of the task first: Linux 6.1 does not let a number that it has no bounds for be added to a typed
 * pointer ("math between ptr_ pointer and register with unbounded min value is not allowed").
 */
static __always_inline struct pid *thread_pid(struct task_struct *task)
{
	struct pid *pid = 0;

	bpf_core_read(&pid, sizeof(pid), &task->thread_pid);
	return pid;
}

/* The namespace /proc/<pid>/ns/pid shows; nsproxy has only the one for children. */
static __always_inline __u32 pid_namespace_inum(struct task_struct *task)
{
	struct pid *pid = thread_pid(task);
	struct upid *innermost = name_at(pid, FOLLOW(pid, level));

	return FOLLOW(innermost, ns, ns.inum);
}

/* Of a session or a process group: PIDTYPE_SID, PIDTYPE_PGID. */
static __always_inline struct pid *shared_pid(struct task_struct *task, int type)
{
	struct signal_struct *signal = LOAD(task, signal);
	struct pid *pid = 0;

	bpf_core_read(&pid, sizeof(pid), &signal->pids[type]);
	return pid;
}

static __always_inline __u32 number_at(struct pid *pid, __u64 level)
{
	struct upid *name = name_at(pid, level);

	return FOLLOW(name, nr);
}

static __always_inline void groups_fill(struct exec_record *r, struct task_struct *task)
{
	struct pid *self = thread_pid(task), *group = shared_pid(task, PIDTYPE_PGID),
		   *session = shared_pid(task, PIDTYPE_SID);
	__u64 level = FOLLOW(self, level);

	r->session = number_at(session, 0);
	r->group = number_at(group, 0);
	r->inner_pid = number_at(self, level);
	r->inner_group = FOLLOW(group, level) >= level ? number_at(group, level) : 0;
}

static __always_inline __u32 tty_device(struct task_struct *task)
{
	struct tty_struct *tty = LOAD(task, signal, tty);

	if (!tty)
		return 0;
	return ((__u32)LOAD(tty, driver, major) << 20 | LOAD(tty, driver, minor_start)) +
	       LOAD(tty, index);
}

/* Whether the task is in a 32-bit system call, which on arm64 are all that a 32-bit program makes. */
static __always_inline bool compat_32(struct task_struct *task)
{
#if defined(__TARGET_ARCH_x86)
	return LOAD(task, thread_info.status) & TS_COMPAT;
#else
	return LOAD(task, thread_info.flags) & 1ul << ARM64_TIF_32BIT;
#endif
}

#if defined(__TARGET_ARCH_x86) && !defined(PACKETS)
/*
 * Where the task's registers were saved when it entered the kernel. Linux before 5.15 does not say; there they are at the top
 * of its stack (task_pt_regs).
 */
static __always_inline struct pt_regs *registers_of(struct task_struct *task)
{
	const __u64 thread_size = 4 * 4096;

#ifndef LEGACY
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return (struct pt_regs *)bpf_task_pt_regs(task);
#endif
	return (struct pt_regs *)((__u64)LOAD(task, stack) + thread_size - bpf_core_type_size(struct pt_regs));
}

/* An interrupt or an exception leaves other things there: numbers below 0, or small ones. */
static __always_inline bool x32(struct task_struct *task)
{
	struct pt_regs *regs = registers_of(task);
	__u64 number = FOLLOW(regs, orig_ax);

	return number >> 30 == 1;
}
#else
/* Programs on sockets' buffers do not get at a task's registers. */
static __always_inline bool x32(struct task_struct *task)
{
	return false;
}
#endif

/* Which table of system calls the task is in: RECORD_COMPAT_32, RECORD_X32 or 0. */
static __always_inline __u32 abi_of(struct task_struct *task)
{
	if (compat_32(task))
		return RECORD_COMPAT_32;
	return x32(task) ? RECORD_X32 : 0;
}

static __always_inline void identity_fill(struct record_header *h, struct task_struct *task)
{
	struct task_struct *parent = LOAD(task, real_parent, group_leader);
	struct nsproxy *namespaces = LOAD(task, nsproxy);

	h->start_boottime_ns = LOAD(task, group_leader, start_boottime);
	h->parent_start_boottime_ns = LOAD(parent, start_boottime);
	h->cgroup_id = cgroup_id(task);
	h->tgid = LOAD(task, tgid);
	h->tid = LOAD(task, pid);
	h->parent_tgid = LOAD(parent, tgid);
	h->mnt_ns = LOAD(namespaces, mnt_ns, ns.inum);
	h->pid_ns = pid_namespace_inum(task);
	h->net_ns = LOAD(namespaces, net_ns, ns.inum);
	COPY_WORD(&h->comm[0], task, comm[0]);
	COPY_WORD(&h->comm[8], task, comm[8]);
}

/* now is bpf_ktime_get_boot_ns(). */
static __always_inline void header_fill(struct record_header *h, struct task_struct *task, __u32 kind, __u64 now)
{
	const struct cred *cred = LOAD(task, cred);

	h->kind = kind;
	h->boottime_ns = now;
	h->result = 0;
	h->flags = abi_of(task);
	h->guard = 0;
	identity_fill(h, task);
	COPY_WORD(&h->effective_capabilities, cred, cap_effective);
	h->uid = LOAD(cred, uid.val);
	h->gid = LOAD(cred, gid.val);
	h->effective_uid = LOAD(cred, euid.val);
	h->effective_gid = LOAD(cred, egid.val);
	h->user_ns = LOAD(cred, user_ns, ns.inum);
	h->login_uid = bpf_core_field_exists(task->loginuid) ? LOAD(task, loginuid.val) : ~0u;
}

static __always_inline void header_result(struct record_header *h, long result)
{
	h->result = result;
	h->flags |= RECORD_RESULT_KNOWN;
}

/* A guard has denied it. */
static __always_inline void header_deny(struct record_header *h, __u32 guard)
{
	h->guard = guard;
	header_result(h, -EPERM);
}

/* A guard could not deny it; the process was killed instead. */
static __always_inline void header_kill(struct record_header *h, __u32 guard)
{
	h->guard = guard;
	h->flags |= RECORD_KILLED;
}

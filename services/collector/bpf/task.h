/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Facts about a task. Tasks here are typed pointers (BTF), which the verifier lets us follow with
 * plain loads: a tenth of the cost of bpf_probe_read_kernel, and a bad pointer reads as zero.
 */
#pragma once

#include "event.h"
#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* Set by user space before loading: no cgroup2 mount, so containers are told apart by memory cgroup. */
const volatile __u8 cgroup_by_memory_v1 = 0;

static __always_inline __u64 cgroup_id(struct task_struct *task)
{
	struct css_set *set = task->cgroups;
	struct cgroup_subsys_state *css = 0;

	if (!cgroup_by_memory_v1 ||
	    !bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id))
		return set->dfl_cgrp->kn->id;
	bpf_core_read(&css, sizeof(css),
		      &set->subsys[bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id)]);
	return BPF_CORE_READ(css, cgroup, kn, id);
}

/*
 * The namespace /proc/<pid>/ns/pid shows; nsproxy has only the one for children. The pointer is copied
 * out of the task first: Linux 6.1 does not let a number that it has no bounds for be added to a typed
 * pointer ("math between ptr_ pointer and register with unbounded min value is not allowed").
 */
static __always_inline __u32 pid_namespace_inum(struct task_struct *task)
{
	struct pid *pid = 0;
	struct pid_namespace *ns = 0;
	__u64 upid;

	bpf_core_read(&pid, sizeof(pid), &task->thread_pid);
	upid = (__u64)pid + bpf_core_field_offset(struct pid, numbers) +
	       (__u64)BPF_CORE_READ(pid, level) * bpf_core_type_size(struct upid);
	bpf_probe_read_kernel(&ns, sizeof(ns),
			      (void *)(upid + bpf_core_field_offset(struct upid, ns)));
	return BPF_CORE_READ(ns, ns.inum);
}

static __always_inline __u32 session_id(struct task_struct *task)
{
	struct pid *session = 0;
	int nr = 0;

	bpf_core_read(&session, sizeof(session), &task->signal->pids[PIDTYPE_SID]);
	bpf_core_read(&nr, sizeof(nr), &session->numbers[0].nr);
	return nr;
}

static __always_inline __u32 tty_device(struct task_struct *task)
{
	struct tty_struct *tty = task->signal->tty;

	if (!tty)
		return 0;
	return ((__u32)tty->driver->major << 20 | tty->driver->minor_start) + tty->index;
}

static __always_inline void header_fill(struct record_header *h, struct task_struct *task, __u32 kind)
{
	struct task_struct *parent = task->real_parent->group_leader;
	struct nsproxy *namespaces = task->nsproxy;
	const struct cred *cred = task->cred;

	h->kind = kind;
	h->boottime_ns = bpf_ktime_get_boot_ns();
	h->start_boottime_ns = task->group_leader->start_boottime;
	h->parent_start_boottime_ns = parent->start_boottime;
	h->cgroup_id = cgroup_id(task);
	bpf_core_read(&h->effective_capabilities, sizeof(h->effective_capabilities),
		      &cred->cap_effective);
	h->tgid = task->tgid;
	h->tid = task->pid;
	h->parent_tgid = parent->tgid;
	h->uid = cred->uid.val;
	h->gid = cred->gid.val;
	h->effective_uid = cred->euid.val;
	h->effective_gid = cred->egid.val;
	h->login_uid = bpf_core_field_exists(task->loginuid) ? task->loginuid.val : ~0u;
	h->mnt_ns = namespaces->mnt_ns->ns.inum;
	h->pid_ns = pid_namespace_inum(task);
	h->net_ns = namespaces->net_ns->ns.inum;
	h->user_ns = cred->user_ns->ns.inum;
	bpf_core_read(&h->comm, sizeof(h->comm), &task->comm);
}

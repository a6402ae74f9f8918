/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Uses of privilege, and changes to it. */
#pragma once

#include "area.h"
#include "event.h"
#include "file.h"
#include "kernel.h"
#include "path.h"
#include "ring.h"
#include "task.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* Record on the stack; the caller fills in what the kind has and submits. */
static __always_inline bool privilege_begin(struct privilege_record *r, struct task_struct *task,
					    __u32 kind)
{
	__u64 now = bpf_ktime_get_boot_ns();

	if (!admit(workload_id(task), kind, now))
		return false;
	header_fill(&r->header, task, kind, now);
	return true;
}

static __always_inline void privilege_submit(struct privilege_record *r)
{
	submit(r, sizeof(*r), r->header.kind);
}

static __always_inline void ids_fill(struct privilege_record *r, __u32 real, __u32 effective, __u32 saved)
{
	r->args[0] = real;
	r->args[1] = effective;
	r->args[2] = saved;
	r->arg_count = 3;
}

static __always_inline void user_ids_fill(struct privilege_record *r, const struct cred *cred)
{
	ids_fill(r, BPF_CORE_READ(cred, uid.val), BPF_CORE_READ(cred, euid.val),
		 BPF_CORE_READ(cred, suid.val));
}

static __always_inline void group_ids_fill(struct privilege_record *r, const struct cred *cred)
{
	ids_fill(r, BPF_CORE_READ(cred, gid.val), BPF_CORE_READ(cred, egid.val),
		 BPF_CORE_READ(cred, sgid.val));
}

static __always_inline void capabilities_fill(struct privilege_record *r, const struct cred *cred)
{
	bpf_core_read(&r->args[0], sizeof(__u64), &cred->cap_effective);
	bpf_core_read(&r->args[1], sizeof(__u64), &cred->cap_permitted);
	bpf_core_read(&r->args[2], sizeof(__u64), &cred->cap_inheritable);
	r->arg_count = 3;
}

/*
 * The process a pid means to the caller. Only in the initial pid namespace is it the number we know; its start time is
 * left at 0, not known.
 */
static __always_inline void target_fill(struct privilege_record *r, __u32 pid)
{
	if (r->header.pid_ns == INITIAL_PID_NAMESPACE)
		r->target_tgid = pid;
}

/* A module: by its file, or by its name in the caller's memory. */
static __always_inline void emit_module(struct task_struct *task, __u32 kind, long result, __u64 flags,
					struct file *file, __u64 name)
{
	__u64 workload = workload_id(task), now = bpf_ktime_get_boot_ns(), end = sizeof(struct privilege_record);
	struct privilege_record *r;
	struct area *a;
	bool whole;
	int number;

	if (!admit(workload, kind, now))
		return;
	a = area_begin(workload, kind, &number);
	if (!a)
		return;
	r = (void *)a->record;
	__builtin_memset(r, 0, sizeof(*r));
	header_fill(&r->header, task, kind, now);
	header_result(&r->header, result);
	r->args[0] = flags;
	r->arg_count = 1;
	if (file)
		r->name_len = path_put(a, number, &a->record[end], BPF_CORE_READ(file, f_path.dentry),
				       BPF_CORE_READ(file, f_path.mnt), &whole);
	else if (name)
		r->name_len = string_put(&a->record[end], NAME_MAX + 1, name);
	end += r->name_len;
	bound(end, sizeof(*r) + PATH_MAX);
	submit(r, end, kind);
	give_back(&a->busy);
}

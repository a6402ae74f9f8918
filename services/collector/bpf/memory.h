/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Memory that code can run from. */
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

/* What an operation on memory was given. */
struct memory_facts {
	struct file *file; /* may be NULL */
	__u32 flags;
	bool writable;
	__u64 name; /* in the caller's memory, or 0 */
};

static __always_inline void memory_fill(struct area *a, int number, struct task_struct *task, __u32 kind,
					struct memory_facts *facts, struct memory_record *r,
					__u64 now)
{
	__u64 end = sizeof(*r);

	header_fill(&r->header, task, kind, now);
	__builtin_memset(&r->file, 0, sizeof(*r) - sizeof(r->header));
	r->memory_flags = facts->flags;
	r->writable = facts->writable;
	if (facts->file)
		end += file_fill(a, number, &r->file, facts->file, &a->record[end]);
	bound(end, sizeof(*r) + PATH_MAX);
	if (facts->name) {
		r->name_len = string_put(&a->record[end], NAME_MAX + 1, facts->name);
		end += r->name_len;
	}
	bound(end, sizeof(*r) + PATH_MAX + NAME_MAX);
	submit(r, end, kind);
}

static __always_inline void emit_memory(struct task_struct *task, __u32 kind, struct memory_facts *facts)
{
	__u64 workload = workload_id(task), now = bpf_ktime_get_boot_ns();
	struct area *a;
	int number;

	if (!admit(workload, kind, now))
		return;
	a = area_begin(workload, kind, &number);
	if (!a)
		return;
	memory_fill(a, number, task, kind, facts, (void *)a->record, now);
	give_back(&a->busy);
}

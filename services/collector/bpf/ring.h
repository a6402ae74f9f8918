/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Building a record in scratch memory and handing it to user space. */
#pragma once

#include "event.h"
#include "kernel.h"
#include <bpf/bpf_helpers.h>

#define CPUS_MAX 1024

/* Room for the longest record, and one page more for argv that is copied page by page. */
#define RECORD_MAX (sizeof(struct exec_record) + 2 * PATH_MAX + ARGV_MAX + 4096)

/*
 * Too large for the stack (512 bytes) and for a per-CPU map's value (32 KiB). Tracepoints run with
 * preemption off, so one per CPU is enough; a PREEMPT_RT kernel from 6.19 on would need more.
 */
struct scratch {
	char path[PATH_MAX + 256]; /* filled from PATH_MAX downwards, see path.h */
	__u64 path_at;		   /* where the path starts */
	__u64 argv_copied;
	__u8 record[RECORD_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 << 20); /* user space sets the real size */
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CPUS_MAX); /* user space sets the number of CPUs */
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/* The iterator can be preempted, so it must not share a CPU's scratch. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} iterator_scratch SEC(".maps");

/* Records the ring had no room for, by enum record_kind. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RECORD_KINDS);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

static __always_inline void count_lost(__u32 kind)
{
	__u64 *count = bpf_map_lookup_elem(&lost, &kind);

	if (count)
		(*count)++;
}

static __always_inline struct scratch *scratch_get(__u32 kind)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct scratch *s = bpf_map_lookup_elem(&scratches, &cpu);

	if (!s)
		count_lost(kind);
	return s;
}

/* Hands over the first size bytes of the scratch record. */
static __always_inline void submit(struct scratch *s, __u32 size, __u32 kind)
{
	struct record_header *h = (void *)s->record;

	if (size > RECORD_MAX)
		return;
	h->size = size;
	if (bpf_ringbuf_output(&events, s->record, size, 0))
		count_lost(kind);
}

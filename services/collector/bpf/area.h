/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Memory to build a record in: too much for the stack (512 bytes), and a per-CPU map's values end at
 * 32 KiB. A program may be preempted or interrupted by another on its CPU, so each CPU has a few areas, and one
 * is claimed and given back.
 */
#pragma once

#include "event.h"
#include "kernel.h"
#include "ring.h"
#include <bpf/bpf_helpers.h>

#define CPUS_MAX      1024
#define AREAS_PER_CPU 4
#define HEADROOM      256

/*
 * The longest record: path, working directory, arguments, the two names of a script, and times; arguments that are copied page by page
 * need a page more.
 */
#define AREA_RECORD_MAX (sizeof(struct exec_record) + 2 * PATH_MAX + ARGV_MAX + 2 * PATH_MAX + sizeof(struct file_times))

/* What is used of an area for a short path lies within less than a page, because each page costs a walk of page tables. */
struct area {
	/*
	 * The path is filled in from its end to its beginning, see path.h. There is room before it for what comes before it
	 * in a record, and after it for what is read with it as the key of a map.
	 */
	__u8 path[HEADROOM + PATH_MAX + PREFIX_MAX];
	__u64 busy;
	__u64 dentry; /* where to walk from */
	__u64 mnt;    /* struct vfsmount */
	__u64 path_at; /* where the path starts, from HEADROOM on */
	__u64 argv_copied;
	__u8 record[AREA_RECORD_MAX];
} __attribute__((aligned(4096)));

/* The last is the iterator's. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CPUS_MAX *AREAS_PER_CPU + 1); /* user space sets the real number */
	__type(key, __u32);
	__type(value, struct area);
} areas SEC(".maps");

/* Number of the last area: user space sets it. */
const volatile __u32 iterator_area = 0;

/*
 * Without atomic exchange (Linux 5.10, whose programs cannot be preempted) an interrupt may still come in between;
 * it gives the area back before we go on.
 */
static __always_inline bool take(__u64 *busy)
{
#ifdef LEGACY
	if (*(volatile __u64 *)busy)
		return false;
	*(volatile __u64 *)busy = 1;
	return true;
#else
	return __sync_lock_test_and_set(busy, 1) == 0;
#endif
}

static __always_inline void give_back(__u64 *busy)
{
	*(volatile __u64 *)busy = 0;
}

/* Claims an area and returns its number, or -1. A function of its own, so that what follows is verified once. */
__attribute__((noinline)) int area_claim(void)
{
	__u32 first = bpf_get_smp_processor_id() * AREAS_PER_CPU, i, n;
	struct area *a;

	for (n = 0; n < AREAS_PER_CPU; n++) {
		i = first + n;
		a = bpf_map_lookup_elem(&areas, &i);
		if (a && take(&a->busy))
			return i;
	}
	return -1;
}

static __always_inline struct area *area_of(int number)
{
	__u32 i = number;

	return number < 0 ? 0 : bpf_map_lookup_elem(&areas, &i);
}

/* Claims an area for a record that was admitted; without one, NULL, the record is counted as lost. */
static __always_inline struct area *area_begin(__u64 cgroup_id, __u32 kind, int *number)
{
	struct area *a;

	*number = area_claim();
	a = area_of(*number);
	if (!a)
		count_short(workload_known(cgroup_id), kind, true);
	return a;
}

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

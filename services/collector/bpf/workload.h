/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Whose a cgroup is: the nearest one at or above it that user space has registered as a workload's. Found when something happens
 * there, because it may be gone by the time that user space asks, and kept for user space, which reads it by the cgroup's id.
 * The kernel never gives an id to a second cgroup.
 */
#pragma once

#include "cgroup.h"
#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64); /* cgroup id */
	__type(value, __u8);
} workloads SEC(".maps");

/* Grows after each change of workloads, so that what was found before is found anew. 0: there was none yet. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} workloads_generation SEC(".maps");

struct home {
	__u64 cgroup_id;
	__u64 workload; /* 0 if there is none */
	__u64 generation;
};

/* A value may become another cgroup's while it is looked at, so it says whose it is. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64); /* cgroup id */
	__type(value, struct home);
} homes SEC(".maps");

static __always_inline __u64 workloads_now(void)
{
	__u32 zero = 0;
	__u64 *generation = bpf_map_lookup_elem(&workloads_generation, &zero);

	return generation ? *generation : 0;
}

/*
 * This function and those below are global, so that the verifier walks them once and not for each program's every record: its
 * memory is the collector's. So they are given numbers.
 */

/* What was found of a cgroup before: its workload's, or itself if it has none. 0 if it must be looked for. */
__attribute__((noinline)) __u64 workload_found(__u64 id)
{
	__u64 generation = workloads_now(), workload;
	struct home *home;

	if (!generation)
		return id;
	home = bpf_map_lookup_elem(&homes, &id);
	if (!home || home->generation != generation)
		return 0;
	workload = home->workload;
	if (home->cgroup_id != id)
		return 0;
	return workload ? workload : id;
}

__attribute__((noinline)) __u64 workload_find(__u64 address)
{
	struct cgroup *cgroup = (void *)address;
	struct home home = { .cgroup_id = BPF_CORE_READ(cgroup, kn, id), .generation = workloads_now() };
	__u32 level = levels_above(cgroup), i;
	__u64 id = home.cgroup_id;

	for (i = 0; i <= CGROUP_LEVELS; i++) {
		if (bpf_map_lookup_elem(&workloads, &id)) {
			home.workload = id;
			break;
		}
		if (!level)
			break;
		level--;
		id = ancestor_id(cgroup, level);
	}
	bpf_map_update_elem(&homes, &home.cgroup_id, &home, BPF_ANY);
	return home.workload ? home.workload : home.cgroup_id;
}

/* The cgroup of the workload that the current task belongs to; if to none, its own, which is id. */
__attribute__((noinline)) __u64 workload_of_current(__u64 id)
{
	struct task_struct *task = (struct task_struct *)current_task();
	__u64 workload = workload_found(id);

	return workload ? workload : workload_find((__u64)cgroup_of(BPF_CORE_READ(task, cgroups)));
}

/* The same for a cgroup in which something has happened before. */
static __always_inline __u64 workload_known(__u64 id)
{
	__u64 workload = workload_found(id);

	return workload ? workload : id;
}

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
	__uint(max_entries, 8192);
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
	__uint(max_entries, 8192);
	__type(key, __u64); /* cgroup id */
	__type(value, struct home);
} homes SEC(".maps");

static __attribute__((noinline)) __u64 home_find(struct css_set *set, __u64 generation)
{
	struct cgroup *cgroup = cgroup_of(set);
	struct home home = { .cgroup_id = BPF_CORE_READ(cgroup, kn, id), .generation = generation };
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
	return home.workload;
}

/* The cgroup of the workload that the tasks of a css_set belong to; if of none, their own, which is id. */
static __always_inline __u64 workload_of(struct css_set *set, __u64 id)
{
	__u32 zero = 0;
	__u64 *generation = bpf_map_lookup_elem(&workloads_generation, &zero), workload;
	struct home *home;

	if (!generation || !*generation)
		return id;
	home = bpf_map_lookup_elem(&homes, &id);
	if (home && home->generation == *generation) {
		workload = home->workload;
		if (home->cgroup_id == id)
			return workload ? workload : id;
	}
	workload = home_find(set, *generation);
	return workload ? workload : id;
}

/* The same for a cgroup in which something has happened before. */
static __always_inline __u64 workload_known(__u64 id)
{
	struct home *home = bpf_map_lookup_elem(&homes, &id);
	__u64 workload = home ? home->workload : 0;

	return workload && home->cgroup_id == id ? workload : id;
}

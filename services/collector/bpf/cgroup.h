/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Cgroups by id. Their names are never looked at: anybody who may make a cgroup chooses one. */
#pragma once

#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/*
 * How far below the root a cgroup is told apart by what is known of those above it. Whoever makes more levels below its own
 * cgroup does not get away from it: the walk starts at the last of these, or at the task's own.
 */
#define CGROUP_LEVELS 32

/* Set by user space before loading: no cgroup2 mount, so containers are told apart by memory cgroup. */
const volatile __u8 cgroup_by_memory_v1 = 0;

static __always_inline bool by_memory_v1(void)
{
	return cgroup_by_memory_v1 && bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id);
}

/* Only by_memory_v1(). */
static __always_inline struct cgroup *memory_cgroup(struct css_set *set)
{
	struct cgroup_subsys_state *css = 0;

	bpf_core_read(&css, sizeof(css),
		      &set->subsys[bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id)]);
	return BPF_CORE_READ(css, cgroup);
}

/* A task's cgroup in the hierarchy that containers are told apart by. What is returned has no type for the verifier. */
static __always_inline struct cgroup *cgroup_of(struct css_set *set)
{
	return by_memory_v1() ? memory_cgroup(set) : BPF_CORE_READ(set, dfl_cgrp);
}

/* How many levels above the cgroup are looked at; the first of them is the root, number 0. */
static __always_inline __u32 levels_above(struct cgroup *cgroup)
{
	__u32 level = BPF_CORE_READ(cgroup, level);

	return level < CGROUP_LEVELS ? level : CGROUP_LEVELS;
}

/* The id of the cgroup's ancestor at a level above its own. */
static __always_inline __u64 ancestor_id(struct cgroup *cgroup, __u32 level)
{
	struct cgroup *ancestor = 0;
	__u64 id = 0, at = (__u64)cgroup;

	if (bpf_core_field_exists(cgroup->ancestors)) {
		at += bpf_core_field_offset(struct cgroup, ancestors) + level * sizeof(ancestor);
		bpf_probe_read_kernel(&ancestor, sizeof(ancestor), (void *)at);
		return BPF_CORE_READ(ancestor, kn, id);
	}
	/* Before Linux 6.1. */
	at += bpf_core_field_offset(struct cgroup, ancestor_ids) + level * sizeof(id);
	bpf_probe_read_kernel(&id, sizeof(id), (void *)at);
	return id;
}

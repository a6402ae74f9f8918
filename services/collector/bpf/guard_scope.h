/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Which guards are in force, and for whom: what all of them have in common. See guard.h. */
#pragma once

#include "cgroup.h"
#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* Families of guards; bits of guard_settings.families, and part of the keys of paths. */
#define GUARD_EXEC    1
#define GUARD_WRITE   2
#define GUARD_CONNECT 4
#define GUARD_NAME    8

/* What cannot be judged. No guard has this number. */
#define GUARD_UNKNOWN 0xffffffff

struct guard_settings {
	__u32 generation;
	__u32 families; /* those of which there is any */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct guard_settings);
} guard_settings SEC(".maps");

/*
 * A scope is a cgroup and all below it that have none of their own; a guard holds in one scope or, as scope 0,
 * everywhere. Values are numbers of scopes.
 */
struct guard_scope_key {
	__u64 cgroup_id;
	__u32 generation;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct guard_scope_key);
	__type(value, __u32);
} guard_scopes SEC(".maps");

static __always_inline __u32 guard_generation(__u32 family)
{
	__u32 zero = 0;
	struct guard_settings *s = bpf_map_lookup_elem(&guard_settings, &zero);

	return s && s->families & family ? s->generation : 0;
}

/* The scope that the cgroup at an address is in, 0 if none. */
__attribute__((noinline)) int guard_scope_of(__u32 generation, __u64 address)
{
	struct guard_scope_key key = { .generation = generation };
	struct cgroup *cgroup = (void *)address;
	__u32 level = levels_above(cgroup), i, *scope;

	key.cgroup_id = BPF_CORE_READ(cgroup, kn, id);
	for (i = 0; i <= CGROUP_LEVELS; i++) {
		scope = bpf_map_lookup_elem(&guard_scopes, &key);
		if (scope)
			return *scope;
		if (!level)
			break;
		level--;
		key.cgroup_id = ancestor_id(cgroup, level);
	}
	return 0;
}

/* The scope that the current task is in, 0 if none. */
static __always_inline int guard_scope(__u32 generation)
{
	struct task_struct *task = (struct task_struct *)current_task();

	return guard_scope_of(generation, (__u64)cgroup_of(BPF_CORE_READ(task, cgroups)));
}

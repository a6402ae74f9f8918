/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Which system calls each workload makes. Attached only if user space is configured to: every system call pays for it. */
#pragma once

#include "event.h"
#include "kernel.h"
#include "syscall.h"
#include "task.h"
#include <bpf/bpf_helpers.h>

#define CALL_WORDS 9 /* of 64 numbers each: more than any ABI has */

struct syscalls_key {
	__u64 cgroup_id; /* workload_id() */
	__u32 abi; /* RECORD_COMPAT_32, RECORD_X32, or 0 */
	__u32 pad;
};

struct syscalls_used {
	__u64 bits[CALL_WORDS];
};

/*
 * Losing a workload to the LRU makes it begin anew. Without atomic or (Linux 5.10, whose programs cannot be preempted) each
 * processor has bits of its own.
 */
struct {
#ifdef LEGACY
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
#else
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
#endif
	__uint(max_entries, 4096); /* user space makes it 1 if nothing is attached */
	__type(key, struct syscalls_key);
	__type(value, struct syscalls_used);
} syscalls_used SEC(".maps");

static __always_inline void note_bit(__u64 *word, __u64 bit)
{
	if (*(volatile __u64 *)word & bit)
		return;
#ifdef LEGACY
	*(volatile __u64 *)word |= bit;
#else
	__sync_fetch_and_or(word, bit);
#endif
}

static __always_inline void note_call(struct task_struct *task, __u64 number)
{
	struct syscalls_key key = { .cgroup_id = workload_id(task) };
	struct syscalls_used none = {}, *used;
	__u64 word;

#if defined(__TARGET_ARCH_x86)
	if (compat_32(task))
		key.abi = RECORD_COMPAT_32;
	else if (number & X32_SYSCALL_BIT)
		key.abi = RECORD_X32;
	number &= ~(__u64)X32_SYSCALL_BIT;
#endif
	word = number / 64;
	if (word >= CALL_WORDS)
		return;
	used = bpf_map_lookup_elem(&syscalls_used, &key);
	if (!used) {
		bpf_map_update_elem(&syscalls_used, &key, &none, BPF_NOEXIST);
		used = bpf_map_lookup_elem(&syscalls_used, &key);
	}
	if (!used)
		return;
	bound(word, CALL_WORDS - 1);
	note_bit(&used->bits[word], 1ull << (number % 64));
}

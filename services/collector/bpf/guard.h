/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Guards: what may not be executed, written, connected to or looked up, and by whom. User space fills maps under a new
 * generation and then switches to it with one store, so that no moment has half of the guards. They hold whether
 * or not a collector runs.
 */
#pragma once

#include "area.h"
#include "event.h"
#include "file.h"
#include "guard_name.h"
#include "guard_scope.h"
#include "kernel.h"
#include "path.h"
#include "socket.h"
#include "task.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Executables by identity. Values of this and the following maps are numbers of guards. */
struct guard_file_key {
	__u64 inode;
	__u32 device;
	__u32 generation;
	__u32 scope;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct guard_file_key);
	__type(value, __u32);
} guard_files SEC(".maps");

/* Executables by what they are. */
struct guard_property_key {
	__u32 property; /* FILE_UPPER_LAYER, FILE_MEMFD */
	__u32 generation;
	__u32 scope;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct guard_property_key);
	__type(value, __u32);
} guard_properties SEC(".maps");

/* Executables and written files by the beginning of their path. */
#define GUARD_PATH_MAX 240

struct guard_path_key {
	__u32 bits;
	__u32 generation;
	__u32 scope;
	__u32 family;
	char path[GUARD_PATH_MAX];
};

#define GUARD_PATH_FIXED 12 /* bytes of the key before the path, bits apart */

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct guard_path_key);
	__type(value, __u32);
} guard_paths SEC(".maps");

/* Peers by network and port; IPv4 as ::ffff:a.b.c.d. Port 0 is any. */
struct guard_network_key {
	__u32 bits;
	__u32 generation;
	__u32 scope;
	__u32 port;
	__u8 ip[16];
};

#define GUARD_NETWORK_FIXED 12

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct guard_network_key);
	__type(value, __u32);
} guard_networks SEC(".maps");

/* A key is too large for the stack of a program that has done anything else. One for each area. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CPUS_MAX *AREAS_PER_CPU + 1); /* user space sets the real number */
	__type(key, __u32);
	__type(value, struct guard_path_key);
} guard_keys SEC(".maps");

/* Set by user space in the tier that cannot deny: who passes a guard is killed. */
const volatile __u8 kill_guarded = 0;

static __always_inline __u32 path_guard(struct guard_path_key *key, __u32 scope)
{
	__u32 *guard;

	key->scope = scope;
	guard = bpf_map_lookup_elem(&guard_paths, key);
	return guard ? *guard : 0;
}

/* The guard of a path for the current task, 0 if none. One too long for an area cannot be judged. */
__attribute__((noinline)) int guard_of_path(__u32 family, __u64 dentry, __u64 mnt)
{
	__u32 generation = guard_generation(family), scope, guard;
	struct guard_path_key *key;
	struct area *a;
	int number;
	__u64 at, len;
	bool whole;

	if (!generation)
		return 0;
	number = area_claim();
	a = area_of(number);
	key = bpf_map_lookup_elem(&guard_keys, &number);
	if (!a || !key)
		return GUARD_UNKNOWN;
	guard = GUARD_UNKNOWN;
	at = path_find(a, number, (void *)dentry, (void *)mnt, &whole);
	if (whole) {
		len = PATH_MAX - at;
		if (len > GUARD_PATH_MAX)
			len = GUARD_PATH_MAX;
		bound(len, GUARD_PATH_MAX);
		bound(at, PATH_MAX - 1);
		key->generation = generation;
		key->family = family;
		key->bits = (GUARD_PATH_FIXED + len) * 8;
		bpf_probe_read_kernel(key->path, len, &a->path[HEADROOM + at]);
		scope = guard_scope(generation);
		guard = path_guard(key, scope);
		if (!guard && scope)
			guard = path_guard(key, 0);
	}
	give_back(&a->busy);
	return guard;
}

static __always_inline __u32 file_guard(struct guard_file_key *key, __u32 scope)
{
	__u32 *guard;

	key->scope = scope;
	guard = bpf_map_lookup_elem(&guard_files, key);
	return guard ? *guard : 0;
}

static __always_inline __u32 property_guard(__u32 property, __u32 generation, __u32 scope)
{
	struct guard_property_key key = { .property = property, .generation = generation, .scope = scope };
	__u32 *guard = bpf_map_lookup_elem(&guard_properties, &key);

	return guard ? *guard : 0;
}

/* The guard of an executable by identity and properties, flags as file_facts has them; 0 if none. */
__attribute__((noinline)) int guard_of_inode(__u64 inode, __u32 device, __u32 flags)
{
	__u32 generation = guard_generation(GUARD_EXEC), scope, guard;
	struct guard_file_key key = { .inode = inode, .device = device, .generation = generation };

	if (!generation)
		return 0;
	scope = guard_scope(generation);
	guard = file_guard(&key, scope);
	if (!guard && scope)
		guard = file_guard(&key, 0);
	if (!guard && flags & FILE_UPPER_LAYER)
		guard = property_guard(FILE_UPPER_LAYER, generation, scope);
	if (!guard && flags & FILE_UPPER_LAYER && scope)
		guard = property_guard(FILE_UPPER_LAYER, generation, 0);
	if (!guard && flags & FILE_MEMFD)
		guard = property_guard(FILE_MEMFD, generation, scope);
	if (!guard && flags & FILE_MEMFD && scope)
		guard = property_guard(FILE_MEMFD, generation, 0);
	return guard;
}

static __always_inline __u32 network_guard(struct guard_network_key *key, __u32 scope, __u32 port)
{
	__u32 *guard;

	key->scope = scope;
	key->port = port;
	guard = bpf_map_lookup_elem(&guard_networks, key);
	return guard ? *guard : 0;
}

/* The guard of a peer, given as the two halves of its address as IPv6, in network order; 0 if none. */
__attribute__((noinline)) int guard_of_peer(__u64 upper, __u64 lower, __u32 port)
{
	__u32 generation = guard_generation(GUARD_CONNECT), scope, guard;
	struct guard_network_key key = { .bits = (GUARD_NETWORK_FIXED + 16) * 8, .generation = generation };

	if (!generation)
		return 0;
	__builtin_memcpy(key.ip, &upper, sizeof(upper));
	__builtin_memcpy(key.ip + 8, &lower, sizeof(lower));
	scope = guard_scope(generation);
	guard = network_guard(&key, scope, port);
	if (!guard)
		guard = network_guard(&key, scope, 0);
	if (!guard && scope)
		guard = network_guard(&key, 0, port);
	if (!guard && scope)
		guard = network_guard(&key, 0, 0);
	return guard;
}

static __always_inline __u32 guard_of_file(__u32 family, struct file *file)
{
	return guard_of_path(family, (__u64)BPF_CORE_READ(file, f_path.dentry),
			     (__u64)BPF_CORE_READ(file, f_path.mnt));
}

/* The guard of an executable, 0 if none. */
static __always_inline __u32 guard_of_executable(struct file *file)
{
	struct file_facts facts = {};
	__u32 guard;

	if (!guard_generation(GUARD_EXEC))
		return 0;
	inode_fill(&facts, BPF_CORE_READ(file, f_inode), BPF_CORE_READ(file, f_path.mnt));
	guard = guard_of_inode(facts.inode, facts.device, facts.flags);
	return guard ? guard : guard_of_file(GUARD_EXEC, file);
}

/* An open that can change the file. */
static __always_inline bool opens_to_write(struct file *file)
{
	__u32 flags = FOLLOW(file, f_flags);

	return flags & O_ACCMODE || flags & O_TRUNC;
}

/* The peer of a connection as the kernel's sock knows it; 0 if no guard stands there. */
static __always_inline __u32 guard_of_sock(struct sock *sk)
{
	__u64 halves[2] = {};
	__u8 *ip = (void *)halves;

	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET) {
		bpf_core_read(mapped_v4(ip), 4, &sk->__sk_common.skc_daddr);
	} else if (bpf_core_field_exists(sk->__sk_common.skc_v6_daddr)) {
		bpf_core_read(ip, 16, &sk->__sk_common.skc_v6_daddr);
	}
	return guard_of_peer(halves[0], halves[1], bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport)));
}

/* In the tier that cannot deny: ends the current process before it can use what it got. Returns the guard. */
static __always_inline __u32 guard_kill(__u32 guard)
{
	if (guard)
		bpf_send_signal(SIGKILL);
	return guard;
}

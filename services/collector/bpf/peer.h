/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Which peers somebody asked for, of connections that are made and datagrams that are sent. */
#pragma once

#include "event.h"
#include "kernel.h"
#include "ring.h"
#include <bpf/bpf_helpers.h>

/* IPv4 as ::ffff:a.b.c.d; port 0 is any. */
struct peer_interest_key {
	__u32 bits;
	__u32 list; /* settings.peers */
	__u32 port;
	__u8 ip[16];
};

#define PEER_INTEREST_FIXED 8 /* bytes of the key before the address, bits apart */

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct peer_interest_key);
	__type(value, __u8);
} peer_interests SEC(".maps");

/* An IPv4 address as IPv6 writes it, ::ffff:a.b.c.d (RFC 4291 2.5.5.2), into 16 zero bytes. */
static __always_inline __u8 *mapped_v4(__u8 *ip)
{
	ip[10] = 0xff;
	ip[11] = 0xff;
	return ip + 12;
}

#define MAPPED_NONE 0xffff0000 /* the lower half of ::ffff:0.0.0.0 */

/*
 * Whether somebody asked for a peer, given as the two halves of its address as IPv6, in network order. One that could not be read
 * may be any. Global, so that the verifier walks it once and not for each program's every record: its memory is the collector's.
 */
__attribute__((noinline)) int peer_listed(__u64 upper, __u64 lower, __u32 port)
{
	struct peer_interest_key key = { .bits = (PEER_INTEREST_FIXED + 16) * 8, .port = port };
	struct settings *now = settings_now();
	__u64 list;

	if (!now || (!port && !upper && (!lower || lower == MAPPED_NONE)))
		return true;
	list = *(volatile __u64 *)&now->peers;
	if (!(list & PEERS_LISTED))
		return true;
	key.list = list;
	__builtin_memcpy(key.ip, &upper, sizeof(upper));
	__builtin_memcpy(key.ip + 8, &lower, sizeof(lower));
	if (bpf_map_lookup_elem(&peer_interests, &key))
		return true;
	key.port = 0;
	if (bpf_map_lookup_elem(&peer_interests, &key))
		return true;
	return list != *(volatile __u64 *)&now->peers; /* that list may be gone */
}

static __always_inline bool peer_wanted(struct socket_record *r)
{
	__u64 halves[2] = {};

	if (r->family == AF_INET)
		__builtin_memcpy(mapped_v4((void *)halves), r->remote, 4);
	else
		__builtin_memcpy(halves, r->remote, 16);
	return peer_listed(halves[0], halves[1], r->remote_port);
}

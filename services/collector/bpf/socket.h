/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Sockets and connections, as the kernel's sock knows them. */
#pragma once

#include "area.h"
#include "event.h"
#include "file.h"
#include "kernel.h"
#include "peer.h"
#include "ring.h"
#include "task.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define UNIX_PATH_MAX 108

/* struct sockaddr_in and sockaddr_in6 share their first three fields. */
struct sockaddr_any {
	__u16 family;
	__be16 port;
	__u8 v4[4]; /* flow info in IPv6 */
	__u8 v6[16];
};

/* A record of a socket, with room for the path of a unix one; in an area, because four calls share 512 bytes of stack. */
struct socket_build {
	struct socket_record r;
	char path[UNIX_PATH_MAX];
	__u32 pad;
};

static __always_inline struct socket_build *build_begin(struct task_struct *task, __u32 kind, struct area **area)
{
	struct socket_build *b;
	int number;

	*area = area_begin(cgroup_id(task), kind, &number);
	if (!*area)
		return 0;
	b = (void *)(*area)->record;
	__builtin_memset(&b->r, 0, sizeof(b->r));
	return b;
}

/* An address as given: in the caller's memory, or in the kernel's own copy of that. */
struct given_address {
	__u64 at;
	__u32 len;
	bool in_kernel;
};

/* The sock behind a descriptor, or NULL. */
static __always_inline struct sock *sock_of(struct task_struct *task, __u32 fd)
{
	struct file *file = file_of(task, fd);
	struct socket *socket;

	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(socket, sk);
}

static __always_inline bool speaks_ip(__u16 family)
{
	return family == AF_INET || family == AF_INET6;
}

static __always_inline void socket_fill(struct socket_record *r, struct sock *sk)
{
	r->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	r->protocol = BPF_CORE_READ(sk, sk_protocol);
	r->type = BPF_CORE_READ(sk, sk_type);
	if (!speaks_ip(r->family))
		return;
	r->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	r->remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (r->family == AF_INET) {
		bpf_core_read(r->local, 4, &sk->__sk_common.skc_rcv_saddr);
		bpf_core_read(r->remote, 4, &sk->__sk_common.skc_daddr);
	} else if (bpf_core_field_exists(sk->__sk_common.skc_v6_daddr)) {
		bpf_core_read(r->local, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(r->remote, 16, &sk->__sk_common.skc_v6_daddr);
	}
}

static __always_inline long given_read(void *to, __u32 size, struct given_address *given, __u32 offset)
{
	if (given->in_kernel)
		return bpf_probe_read_kernel(to, size, (void *)given->at + offset);
	return bpf_probe_read_user(to, size, (void *)given->at + offset);
}

/* Puts a given IP address into one end of the record. */
static __always_inline void given_ip(struct socket_record *r, struct given_address *given, __u8 *ip,
				     __u16 *port)
{
	struct sockaddr_any addr = {};

	__builtin_memset(ip, 0, 16);
	*port = 0;
	/* The longer one may end at an unmapped page. */
	if (given_read(&addr, sizeof(addr), given, 0) && given_read(&addr, 8, given, 0))
		return;
	*port = bpf_ntohs(addr.port);
	if (addr.family == AF_INET6) {
		__builtin_memcpy(ip, addr.v6, 16);
		return;
	}
	/* An IPv6 socket may be given an IPv4 address. */
	__builtin_memcpy(r->family == AF_INET6 ? mapped_v4(ip) : ip, addr.v4, sizeof(addr.v4));
}

static __always_inline void given_unix(struct socket_build *b, struct given_address *given)
{
	__u64 len = given->len;

	if (len <= 2)
		return;
	len -= 2; /* sun_family */
	bound(len, UNIX_PATH_MAX);
	if (given->in_kernel ? bpf_probe_read_kernel(b->path, len, (void *)given->at + 2)
			     : bpf_probe_read_user(b->path, len, (void *)given->at + 2))
		return;
	b->r.unix_len = len;
}

/* A given peer, or own address if local. */
static __always_inline void given_fill(struct socket_build *b, struct given_address *given, bool local)
{
	if (!given->in_kernel)
		b->r.flags |= SOCKET_REMOTE_ARGUMENT;
	if (b->r.family == AF_UNIX)
		given_unix(b, given);
	else if (speaks_ip(b->r.family))
		given_ip(&b->r, given, local ? b->r.local : b->r.remote,
			 local ? &b->r.local_port : &b->r.remote_port);
}

static __always_inline void socket_submit(struct socket_build *b, __u32 kind)
{
	__u64 size = sizeof(b->r) + b->r.unix_len;

	bound(size, sizeof(*b));
	submit(b, size, kind);
}

/* The connection exists or is being made, so the kernel's own copy of the address holds. */
static __always_inline bool under_way(long result)
{
	return result == 0 || result == -EINPROGRESS || result == -EINTR || result == -ERESTARTSYS;
}

/* connect() to AF_UNSPEC takes a datagram socket's destination away. */
static __always_inline bool dissolved(struct socket_record *r)
{
	const __u64 *remote = (void *)r->remote;

	return r->remote_port == 0 && remote[0] == 0 && remote[1] == 0;
}

/*
 * What a connect that has returned came to. A refused socket has forgotten where it was to go: only the caller's memory may
 * still know. Returns false if there is nothing to tell.
 */
static __always_inline bool connect_fill(struct socket_build *b, struct task_struct *task, struct sock *sk,
					 struct given_address *given, long result)
{
	__u32 kind = b->r.header.kind;

	header_fill(&b->r.header, task, kind, bpf_ktime_get_boot_ns());
	header_result(&b->r.header, result == -ERESTARTSYS ? -EINTR : result);
	socket_fill(&b->r, sk);
	if (kind == RECORD_CONNECT_UNIX || !under_way(result))
		given_fill(b, given, false);
	else if (dissolved(&b->r))
		return false;
	return true;
}

/* Whether the peer is wanted, unless a guard stands there, comes before the rate: so the peer must be known by now. */
static __always_inline bool connect_admit(struct socket_record *r, struct task_struct *task, __u32 kind, __u32 guard)
{
	return (guard || kind != RECORD_CONNECT || peer_wanted(r)) &&
	       admit(workload_id(task), kind, r->header.boottime_ns);
}

static __attribute__((noinline)) int emit_connect(struct task_struct *task, struct sock *sk,
					       struct given_address *given, long result, __u32 guard)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	__u32 kind = family == AF_UNIX ? RECORD_CONNECT_UNIX : RECORD_CONNECT;
	struct socket_build *b;
	struct area *a;

	if (family != AF_UNIX && !speaks_ip(family))
		return 0;
	if (!guard && !wanted(kind))
		return 0;
	b = build_begin(task, kind, &a);
	if (!b)
		return 0;
	b->r.header.kind = kind;
	if (connect_fill(b, task, sk, given, result) && connect_admit(&b->r, task, kind, guard)) {
		if (guard)
			header_kill(&b->r.header, guard);
		socket_submit(b, kind);
	}
	give_back(&a->busy);
	return 0;
}

/* An operation on a socket that is there; given may be NULL, guard has denied it or is 0. */
static __always_inline void emit_socket(struct task_struct *task, struct sock *sk, __u32 kind,
					struct given_address *given, __u32 guard)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct socket_build *b;
	struct area *a;

	if (kind != RECORD_CONNECT && !admit(workload_id(task), kind, now))
		return;
	b = build_begin(task, kind, &a);
	if (!b)
		return;
	header_fill(&b->r.header, task, kind, now);
	if (guard)
		header_deny(&b->r.header, guard);
	socket_fill(&b->r, sk);
	if (given)
		given_fill(b, given, kind == RECORD_BIND);
	if (kind != RECORD_CONNECT || connect_admit(&b->r, task, kind, guard))
		socket_submit(b, kind);
	give_back(&a->busy);
}

static __always_inline void emit_socket_create(struct task_struct *task, __u16 family, __u16 type,
					       __u16 protocol)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct socket_record r = {};

	if (!admit(workload_id(task), RECORD_SOCKET, now))
		return;
	header_fill(&r.header, task, RECORD_SOCKET, now);
	r.family = family;
	r.type = type & SOCK_TYPE_MASK;
	r.protocol = protocol;
	submit(&r, sizeof(r), RECORD_SOCKET);
}

/*
 * Peers that a process has sent to on a socket, so that each is told once; the LRU may forget one and tell it again. The process
 * is in the key because another one's next socket may lie where this one was.
 */
struct peer_key {
	__u64 sk;
	__u8 ip[16];
	__u16 port;
	__u16 pad;
	__u32 tgid;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct peer_key);
	__type(value, __u8);
} peers SEC(".maps");

static __always_inline bool peer_is_new(struct task_struct *task, struct sock *sk, struct socket_record *r)
{
	struct peer_key key = { .sk = (__u64)sk, .port = r->remote_port, .tgid = LOAD(task, tgid) };
	__u8 seen = 1;

	__builtin_memcpy(key.ip, r->remote, sizeof(key.ip));
	return !bpf_map_update_elem(&peers, &key, &seen, BPF_NOEXIST);
}

/* A datagram to an address given with it. */
static __attribute__((noinline)) int emit_send(struct task_struct *task, struct sock *sk,
					    struct given_address *given, long result)
{
	struct socket_build *b;
	struct area *a;
	__u64 now;

	if (!speaks_ip(BPF_CORE_READ(sk, __sk_common.skc_family)))
		return 0;
	b = build_begin(task, RECORD_SEND, &a);
	if (!b)
		return 0;
	socket_fill(&b->r, sk);
	given_fill(b, given, false);
	now = bpf_ktime_get_boot_ns();
	if (peer_wanted(&b->r) && peer_is_new(task, sk, &b->r) && admit(workload_id(task), RECORD_SEND, now)) {
		header_fill(&b->r.header, task, RECORD_SEND, now);
		header_result(&b->r.header, result);
		socket_submit(b, RECORD_SEND);
	}
	give_back(&a->busy);
	return 0;
}

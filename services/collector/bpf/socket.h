/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Connections, as the kernel's sock knows them. */
#pragma once

#include "event.h"
#include "file.h"
#include "kernel.h"
#include "ring.h"
#include "task.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* struct sockaddr_in and sockaddr_in6 share their first three fields. */
struct sockaddr_any {
	__u16 family;
	__be16 port;
	__u8 v4[4]; /* flow info in IPv6 */
	__u8 v6[16];
};

/* The sock behind a descriptor if it speaks IP, or NULL. */
static __always_inline struct sock *inet_sock_of(struct task_struct *task, __u32 fd)
{
	struct file *file = file_of(task, fd);
	struct socket *socket;
	struct sock *sk;
	__u16 family;

	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	sk = BPF_CORE_READ(socket, sk);
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	return family == AF_INET || family == AF_INET6 ? sk : 0;
}

static __always_inline void socket_fill(struct socket_record *r, struct sock *sk)
{
	r->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	r->protocol = BPF_CORE_READ(sk, sk_protocol);
	r->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	r->remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	__builtin_memset(r->local, 0, sizeof(r->local) + sizeof(r->remote));
	if (r->family == AF_INET) {
		bpf_core_read(r->local, 4, &sk->__sk_common.skc_rcv_saddr);
		bpf_core_read(r->remote, 4, &sk->__sk_common.skc_daddr);
	} else if (bpf_core_field_exists(sk->__sk_common.skc_v6_daddr)) {
		bpf_core_read(r->local, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(r->remote, 16, &sk->__sk_common.skc_v6_daddr);
	}
}

/* A refused socket has forgotten where it was to go: only the caller's memory may still know. */
static __always_inline void remote_from_argument(struct socket_record *r, __u64 argument)
{
	struct sockaddr_any addr = {};

	r->flags |= SOCKET_REMOTE_ARGUMENT;
	__builtin_memset(r->remote, 0, sizeof(r->remote));
	r->remote_port = 0;
	/* The longer one may end at an unmapped page. */
	if (bpf_probe_read_user(&addr, sizeof(addr), (void *)argument) &&
	    bpf_probe_read_user(&addr, 8, (void *)argument))
		return;
	r->remote_port = bpf_ntohs(addr.port);
	if (addr.family == AF_INET6) {
		__builtin_memcpy(r->remote, addr.v6, sizeof(r->remote));
		return;
	}
	/* An IPv6 socket may be given an IPv4 address; it then means ::ffff:a.b.c.d. */
	if (r->family == AF_INET6) {
		r->remote[10] = 0xff;
		r->remote[11] = 0xff;
		__builtin_memcpy(&r->remote[12], addr.v4, sizeof(addr.v4));
		return;
	}
	__builtin_memcpy(r->remote, addr.v4, sizeof(addr.v4));
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

static __attribute__((noinline)) void emit_connect(struct task_struct *task, __u32 fd, __u64 argument,
					 long result)
{
	struct sock *sk = inet_sock_of(task, fd);
	struct socket_record *r;
	struct scratch *s;

	if (!sk)
		return;
	s = scratch_get(RECORD_CONNECT);
	if (!s)
		return;
	r = (void *)s->record;
	header_fill(&r->header, task, RECORD_CONNECT);
	r->result = result == -ERESTARTSYS ? -EINTR : result;
	r->flags = 0;
	socket_fill(r, sk);
	if (!under_way(result))
		remote_from_argument(r, argument);
	else if (dissolved(r))
		return;
	submit(s, sizeof(*r), RECORD_CONNECT);
}

static __attribute__((noinline)) void emit_accept(struct task_struct *task, __u32 fd)
{
	struct sock *sk = inet_sock_of(task, fd);
	struct socket_record *r;
	struct scratch *s;

	if (!sk)
		return;
	s = scratch_get(RECORD_ACCEPT);
	if (!s)
		return;
	r = (void *)s->record;
	header_fill(&r->header, task, RECORD_ACCEPT);
	r->result = 0;
	r->flags = 0;
	socket_fill(r, sk);
	submit(s, sizeof(*r), RECORD_ACCEPT);
}

/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Programs of the tiers lsm and modify-return on sockets and credentials. See lsm.h. */
#pragma once

#include "guard.h"
#include "lsm.h"
#include "privilege.h"
#include "socket.h"

/* The guard of a peer that a call was given, as the kernel has copied it; 0 if none. */
static __always_inline __u32 guard_of_given(__u16 family, struct given_address *given)
{
	struct sockaddr_any addr = {};
	__u64 halves[2] = {};
	__u8 *ip = (void *)halves;

	if (!speaks_ip(family) || !guard_generation(GUARD_CONNECT))
		return 0;
	if (given_read(&addr, sizeof(addr), given, 0))
		return GUARD_UNKNOWN;
	if (addr.family == AF_INET6)
		__builtin_memcpy(ip, addr.v6, 16);
	else
		__builtin_memcpy(mapped_v4(ip), addr.v4, 4);
	return guard_of_peer(halves[0], halves[1], bpf_ntohs(addr.port));
}

/* (family, type, protocol, whether the kernel itself wants it) */
SEC("lsm/socket_create")
int on_socket_create(__u64 *ctx)
{
	if (!(__u32)ctx[3] && wanted(RECORD_SOCKET))
		emit_socket_create(current_task(), ctx[0], ctx[1], ctx[2]);
	return 0;
}

SEC("lsm/socket_bind")
int on_socket_bind(__u64 *ctx)
{
	struct given_address given = { .at = ctx[1], .len = ctx[2], .in_kernel = true };
	struct socket *socket = (struct socket *)ctx[0];

	if (wanted(RECORD_BIND))
		emit_socket(current_task(), BPF_CORE_READ(socket, sk), RECORD_BIND, &given, 0);
	return 0;
}

SEC("lsm/socket_listen")
int on_socket_listen(__u64 *ctx)
{
	struct socket *socket = (struct socket *)ctx[0];

	if (wanted(RECORD_LISTEN))
		emit_socket(current_task(), BPF_CORE_READ(socket, sk), RECORD_LISTEN, 0, 0);
	return 0;
}

SEC("lsm/socket_connect")
int on_socket_connect(__u64 *ctx)
{
	struct given_address given = { .at = ctx[1], .len = ctx[2], .in_kernel = true };
	struct socket *socket = (struct socket *)ctx[0];
	struct sock *sk = BPF_CORE_READ(socket, sk);
	__u16 asked = AF_UNSPEC, family = BPF_CORE_READ(sk, __sk_common.skc_family);
	__u32 kind = family == AF_UNIX ? RECORD_CONNECT_UNIX : RECORD_CONNECT, guard;

	bpf_probe_read_kernel(&asked, sizeof(asked), (void *)ctx[1]);
	if (asked == AF_UNSPEC || (family != AF_UNIX && !speaks_ip(family)))
		return 0;
	guard = guard_of_given(family, &given);
	if (guard || wanted(kind))
		emit_socket(current_task(), sk, kind, &given, guard);
	return verdict(guard);
}

/* (sock, message, size). Under way is what is known of its result, as of a connect's. */
SEC("lsm/socket_sendmsg")
int on_socket_sendmsg(__u64 *ctx)
{
	struct socket *socket = (struct socket *)ctx[0];
	struct msghdr *message = (struct msghdr *)ctx[1];
	struct given_address given = {
		.at = (__u64)BPF_CORE_READ(message, msg_name),
		.len = BPF_CORE_READ(message, msg_namelen),
		.in_kernel = true,
	};
	struct sock *sk = BPF_CORE_READ(socket, sk);
	__u32 guard;

	if (!given.at)
		return 0;
	guard = guard_of_given(BPF_CORE_READ(sk, __sk_common.skc_family), &given);
	if (guard)
		emit_socket(current_task(), sk, RECORD_SEND, &given, guard);
	else if (wanted(RECORD_SEND))
		emit_send(current_task(), sk, &given, -EINPROGRESS);
	return verdict(guard);
}

/* A connection that was accepted gets its socket: the peer is known by now. */
SEC("lsm/sock_graft")
int on_sock_graft(__u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];

	if (wanted(RECORD_ACCEPT) && speaks_ip(BPF_CORE_READ(sk, __sk_common.skc_family)))
		emit_socket(current_task(), sk, RECORD_ACCEPT, 0, 0);
	return 0;
}

/* (new credentials, old ones, flags): the setuid family, but not a setuid program. */
SEC("lsm/task_fix_setuid")
int on_task_fix_setuid(__u64 *ctx)
{
	struct privilege_record r = {};

	if (!wanted(RECORD_SETUID) || !privilege_begin(&r, current_task(), RECORD_SETUID))
		return 0;
	user_ids_fill(&r, (struct cred *)ctx[0]);
	privilege_submit(&r);
	return 0;
}

SEC("lsm/task_fix_setgid")
int on_task_fix_setgid(__u64 *ctx)
{
	struct privilege_record r = {};

	if (!wanted(RECORD_SETGID) || !privilege_begin(&r, current_task(), RECORD_SETGID))
		return 0;
	group_ids_fill(&r, (struct cred *)ctx[0]);
	privilege_submit(&r);
	return 0;
}

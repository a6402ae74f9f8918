/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What a system call on a socket means once it has returned. */
#pragma once

#include "calls.h"
#include "guard.h"
#include "socket.h"

/* net.h: what socketcall's first argument means. */
#define SYS_SOCKET  1
#define SYS_BIND    2
#define SYS_CONNECT 3
#define SYS_LISTEN  4
#define SYS_ACCEPT  5
#define SYS_SENDTO  11
#define SYS_SENDMSG 16
#define SYS_ACCEPT4 18
#define SYS_SENDMMSG 20

/* sendmmsg: of how many messages the peers are looked at. */
#define MESSAGES_MAX 16

/* Arguments of a call on a socket, wherever they came from. */
struct socket_args {
	__u64 at[6];
};

static __always_inline void handle_accept(struct call_context *c)
{
	struct sock *sk;

	if (c->result < 0 || !wanted(RECORD_ACCEPT))
		return;
	sk = sock_of(c->task, c->result);
	if (sk && speaks_ip(BPF_CORE_READ(sk, __sk_common.skc_family)))
		emit_socket(c->task, sk, RECORD_ACCEPT, 0, 0);
}

static __always_inline void handle_bind(struct call_context *c, struct socket_args *a)
{
	struct given_address given = { .at = a->at[1], .len = a->at[2] };
	struct sock *sk;

	if (!tells(c, RECORD_BIND))
		return;
	sk = sock_of(c->task, a->at[0]);
	if (!sk)
		return;
	/* An IP socket knows by now what it is bound to. */
	if (speaks_ip(BPF_CORE_READ(sk, __sk_common.skc_family)))
		emit_socket(c->task, sk, RECORD_BIND, 0, 0);
	else
		emit_socket(c->task, sk, RECORD_BIND, &given, 0);
}

static __always_inline void handle_listen(struct call_context *c, struct socket_args *a)
{
	struct sock *sk;

	if (!tells(c, RECORD_LISTEN))
		return;
	sk = sock_of(c->task, a->at[0]);
	if (sk)
		emit_socket(c->task, sk, RECORD_LISTEN, 0, 0);
}

/* struct user_msghdr and its compat twin begin with the address and its length. */
static __always_inline void send_message(struct call_context *c, struct sock *sk, __u64 msghdr)
{
	struct given_address given = {};
	__u32 compat[2] = {};
	struct {
		__u64 name;
		__u32 len;
		__u32 pad;
	} native = {};

	if (c->flags & RECORD_COMPAT_32) {
		bpf_probe_read_user(compat, sizeof(compat), (void *)msghdr);
		native.name = compat[0];
		native.len = compat[1];
	} else {
		bpf_probe_read_user(&native, sizeof(native), (void *)msghdr);
	}
	given.at = native.name;
	given.len = native.len;
	if (given.at)
		emit_send(c->task, sk, &given, c->result);
}

static __attribute__((noinline)) int handle_send(struct call_context *c, enum call call, struct socket_args *a)
{
	/* struct mmsghdr */
	__u32 stride = c->flags & RECORD_COMPAT_32 ? 32 : 64;
	struct given_address given = { .at = a->at[4], .len = a->at[5] };
	struct sock *sk;
	int i;

	if (!tells(c, RECORD_SEND))
		return 0;
	if (call == CALL_SENDTO && !given.at)
		return 0;
	sk = sock_of(c->task, a->at[0]);
	if (!sk)
		return 0;
	if (call == CALL_SENDTO)
		emit_send(c->task, sk, &given, c->result);
	else if (call == CALL_SENDMSG)
		send_message(c, sk, a->at[1]);
	else
		for (i = 0; i < MESSAGES_MAX && i < c->result; i++)
			send_message(c, sk, a->at[1] + i * stride);
	return 0;
}

static __attribute__((noinline)) int handle_connect(struct call_context *c, struct socket_args *a)
{
	struct given_address given = { .at = a->at[1], .len = a->at[2] };
	struct sock *sk;

	__u32 guard = 0;

	if (!wanted(RECORD_CONNECT) && !wanted(RECORD_CONNECT_UNIX) && !guard_generation(GUARD_CONNECT))
		return 0;
	sk = sock_of(c->task, a->at[0]);
	if (!sk)
		return 0;
	if (kill_guarded && under_way(c->result) && speaks_ip(BPF_CORE_READ(sk, __sk_common.skc_family)))
		guard = guard_kill(guard_of_sock(sk));
	return emit_connect(c->task, sk, &given, c->result, guard);
}

static __attribute__((noinline)) int handle_socket(struct call_context *c, enum call call, struct socket_args *a)
{
	switch (call) {
	case CALL_CONNECT:
		return handle_connect(c, a);
	case CALL_ACCEPT:
		handle_accept(c);
		return 0;
	case CALL_SOCKET:
		if (tells(c, RECORD_SOCKET))
			emit_socket_create(c->task, a->at[0], a->at[1], a->at[2]);
		return 0;
	case CALL_BIND:
		handle_bind(c, a);
		return 0;
	case CALL_LISTEN:
		handle_listen(c, a);
		return 0;
	case CALL_SENDTO:
	case CALL_SENDMSG:
	case CALL_SENDMMSG:
		return handle_send(c, call, a);
	default:
		return 0;
	}
}

/* The call that a socketcall stands for; its arguments lie in user memory. */
static __always_inline enum call socketcall(struct call_context *c, struct socket_args *a)
{
	__u32 which = argument(c, 0), args[6] = {};
	int i;

	bpf_probe_read_user(args, sizeof(args), (void *)argument(c, 1));
	for (i = 0; i < 6; i++)
		a->at[i] = args[i];
	return which == SYS_SOCKET			      ? CALL_SOCKET
	       : which == SYS_BIND			      ? CALL_BIND
	       : which == SYS_CONNECT			      ? CALL_CONNECT
	       : which == SYS_LISTEN			      ? CALL_LISTEN
	       : which == SYS_ACCEPT || which == SYS_ACCEPT4 ? CALL_ACCEPT
	       : which == SYS_SENDTO			      ? CALL_SENDTO
	       : which == SYS_SENDMSG			      ? CALL_SENDMSG
	       : which == SYS_SENDMMSG			      ? CALL_SENDMMSG
							      : CALL_OTHER;
}

/* Not inline: its arguments must not be on the stack of every other call. */
static __attribute__((noinline)) int handle_socket_call(struct call_context *c, enum call call)
{
	struct socket_args a;

	if (call == CALL_SOCKETCALL) {
		call = socketcall(c, &a);
	} else {
		a.at[0] = argument(c, 0);
		a.at[1] = argument(c, 1);
		a.at[2] = argument(c, 2);
		a.at[3] = argument(c, 3);
		a.at[4] = argument(c, 4);
		a.at[5] = argument(c, 5);
	}
	return handle_socket(c, call, &a);
}

/* Input, output and errors of a program lie at these. */
#define STANDARD_STREAMS 3

/* Whether the call made a duplicate, and where a program reads its input or writes its output. */
static __always_inline bool duplicates_to_stream(struct call_context *c, enum call call)
{
	__u32 command;

	if (c->result < 0 || c->result >= STANDARD_STREAMS)
		return false;
	if (call != CALL_FCNTL)
		return true;
	command = argument(c, 1);
	return command == F_DUPFD || command == F_DUPFD_CLOEXEC;
}

/*
 * A socket that becomes a standard stream. Those of AF_UNIX are left out: programs on one machine speak to their children
 * through them all the time, and nobody at another one does.
 */
static __attribute__((noinline)) int handle_duplicate(struct call_context *c, enum call call)
{
	struct duplicate_record r = {};
	struct sock *sk;
	__u64 now;

	if (!duplicates_to_stream(c, call) || !tells(c, RECORD_DUPLICATE))
		return 0;
	sk = sock_of(c->task, c->result);
	if (!sk || BPF_CORE_READ(sk, __sk_common.skc_family) == AF_UNIX)
		return 0;
	now = bpf_ktime_get_boot_ns();
	if (!admit(workload_id(c->task), RECORD_DUPLICATE, now))
		return 0;
	header_fill(&r.socket.header, c->task, RECORD_DUPLICATE, now);
	call_result(&r.socket.header, c);
	socket_fill(&r.socket, sk);
	/* What a listener makes of a connection is a copy of itself, its backlog included; nobody else has one. */
	if (BPF_CORE_READ(sk, sk_max_ack_backlog))
		r.socket.flags |= SOCKET_ACCEPTED;
	r.call = call - CALL_DUP + DUPLICATE_DUP;
	r.source = call == CALL_PIDFD_GETFD ? argument_fd(c, 1) : argument_fd(c, 0);
	submit(&r, sizeof(r), RECORD_DUPLICATE);
	return 0;
}

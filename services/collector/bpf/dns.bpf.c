/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * DNS as it passes the edge of a cgroup: questions on their way out, in the context of who asks, and answers on
 * their way in, for whoever asked through that socket. An object of its own because programs on sockets' buffers
 * know no typed tasks and need CAP_NET_ADMIN. Built with LEGACY.
 */
#define PACKETS
#include "dns.h"
#include "dns_tcp.h"
#include "event.h"
#include "guard_scope.h"
#include "kernel.h"
#include "packet.h"
#include "ring.h"
#include "task.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Puts a datagram's message into the record; false if there is none. */
static __always_inline bool message_fill(struct __sk_buff *skb, struct packet *p, struct dns_build *b)
{
	if (skb->len <= p->payload + DNS_HEADER)
		return false;
	b->r.whole_len = skb->len - p->payload;
	return message_load(skb, p->payload, b->r.whole_len, b);
}

/*
 * A message goes out: a question, or the answer of a name server here. Asked within the asker's own call; a datagram that
 * was queued and goes out later belongs to whoever used the socket last. Returns whether a guard forbids it.
 */
static __always_inline bool udp_outgoing(struct __sk_buff *skb, struct packet *p, struct dns_build *b, __u32 number)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	__u32 kind = RECORD_DNS_ANSWER, guard = 0;

	if (!message_fill(skb, p, b))
		return false;
	asker_fill(&b->asker);
	if (!(b->message[2] & DNS_RESPONSE)) {
		kind = RECORD_DNS_QUESTION;
		guard = guard_of_question(number, b->r.message_len);
	}
	header_of_asker(b, kind);
	ends_fill(&b->r, p, true);
	if (guard == GUARD_UNKNOWN)
		b->r.header.guard = guard; /* told, and let through */
	else if (guard)
		header_deny(&b->r.header, guard);
	if (kind == RECORD_DNS_QUESTION && !b->r.header.result)
		bpf_map_update_elem(&askers, &cookie, &b->asker, BPF_ANY);
	if (guard || wanted(kind))
		dns_submit(b, kind);
	return guard && guard != GUARD_UNKNOWN;
}

SEC("cgroup_skb/egress")
int on_egress(struct __sk_buff *skb)
{
	struct packet p = {};
	struct dns_build *b;
	bool forbidden;
	__u32 number;

	if (!packet_parse(skb, &p))
		return 1;
	if (skb->len <= p.payload && !p.syn)
		return 1;
	b = build_claim(&number);
	if (!b) {
		count_short(workload_id(current_task()), RECORD_DNS_QUESTION, true);
		return p.source_port == DNS_PORT || !guard_generation(GUARD_NAME); /* what cannot be judged */
	}
	if (p.protocol == IPPROTO_TCP)
		forbidden = tcp_outgoing(skb, &p, b, number);
	else
		forbidden = udp_outgoing(skb, &p, b, number);
	build_give_back(number);
	return !forbidden;
}

/* An answer to somebody who asked through this socket. */
static __always_inline void udp_incoming(struct __sk_buff *skb, struct packet *p, struct dns_build *b)
{
	if (!message_fill(skb, p, b) || !(b->message[2] & DNS_RESPONSE))
		return;
	header_of_asker(b, RECORD_DNS_ANSWER);
	ends_fill(&b->r, p, false);
	dns_submit(b, RECORD_DNS_ANSWER);
}

/* Whose it is says the socket. Not the current task, which is anybody. */
SEC("cgroup_skb/ingress")
int on_ingress(struct __sk_buff *skb)
{
	struct asker *asker;
	struct packet p = {};
	struct dns_build *b;
	__u64 cookie;
	__u32 number;

	if (!wanted(RECORD_DNS_ANSWER) || !packet_parse(skb, &p) || p.source_port != DNS_PORT)
		return 1;
	if (skb->len <= p.payload && !p.syn)
		return 1;
	cookie = bpf_get_socket_cookie(skb);
	asker = bpf_map_lookup_elem(&askers, &cookie);
	if (!asker)
		return 1;
	b = build_claim(&number);
	if (!b) {
		count_short(workload_known(asker->header.cgroup_id), RECORD_DNS_ANSWER, true);
		return 1;
	}
	b->asker = *asker;
	if (p.protocol == IPPROTO_TCP)
		tcp_incoming(skb, &p, b, number);
	else
		udp_incoming(skb, &p, b);
	build_give_back(number);
	return 1;
}

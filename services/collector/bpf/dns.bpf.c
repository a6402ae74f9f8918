/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * DNS over UDP as it passes the edge of a cgroup: questions on their way out, in the context of who asks, and answers on
 * their way in, for whoever asked through that socket. An object of its own because programs on sockets' buffers
 * know no typed tasks and need CAP_NET_ADMIN. Built with LEGACY.
 */
#include "event.h"
#include "kernel.h"
#include "ring.h"
#include "task.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define DNS_PORT     53
#define IPPROTO_UDP  17
#define IPV4_HEADER  20
#define IPV6_HEADER  40
#define UDP_HEADER   8
#define DNS_RESPONSE 0x80 /* in the third byte of the message (RFC 1035 4.1.1) */
#define DNS_HEADER   12

/* Who asked through a socket, by its cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct record_header);
} askers SEC(".maps");

/* One a CPU is enough: both directions run in softirq or with it disabled. */
struct dns_build {
	struct dns_record r;
	__u8 message[DNS_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dns_build);
} dns_builds SEC(".maps");

/* The ends of a datagram, in wire order, and where its payload starts; 0 if it is not UDP. */
struct datagram {
	__u8 source[16];
	__u8 destination[16];
	__u16 source_port;
	__u16 destination_port;
	__u16 family;
	__u32 payload;
};

static __always_inline __u32 ip_parse(struct __sk_buff *skb, struct datagram *d)
{
	__u8 head[IPV6_HEADER] = {};
	__u32 length;

	if (bpf_skb_load_bytes(skb, 0, head, IPV4_HEADER))
		return 0;
	if (head[0] >> 4 == 4) {
		length = (head[0] & 0xf) * 4;
		/* The port is in the first fragment only. */
		if (head[9] != IPPROTO_UDP || (head[6] & 0x1f) || head[7])
			return 0;
		d->family = AF_INET;
		__builtin_memcpy(d->source, &head[12], 4);
		__builtin_memcpy(d->destination, &head[16], 4);
		return length;
	}
	if (bpf_skb_load_bytes(skb, 0, head, IPV6_HEADER) || head[6] != IPPROTO_UDP)
		return 0;
	d->family = AF_INET6;
	__builtin_memcpy(d->source, &head[8], 16);
	__builtin_memcpy(d->destination, &head[24], 16);
	return IPV6_HEADER;
}

static __always_inline bool udp_parse(struct __sk_buff *skb, struct datagram *d)
{
	__u32 at = ip_parse(skb, d);
	__be16 ports[2];

	if (!at || bpf_skb_load_bytes(skb, at, ports, sizeof(ports)))
		return false;
	d->source_port = bpf_ntohs(ports[0]);
	d->destination_port = bpf_ntohs(ports[1]);
	d->payload = at + UDP_HEADER;
	return true;
}

/* Puts the message into the record; false if there is none. */
static __always_inline bool message_fill(struct __sk_buff *skb, struct datagram *d, struct dns_build *b)
{
	__u64 len;

	if (skb->len <= d->payload + DNS_HEADER)
		return false;
	len = skb->len - d->payload;
	b->r.whole_len = len;
	if (len > DNS_MAX)
		len = DNS_MAX;
	asm volatile("" : "+r"(len));
	len = ((len - 1) & (DNS_MAX - 1)) + 1; /* as it was, and the verifier sees that it is from 1 to DNS_MAX */
	if (bpf_skb_load_bytes(skb, d->payload, b->message, len))
		return false;
	b->r.message_len = len;
	return true;
}

static __always_inline void dns_submit(struct dns_build *b, __u32 kind)
{
	__u64 size = sizeof(b->r) + b->r.message_len;

	asm volatile("" : "+r"(size));
	if (size > sizeof(*b) || !admit(b->r.header.cgroup_id, kind))
		return;
	submit(b, size, kind);
}

static __always_inline void ends_fill(struct dns_record *r, struct datagram *d, bool out)
{
	r->family = d->family;
	r->pad = 0;
	r->local_port = out ? d->source_port : d->destination_port;
	r->remote_port = out ? d->destination_port : d->source_port;
	__builtin_memcpy(r->local, out ? d->source : d->destination, 16);
	__builtin_memcpy(r->remote, out ? d->destination : d->source, 16);
}

static __always_inline struct dns_build *build_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&dns_builds, &zero);
}

/*
 * A message goes out: a question, or the answer of a name server here. Asked within the asker's own call; a datagram that
 * was queued and goes out later belongs to whoever used the socket last.
 */
SEC("cgroup_skb/egress")
int on_egress(struct __sk_buff *skb)
{
	struct datagram d = {};
	struct dns_build *b;
	__u64 cookie;

	if (!udp_parse(skb, &d) || (d.destination_port != DNS_PORT && d.source_port != DNS_PORT))
		return 1;
	b = build_get();
	if (!b || !message_fill(skb, &d, b))
		return 1;
	header_fill(&b->r.header, current_task(), RECORD_DNS_QUESTION);
	ends_fill(&b->r, &d, true);
	cookie = bpf_get_socket_cookie(skb);
	if (b->message[2] & DNS_RESPONSE) {
		b->r.header.kind = RECORD_DNS_ANSWER;
	} else {
		bpf_map_update_elem(&askers, &cookie, &b->r.header, BPF_ANY);
	}
	if (wanted(b->r.header.kind))
		dns_submit(b, b->r.header.kind);
	return 1;
}

/* An answer to somebody who asked through this socket. Nobody else's: the current task is anybody. */
SEC("cgroup_skb/ingress")
int on_ingress(struct __sk_buff *skb)
{
	struct record_header *asker;
	struct datagram d = {};
	struct dns_build *b;
	__u64 cookie;

	if (!wanted(RECORD_DNS_ANSWER) || !udp_parse(skb, &d) || d.source_port != DNS_PORT)
		return 1;
	cookie = bpf_get_socket_cookie(skb);
	asker = bpf_map_lookup_elem(&askers, &cookie);
	b = build_get();
	if (!asker || !b || !message_fill(skb, &d, b) || !(b->message[2] & DNS_RESPONSE))
		return 1;
	b->r.header = *asker;
	b->r.header.kind = RECORD_DNS_ANSWER;
	b->r.header.boottime_ns = bpf_ktime_get_boot_ns();
	ends_fill(&b->r, &d, false);
	dns_submit(b, RECORD_DNS_ANSWER);
	return 1;
}

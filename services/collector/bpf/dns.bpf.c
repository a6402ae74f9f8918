/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * DNS over UDP as it passes the edge of a cgroup: questions on their way out, in the context of who asks, and answers on
 * their way in, for whoever asked through that socket. An object of its own because programs on sockets' buffers
 * know no typed tasks and need CAP_NET_ADMIN. Built with LEGACY.
 */
#include "event.h"
#include "guard_name.h"
#include "guard_scope.h"
#include "kernel.h"
#include "ring.h"
#include "task.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define DNS_PORT     53
#define IPPROTO_HOPOPTS	 0
#define IPPROTO_UDP	 17
#define IPPROTO_ROUTING	 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_DSTOPTS	 60
#define IPV6_EXTENSIONS_MAX 8
#define IPV4_HEADER  20
#define IPV6_HEADER  40
#define UDP_HEADER   8
#define DNS_RESPONSE 0x80 /* in the third byte of the message (RFC 1035 4.1.1) */
#define DNS_HEADER   12
#define DNS_NAME_MAX 255 /* bytes, the root's zero among them (RFC 1035 2.3.4) */
#define DNS_LABEL_MAX 63
#define CPUS_MAX     1024

/* Who asked through a socket, by its cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct record_header);
} askers SEC(".maps");

struct dns_build {
	struct dns_record r;
	__u8 message[DNS_MAX];
	/* Filled from its end; the zeros after it are for what is copied with it. */
	__u8 name[DNS_NAME_MAX + GUARD_NAME_MAX + 1];
	struct guard_name_key key;
};

/* An answer may interrupt a question on its CPU, and a question another one that was preempted. */
#define BUILDS_PER_CPU 4

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CPUS_MAX *BUILDS_PER_CPU); /* user space sets the real number */
	__type(key, __u32);
	__type(value, struct dns_build);
} dns_builds SEC(".maps");

/* Those in use. A map in which there is a place for each, because Linux 5.10 has no atomic exchange. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CPUS_MAX *BUILDS_PER_CPU); /* user space sets the real number */
	__type(key, __u32);
	__type(value, __u8);
} dns_builds_used SEC(".maps");

/* Claims one and sets its number; NULL if all of this CPU's are in use. */
static __always_inline struct dns_build *build_claim(__u32 *number)
{
	__u32 first = bpf_get_smp_processor_id() * BUILDS_PER_CPU, n;
	__u8 used = 1;

	for (n = 0; n < BUILDS_PER_CPU; n++) {
		*number = first + n;
		if (!bpf_map_update_elem(&dns_builds_used, number, &used, BPF_NOEXIST))
			return bpf_map_lookup_elem(&dns_builds, number);
	}
	return 0;
}

static __always_inline void build_give_back(__u32 number)
{
	bpf_map_delete_elem(&dns_builds_used, &number);
}

/* The ends of a datagram, in wire order, and where its payload starts; 0 if it is not UDP. */
struct datagram {
	__u8 source[16];
	__u8 destination[16];
	__u16 source_port;
	__u16 destination_port;
	__u16 family;
	__u32 payload;
};

/* Where the UDP header is behind those that IPv6 allows in between; 0 if it is not UDP, or not its first fragment. */
static __always_inline __u32 ipv6_payload(struct __sk_buff *skb, __u8 next)
{
	__u32 at = IPV6_HEADER, i;
	__u8 head[4]; /* next header, length, and of a fragment the offset */

	for (i = 0; i < IPV6_EXTENSIONS_MAX && next != IPPROTO_UDP; i++) {
		if (bpf_skb_load_bytes(skb, at, head, sizeof(head)))
			return 0;
		if (next == IPPROTO_FRAGMENT && (head[2] || head[3] & 0xf8))
			return 0;
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_FRAGMENT)
			return 0;
		at += next == IPPROTO_FRAGMENT ? 8 : (head[1] + 1) * 8;
		next = head[0];
	}
	return next == IPPROTO_UDP ? at : 0;
}

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
	if (bpf_skb_load_bytes(skb, 0, head, IPV6_HEADER))
		return 0;
	d->family = AF_INET6;
	__builtin_memcpy(d->source, &head[8], 16);
	__builtin_memcpy(d->destination, &head[24], 16);
	return ipv6_payload(skb, head[6]);
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
	if (size > sizeof(*b) || !admit(workload_known(b->r.header.cgroup_id), kind, b->r.header.boottime_ns))
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

/* A byte of a name as the keys have it. */
static __always_inline __u8 lower(__u8 c)
{
	return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

/*
 * Writes the first question's name into the build as the keys have it and returns its length, which is 0 for the root's; -1
 * if there is none in the message, or it is not one of plain labels.
 */
static __always_inline int name_fill(struct dns_build *b, __u32 message_len)
{
	__u32 left = 0, i;
	__u8 c;

	for (i = 0; i < DNS_NAME_MAX && DNS_HEADER + i < message_len; i++) {
		c = b->message[DNS_HEADER + i];
		if (left) {
			b->name[DNS_NAME_MAX - 1 - i] = lower(c);
			left--;
			continue;
		}
		if (!c)
			return i;
		if (c > DNS_LABEL_MAX)
			return -1;
		b->name[DNS_NAME_MAX - 1 - i] = 0;
		left = c;
	}
	return -1;
}

/* The guard of the name that is asked for, GUARD_UNKNOWN if that cannot be told, 0 if there is none. */
__attribute__((noinline)) int guard_of_question(__u32 number, __u32 message_len)
{
	__u32 generation = guard_generation(GUARD_NAME), *guard;
	struct dns_build *b = bpf_map_lookup_elem(&dns_builds, &number);
	__u64 start;
	int len;

	if (!generation || !b)
		return 0;
	len = name_fill(b, message_len);
	if (len < 0)
		return GUARD_UNKNOWN;
	start = DNS_NAME_MAX - len;
	asm volatile("" : "+r"(start));
	if (start > DNS_NAME_MAX) /* never, and the verifier sees it */
		return GUARD_UNKNOWN;
	bpf_probe_read_kernel(b->key.name, GUARD_NAME_MAX, &b->name[start]);
	len++; /* the zero that ends a whole name */
	b->key.bits = (GUARD_NAME_FIXED + (len < GUARD_NAME_MAX ? len : GUARD_NAME_MAX)) * 8;
	b->key.generation = generation;
	b->key.scope = guard_scope(generation);
	guard = bpf_map_lookup_elem(&guard_names, &b->key);
	if (!guard && b->key.scope) {
		b->key.scope = 0;
		guard = bpf_map_lookup_elem(&guard_names, &b->key);
	}
	return guard ? *guard : 0;
}

/*
 * A message goes out: a question, or the answer of a name server here. Asked within the asker's own call; a datagram that
 * was queued and goes out later belongs to whoever used the socket last. Returns whether a guard forbids it.
 */
static __always_inline bool outgoing(struct __sk_buff *skb, struct datagram *d, struct dns_build *b, __u32 number)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	__u32 kind = RECORD_DNS_ANSWER, guard = 0;

	if (!message_fill(skb, d, b))
		return false;
	if (!(b->message[2] & DNS_RESPONSE)) {
		kind = RECORD_DNS_QUESTION;
		guard = guard_of_question(number, b->r.message_len);
	}
	workload_id(current_task()); /* for dns_submit */
	header_fill(&b->r.header, current_task(), kind, bpf_ktime_get_boot_ns());
	ends_fill(&b->r, d, true);
	if (guard == GUARD_UNKNOWN)
		b->r.header.guard = guard; /* told, and let through */
	else if (guard)
		header_deny(&b->r.header, guard);
	if (kind == RECORD_DNS_QUESTION && !b->r.header.result)
		bpf_map_update_elem(&askers, &cookie, &b->r.header, BPF_ANY);
	if (guard || wanted(kind))
		dns_submit(b, kind);
	return guard && guard != GUARD_UNKNOWN;
}

SEC("cgroup_skb/egress")
int on_egress(struct __sk_buff *skb)
{
	struct datagram d = {};
	struct dns_build *b;
	bool forbidden;
	__u32 number;

	if (!udp_parse(skb, &d) || (d.destination_port != DNS_PORT && d.source_port != DNS_PORT))
		return 1;
	b = build_claim(&number);
	if (!b) {
		count_short(workload_id(current_task()), RECORD_DNS_QUESTION, true);
		return d.source_port == DNS_PORT || !guard_generation(GUARD_NAME); /* what cannot be judged */
	}
	forbidden = outgoing(skb, &d, b, number);
	build_give_back(number);
	return !forbidden;
}

/* An answer to somebody who asked through this socket. Nobody else's: the current task is anybody. */
static __always_inline void incoming(struct __sk_buff *skb, struct datagram *d, struct dns_build *b,
				     struct record_header *asker)
{
	if (!message_fill(skb, d, b) || !(b->message[2] & DNS_RESPONSE))
		return;
	b->r.header = *asker;
	b->r.header.kind = RECORD_DNS_ANSWER;
	b->r.header.guard = 0;
	b->r.header.boottime_ns = bpf_ktime_get_boot_ns();
	ends_fill(&b->r, d, false);
	dns_submit(b, RECORD_DNS_ANSWER);
}

SEC("cgroup_skb/ingress")
int on_ingress(struct __sk_buff *skb)
{
	struct record_header *asker;
	struct datagram d = {};
	struct dns_build *b;
	__u64 cookie;
	__u32 number;

	if (!wanted(RECORD_DNS_ANSWER) || !udp_parse(skb, &d) || d.source_port != DNS_PORT)
		return 1;
	cookie = bpf_get_socket_cookie(skb);
	asker = bpf_map_lookup_elem(&askers, &cookie);
	if (!asker)
		return 1;
	b = build_claim(&number);
	if (!b)
		return 1;
	incoming(skb, &d, b, asker);
	build_give_back(number);
	return 1;
}

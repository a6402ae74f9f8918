/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Packets of DNS as programs on sockets' buffers see them: from the IP header on, in one piece of up to 64 KiB. */
#pragma once

#include "kernel.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define DNS_PORT     53
#define IPPROTO_HOPOPTS	 0
#define IPPROTO_TCP	 6
#define IPPROTO_UDP	 17
#define IPPROTO_ROUTING	 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_DSTOPTS	 60
#define IPV6_EXTENSIONS_MAX 8
#define IPV4_HEADER  20
#define IPV6_HEADER  40
#define UDP_HEADER   8
#define TCP_SYN	     0x02

/* Ports and sequence number in this host's order, addresses in wire order. */
struct packet {
	__u8 source[16];
	__u8 destination[16];
	__u16 source_port;
	__u16 destination_port;
	__u16 family;
	__u8 protocol;
	bool syn;
	__u32 payload;	/* where it starts */
	__u32 sequence; /* of the payload's first byte */
};

static __always_inline bool carries_dns(__u8 protocol)
{
	return protocol == IPPROTO_UDP || protocol == IPPROTO_TCP;
}

/* Where the transport's header is behind those that IPv6 allows in between; 0 if it is not in this fragment. */
static __always_inline __u32 ipv6_payload(struct __sk_buff *skb, __u8 *next)
{
	__u32 at = IPV6_HEADER, i;
	__u8 head[4]; /* next header, length, and of a fragment the offset */

	for (i = 0; i < IPV6_EXTENSIONS_MAX && !carries_dns(*next); i++) {
		if (bpf_skb_load_bytes(skb, at, head, sizeof(head)))
			return 0;
		if (*next == IPPROTO_FRAGMENT && (head[2] || head[3] & 0xf8))
			return 0;
		if (*next != IPPROTO_HOPOPTS && *next != IPPROTO_ROUTING && *next != IPPROTO_DSTOPTS &&
		    *next != IPPROTO_FRAGMENT)
			return 0;
		at += *next == IPPROTO_FRAGMENT ? 8 : (head[1] + 1) * 8;
		*next = head[0];
	}
	return carries_dns(*next) ? at : 0;
}

static __always_inline __u32 ip_parse(struct __sk_buff *skb, struct packet *p)
{
	__u8 head[IPV6_HEADER] = {};

	if (bpf_skb_load_bytes(skb, 0, head, IPV4_HEADER))
		return 0;
	if (head[0] >> 4 == 4) {
		/* The port is in the first fragment only. */
		if (!carries_dns(head[9]) || (head[6] & 0x1f) || head[7])
			return 0;
		p->protocol = head[9];
		p->family = AF_INET;
		__builtin_memcpy(p->source, &head[12], 4);
		__builtin_memcpy(p->destination, &head[16], 4);
		return (head[0] & 0xf) * 4;
	}
	if (bpf_skb_load_bytes(skb, 0, head, IPV6_HEADER))
		return 0;
	p->protocol = head[6];
	p->family = AF_INET6;
	__builtin_memcpy(p->source, &head[8], 16);
	__builtin_memcpy(p->destination, &head[24], 16);
	return ipv6_payload(skb, &p->protocol);
}

static __always_inline bool tcp_parse(struct __sk_buff *skb, struct packet *p, __u32 at)
{
	__u8 head[14]; /* as far as the flags (RFC 9293 3.1) */

	if (bpf_skb_load_bytes(skb, at, head, sizeof(head)))
		return false;
	p->syn = head[13] & TCP_SYN;
	p->sequence = (__u32)head[4] << 24 | head[5] << 16 | head[6] << 8 | head[7];
	p->sequence += p->syn; /* which has a number of its own */
	p->payload = at + (head[12] >> 4) * 4;
	return true;
}

/* False if the packet is not one of DNS by its ports. Of all others no more is looked at than that. */
static __always_inline bool packet_parse(struct __sk_buff *skb, struct packet *p)
{
	__u32 at = ip_parse(skb, p);
	__be16 ports[2];

	if (!at || bpf_skb_load_bytes(skb, at, ports, sizeof(ports)))
		return false;
	p->source_port = bpf_ntohs(ports[0]);
	p->destination_port = bpf_ntohs(ports[1]);
	if (p->source_port != DNS_PORT && p->destination_port != DNS_PORT)
		return false;
	if (p->protocol == IPPROTO_TCP)
		return tcp_parse(skb, p, at);
	p->payload = at + UDP_HEADER;
	return true;
}

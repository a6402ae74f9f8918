/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * DNS over TCP: each message behind two octets of length (RFC 1035 4.2.2), any number of them one behind the other (RFC 7766
 * 6.2.1.1). A message is looked at in the segment in which it begins: what of it lies in later ones is cut off, and said to
 * be. The octets of length may come in a segment of their own.
 */
#pragma once

#include "dns.h"

/* In one segment; those behind are counted as lost, or, where a name is guarded, not let through. */
#define MESSAGES_MAX 64

struct position_key {
	__u64 cookie;
	__u64 out;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct position_key);
	__type(value, struct position);
} positions SEC(".maps");

/*
 * Whether somebody is in a call on the packet's socket. Without the lock that a call takes TCP sends when an answer to earlier
 * segments arrives or a timer ends, and the current task is anybody.
 */
static __always_inline bool in_call(struct __sk_buff *skb)
{
	__u64 typed = skb->sk;
	struct sock *sk = 0;

	/* Through memory, because the verifier allows no offset into what has this type. */
	bpf_probe_read_kernel(&sk, sizeof(sk), &typed);
	return sk && BPF_CORE_READ(sk, sk_lock.owned);
}

/* Who sends: who is in a call, or who was in the last one in which something was sent. False if nobody knows. */
static __always_inline bool sender_fill(struct __sk_buff *skb, struct dns_build *b, __u64 *cookie)
{
	struct asker *before;
	struct cgroup *cgroup;

	if (in_call(skb)) {
		asker_fill(&b->asker);
		bpf_map_update_elem(&askers, cookie, &b->asker, BPF_ANY);
		return true;
	}
	before = bpf_map_lookup_elem(&askers, cookie);
	if (!before)
		return false;
	b->asker = *before;
	cgroup = (struct cgroup *)b->asker.cgroup;
	return BPF_CORE_READ(cgroup, kn, id) == b->asker.header.cgroup_id;
}

/*
 * Takes the next message of the stream into the record, or what of it is in the packet; b->at is behind it then, which may be
 * behind the packet. False if none begins in what is left.
 */
static __always_inline bool stream_next(struct __sk_buff *skb, struct dns_build *b)
{
	__u32 length = b->position.length, left, i;
	__u8 octet = 0;

	for (i = 0; i < 2; i++) {
		if (b->position.octets >= 2)
			break;
		if (b->at >= skb->len || bpf_skb_load_bytes(skb, b->at, &octet, 1))
			return false;
		length = (length << 8 | octet) & 0xffff;
		b->position.length = length;
		b->position.octets++;
		b->at++;
	}
	if (b->at >= skb->len && length)
		return false;
	left = skb->len - b->at;
	b->r.whole_len = length;
	b->r.message_len = 0;
	if (length && !message_load(skb, b->at, length < left ? length : left, b))
		return false;
	b->at += length;
	b->position.length = 0;
	b->position.octets = 0;
	return true;
}

static __always_inline bool is_cut(struct __sk_buff *skb, struct dns_build *b)
{
	return b->at > skb->len;
}

/* A message of which the flag is not there is what its direction is for. */
static __always_inline __u32 stream_kind(struct dns_build *b, __u32 otherwise)
{
	if (b->r.message_len < 3)
		return otherwise;
	return b->message[2] & DNS_RESPONSE ? RECORD_DNS_ANSWER : RECORD_DNS_QUESTION;
}

/*
 * The guard that stands in the way of the next message. One that is cut off before its name ends could be put together again
 * by its receiver, so it does not pass.
 */
__attribute__((noinline)) int stream_judge(struct __sk_buff *skb, __u32 number)
{
	struct dns_build *b = bpf_map_lookup_elem(&dns_builds, &number);
	int guard;

	if (!b || !stream_next(skb, b) || stream_kind(b, RECORD_DNS_QUESTION) != RECORD_DNS_QUESTION)
		return 0;
	guard = guard_of_question(number, b->r.message_len);
	if ((__u32)guard == GUARD_UNKNOWN && (!is_cut(skb, b) || !names_guarded(number)))
		return 0;
	return guard;
}

/* Tells of the next message. */
__attribute__((noinline)) int stream_tell(struct __sk_buff *skb, __u32 number, __u32 direction)
{
	struct dns_build *b = bpf_map_lookup_elem(&dns_builds, &number);
	__u32 kind, guard = 0;

	if (!b || !stream_next(skb, b))
		return 0;
	kind = stream_kind(b, direction);
	if (kind == RECORD_DNS_QUESTION && direction == RECORD_DNS_ANSWER) { /* nobody asks from that side */
		count_short(workload_known(b->asker.header.cgroup_id), direction, true);
		return 0;
	}
	if (kind == RECORD_DNS_QUESTION &&
	    (__u32)guard_of_question(number, b->r.message_len) == GUARD_UNKNOWN)
		guard = GUARD_UNKNOWN; /* told, and let through */
	if (!guard && !wanted(kind))
		return 0;
	header_of_asker(b, kind);
	b->r.header.guard = guard;
	dns_submit(b, kind);
	return 0;
}

/* Where the stream goes on in the packet. False if all of it has been told: sent once more, or the rest of what was cut off. */
static __always_inline bool stream_begin(struct __sk_buff *skb, struct packet *p, struct dns_build *b,
					 struct position_key *key, __u32 kind)
{
	struct position *known = bpf_map_lookup_elem(&positions, key);
	struct position fresh = { .next = p->sequence };
	__s32 skip;

	b->position = known ? *known : fresh;
	skip = b->position.next - p->sequence;
	if (skip < 0) { /* what lies in between was not seen, or comes later; where messages begin is not known */
		count_short(workload_known(b->asker.header.cgroup_id), kind, true);
		b->position = fresh;
		b->position.next += skb->len - p->payload;
		bpf_map_update_elem(&positions, key, &b->position, BPF_ANY);
		return false;
	}
	b->at = p->payload + skip;
	return b->at < skb->len;
}

static __always_inline void stream_end(struct packet *p, struct dns_build *b, struct position_key *key)
{
	b->position.next = p->sequence + (b->at - p->payload);
	bpf_map_update_elem(&positions, key, &b->position, BPF_ANY);
}

static __always_inline void stream_tell_all(struct __sk_buff *skb, struct dns_build *b, __u32 number, __u32 kind)
{
	__u32 i;

	for (i = 0; i < MESSAGES_MAX && b->at < skb->len; i++)
		stream_tell(skb, number, kind);
	if (b->at < skb->len) { /* at least one; where the next segment begins is taken for a message's beginning */
		count_short(workload_known(b->asker.header.cgroup_id), kind, true);
		b->at = skb->len;
		b->position.octets = 0;
		b->position.length = 0;
	}
}

/* Tells of the first message for which the segment may not go out. False if there is none, and then nothing has changed. */
static __always_inline bool stream_forbidden(struct __sk_buff *skb, struct dns_build *b, __u32 number)
{
	struct position position = b->position;
	__u32 at = b->at, i;
	int guard = 0;

	for (i = 0; i < MESSAGES_MAX && b->at < skb->len && !guard; i++)
		guard = stream_judge(skb, number);
	if (!guard && b->at < skb->len && names_guarded(number))
		guard = GUARD_UNKNOWN;
	if (guard) {
		header_of_asker(b, RECORD_DNS_QUESTION);
		header_deny(&b->r.header, guard);
		dns_submit(b, RECORD_DNS_QUESTION);
		return true;
	}
	b->position = position;
	b->at = at;
	return false;
}

/* Returns whether a guard forbids it. The sender's TCP sends it again, and is refused again, until it gives up. */
static __always_inline bool tcp_outgoing(struct __sk_buff *skb, struct packet *p, struct dns_build *b, __u32 number)
{
	struct position_key key = { .cookie = bpf_get_socket_cookie(skb), .out = 1 };
	bool asks = p->destination_port == DNS_PORT;
	__u32 kind = asks ? RECORD_DNS_QUESTION : RECORD_DNS_ANSWER;

	if (!sender_fill(skb, b, &key.cookie)) {
		if (skb->len <= p->payload)
			return false;
		count_short(0, kind, true);
		return asks && guard_generation(GUARD_NAME);
	}
	if (p->syn) {
		b->position.next = p->sequence;
		b->position.octets = 0;
		b->position.length = 0;
		bpf_map_update_elem(&positions, &key, &b->position, BPF_ANY);
	}
	if (skb->len <= p->payload || !stream_begin(skb, p, b, &key, kind))
		return false;
	ends_fill(&b->r, p, true);
	if (asks && guard_generation(GUARD_NAME) && stream_forbidden(skb, b, number))
		return true;
	stream_tell_all(skb, b, number, kind);
	stream_end(p, b, &key);
	return false;
}

/* Answers to somebody who asked through this socket. */
static __always_inline void tcp_incoming(struct __sk_buff *skb, struct packet *p, struct dns_build *b, __u32 number)
{
	struct position_key key = { .cookie = bpf_get_socket_cookie(skb) };

	if (p->syn) {
		b->position.next = p->sequence;
		b->position.octets = 0;
		b->position.length = 0;
		bpf_map_update_elem(&positions, &key, &b->position, BPF_ANY);
	}
	if (skb->len <= p->payload || !stream_begin(skb, p, b, &key, RECORD_DNS_ANSWER))
		return;
	ends_fill(&b->r, p, false);
	stream_tell_all(skb, b, number, RECORD_DNS_ANSWER);
	stream_end(p, b, &key);
}

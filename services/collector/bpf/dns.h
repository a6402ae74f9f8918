/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* A DNS message on its way into a record: where it is built, who asked for it, which guard its name has. */
#pragma once

#include "event.h"
#include "guard_name.h"
#include "guard_scope.h"
#include "kernel.h"
#include "packet.h"
#include "ring.h"
#include "task.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define DNS_RESPONSE 0x80 /* in the third byte of the message (RFC 1035 4.1.1) */
#define DNS_HEADER   12
#define DNS_NAME_MAX 255 /* bytes, the root's zero among them (RFC 1035 2.3.4) */
#define DNS_LABEL_MAX 63
#define CPUS_MAX     1024

struct asker {
	struct record_header header; /* of no kind and without a result */
	__u64 cgroup;		     /* address of the asker's; the cgroup may be gone by now */
};

/* Who asked through a socket, by its cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct asker);
} askers SEC(".maps");

/* How far one direction of a TCP connection has been told. */
struct position {
	__u32 next;   /* sequence number of the first byte that has not been told */
	__u16 length; /* of the message that begins there, as far as its octets are known */
	__u8 octets;  /* of the two of that length, how many came before */
	__u8 pad;
};

struct dns_build {
	struct dns_record r;
	__u8 message[DNS_MAX];
	/* Filled from its end; the zeros after it are for what is copied with it. */
	__u8 name[DNS_NAME_MAX + GUARD_NAME_MAX + 1];
	struct guard_name_key key;
	struct asker asker;
	struct position position;
	__u32 at; /* in the packet: what comes next */
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

/* Copies len bytes of the packet into the record as its message, or as many as there is room for. len is not 0. */
static __always_inline bool message_load(struct __sk_buff *skb, __u32 at, __u64 len, struct dns_build *b)
{
	if (len > DNS_MAX)
		len = DNS_MAX;
	asm volatile("" : "+r"(len));
	len = ((len - 1) & (DNS_MAX - 1)) + 1; /* as it was, and the verifier sees that it is from 1 to DNS_MAX */
	if (bpf_skb_load_bytes(skb, at, b->message, len))
		return false;
	b->r.message_len = len;
	return true;
}

static __always_inline void dns_submit(struct dns_build *b, __u32 kind)
{
	__u64 size = sizeof(b->r) + b->r.message_len;

	asm volatile("" : "+r"(size));
	if (size > sizeof(b->r) + DNS_MAX || !admit(workload_known(b->r.header.cgroup_id), kind, b->r.header.boottime_ns))
		return;
	submit(b, size, kind);
}

static __always_inline void ends_fill(struct dns_record *r, struct packet *p, bool out)
{
	r->family = p->family;
	r->protocol = p->protocol;
	r->local_port = out ? p->source_port : p->destination_port;
	r->remote_port = out ? p->destination_port : p->source_port;
	__builtin_memcpy(r->local, out ? p->source : p->destination, 16);
	__builtin_memcpy(r->remote, out ? p->destination : p->source, 16);
}

/* The current task asks. */
static __always_inline void asker_fill(struct asker *a)
{
	struct task_struct *task = current_task();

	workload_id(task); /* for dns_submit */
	header_fill(&a->header, task, 0, 0);
	a->cgroup = (__u64)cgroup_of(LOAD(task, cgroups));
}

/* Puts the asker into the record, without its result. */
static __always_inline void header_of_asker(struct dns_build *b, __u32 kind)
{
	b->r.header = b->asker.header;
	b->r.header.kind = kind;
	b->r.header.boottime_ns = bpf_ktime_get_boot_ns();
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

/*
 * The guard of a key of so many bytes in the asker's scope or everywhere; GUARD_NONE if none of that scope or everybody's is
 * about names.
 */
#define GUARD_NONE 0xfffffffe

static __always_inline __u32 guard_of_key(struct dns_build *b, __u32 bytes)
{
	__u32 generation = guard_generation(GUARD_NAME), scope, *own, *everybodys;

	if (!generation)
		return GUARD_NONE;
	scope = guard_scope_of(generation, b->asker.cgroup);
	b->key.bits = (GUARD_NAME_FIXED + bytes) * 8;
	b->key.generation = generation;
	b->key.scope = scope;
	own = bpf_map_lookup_elem(&guard_names, &b->key);
	if (own && *own)
		return *own;
	b->key.scope = 0;
	everybodys = bpf_map_lookup_elem(&guard_names, &b->key);
	if (everybodys)
		return *everybodys;
	return own ? 0 : GUARD_NONE;
}

/* Whether the asker may not look up every name. */
__attribute__((noinline)) int names_guarded(__u32 number)
{
	struct dns_build *b = bpf_map_lookup_elem(&dns_builds, &number);

	return b && guard_of_key(b, 0) != GUARD_NONE;
}

/* The guard of the name that is asked for, GUARD_UNKNOWN if that cannot be told, 0 if there is none. */
__attribute__((noinline)) int guard_of_question(__u32 number, __u32 message_len)
{
	struct dns_build *b = bpf_map_lookup_elem(&dns_builds, &number);
	__u32 guard;
	__u64 start;
	int len;

	if (!b || !guard_generation(GUARD_NAME))
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
	guard = guard_of_key(b, len < GUARD_NAME_MAX ? len : GUARD_NAME_MAX);
	return guard == GUARD_NONE ? 0 : guard;
}

/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * From a fact to user space: is the kind wanted, is the workload within its rate, is there room on the
 * ring. What is wanted and does not arrive is counted by workload, kind and CPU.
 */
#pragma once

#include "event.h"
#include "kernel.h"
#include "workload.h"
#include <bpf/bpf_helpers.h>

/*
 * Urgent has what little happens and matters most; bulk has what floods. So no number of file events
 * pushes out an exec.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20); /* user space sets the real size */
} urgent SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20); /* user space sets the real size */
} bulk SEC(".maps");

#define BIT(kind) (1ull << (kind))

#define BULK_KINDS                                                                                 \
	(BIT(RECORD_FILE_OPEN) | BIT(RECORD_CONNECT) | BIT(RECORD_ACCEPT) | BIT(RECORD_RENAME) |   \
	 BIT(RECORD_UNLINK) | BIT(RECORD_RMDIR) | BIT(RECORD_LINK) | BIT(RECORD_SYMLINK) |         \
	 BIT(RECORD_MKDIR) | BIT(RECORD_MKNOD) | BIT(RECORD_CHMOD) | BIT(RECORD_CHOWN) |           \
	 BIT(RECORD_TRUNCATE) | BIT(RECORD_SETXATTR) | BIT(RECORD_MMAP_EXEC) |                     \
	 BIT(RECORD_MPROTECT_EXEC) | BIT(RECORD_SOCKET) | BIT(RECORD_BIND) | BIT(RECORD_LISTEN) |  \
	 BIT(RECORD_SEND) | BIT(RECORD_CONNECT_UNIX) | BIT(RECORD_DNS_QUESTION) |                  \
	 BIT(RECORD_DNS_ANSWER) | BIT(RECORD_IO_URING) | BIT(RECORD_DUPLICATE))

/*
 * Each load of the programs has a number. Only the owner's record anything, so that a new version can be attached
 * beside the old one and take over with one store.
 */
const volatile __u64 generation = 0;

/* What user space may change while the programs run. A rate of 0 is no limit. */
struct settings {
	__u64 owner;	       /* generation */
	__u64 wanted;	       /* BIT(kind) of each kind somebody asked for */
	__u64 urgent_cost_ns;  /* 1e9 / records a second and workload */
	__u64 urgent_burst_ns; /* cost times the records a workload may send at once */
	__u64 bulk_cost_ns;
	__u64 bulk_burst_ns;
	__u64 opens; /* OPENS_*: in one word, which changes at once */
	__u64 peers; /* as well: the number of a list, and PEERS_LISTED if not all are wanted */
	__u64 read_beginnings; /* a bit for each way in which a prefix on the list begins */
	__u64 write_beginnings;
};

/*
 * Which opens are wanted: those that may read or write files on a list of prefixes of paths, or all of them. The lower
 * half is the number of the list of those that may read; the other one's is one more.
 */
#define OPENS_READS	 (1ull << 32)
#define OPENS_WRITES	 (1ull << 33)
#define OPENS_READS_ALL	 (1ull << 34)
#define OPENS_WRITES_ALL (1ull << 35)
#define OPENS_ALL_SHIFT	 2

/* Of those that are wanted, the path as the caller wrote it as well. */
#define OPENS_GIVEN (1ull << 36)

/* Peers of connections and datagrams that are wanted are those on a list. */
#define PEERS_LISTED (1ull << 32)

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

static __always_inline struct settings *settings_now(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

/*
 * Token buckets in the form of a clock (GCRA): the time at which a workload that kept to its rate would
 * have sent what it has sent. Losing one to the LRU gives a workload a full burst again.
 */
struct bucket {
	__u64 urgent_ns;
	__u64 bulk_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64); /* workload_id() */
	__type(value, struct bucket);
} buckets SEC(".maps");

struct shortfall_key {
	__u64 cgroup_id; /* workload_id() */
	__u32 kind;
	__u32 cpu;
};

struct shortfall {
	__u64 lost;    /* the ring was full, or no memory to build the record in */
	__u64 dropped; /* the workload was over its rate */
};

/* Counters only grow; user space reports differences. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct shortfall_key);
	__type(value, struct shortfall);
} shortfalls SEC(".maps");

/* Those for which shortfalls had no room: by kind, of a workload that is not known. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RECORD_KINDS);
	__type(key, __u32);
	__type(value, struct shortfall);
} shortfalls_other SEC(".maps");

/*
 * User space's own notes, which no program reads. They are maps because maps outlive a collector that is killed.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096 + 512); /* shortfalls, and those of shortfalls_other */
	__type(key, struct shortfall_key);
	__type(value, struct shortfall);
} told SEC(".maps"); /* what of the counters the subscriber has acknowledged */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);   /* the kernel's id of a program */
	__type(value, __u64); /* how often it was left out, as far as the subscriber has acknowledged it */
} told_left_out SEC(".maps");

struct progress {
	__u64 acknowledged;
	__u64 freed;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3); /* by number of the ring, from 1 */
	__type(key, __u32);
	__type(value, struct progress);
} progress SEC(".maps");

/*
 * Whether user space is looking at the rings anyway. Waking it up takes ten times as long as all the rest of an exec's
 * record where interrupts are virtual, and that time is the traced process's.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} awake SEC(".maps");

struct identity {
	__u8 epoch[16];	 /* random, made with the rings */
	__u8 digest[32]; /* of the owner's programs */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct identity);
} identity SEC(".maps");

/*
 * What user space wants to know at one look. A program sets a sign and user space clears it; one that is set is left alone, so
 * that processors do not fight for it.
 */
enum sign {
	SIGN_SHORT,	   /* something was counted in shortfalls or shortfalls_other */
	SIGN_EXEC_CHECKED, /* the decision on an exec, which makes a record only of a denial, was asked for */
	SIGNS,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SIGNS);
	__type(key, __u32);
	__type(value, __u32);
} signs SEC(".maps");

static __always_inline void sign_set(__u32 sign)
{
	__u32 *set = bpf_map_lookup_elem(&signs, &sign);

	if (set && !*set)
		*set = 1;
}

static __always_inline void shortfall_add(struct shortfall *sum, bool lost)
{
	if (lost)
		__sync_fetch_and_add(&sum->lost, 1);
	else
		__sync_fetch_and_add(&sum->dropped, 1);
}

static __attribute__((noinline)) int count_short(__u64 cgroup_id, __u32 kind, int lost)
{
	struct shortfall_key key = { .cgroup_id = cgroup_id, .kind = kind };
	struct shortfall zero = {}, *sum;

	key.cpu = bpf_get_smp_processor_id();
	sum = bpf_map_lookup_elem(&shortfalls, &key);
	if (!sum) {
		bpf_map_update_elem(&shortfalls, &key, &zero, BPF_NOEXIST);
		sum = bpf_map_lookup_elem(&shortfalls, &key);
	}
	if (!sum)
		sum = bpf_map_lookup_elem(&shortfalls_other, &kind);
	if (sum)
		shortfall_add(sum, lost);
	sign_set(SIGN_SHORT); /* after it was counted: user space clears the sign before it reads the counters */
	return 0;
}

static __always_inline bool wanted(__u32 kind)
{
	struct settings *now = settings_now();

	return now && now->owner == generation && now->wanted & BIT(kind);
}

/* Whether one more record keeps within the rate; if so it counts. Two CPUs may both take the last one. */
static __always_inline bool clock_advance(__u64 *clock_ns, __u64 now, __u64 cost_ns, __u64 burst_ns)
{
	__u64 at = *clock_ns;

	if (!cost_ns)
		return true;
	if (at < now)
		at = now;
	if (at - now > burst_ns)
		return false;
	*clock_ns = at + cost_ns;
	return true;
}

static __always_inline bool within_rate(__u64 cgroup_id, __u32 kind, __u64 now)
{
	struct bucket fresh = {}, *bucket;
	struct settings *rates = settings_now();

	if (!rates)
		return true;
	bucket = bpf_map_lookup_elem(&buckets, &cgroup_id);
	if (!bucket) {
		bpf_map_update_elem(&buckets, &cgroup_id, &fresh, BPF_NOEXIST);
		bucket = bpf_map_lookup_elem(&buckets, &cgroup_id);
		if (!bucket)
			return true;
	}
	if (BULK_KINDS & BIT(kind))
		return clock_advance(&bucket->bulk_ns, now, rates->bulk_cost_ns,
				     rates->bulk_burst_ns);
	return clock_advance(&bucket->urgent_ns, now, rates->urgent_cost_ns, rates->urgent_burst_ns);
}

/*
 * First question of every hook, before anything is looked up. now is bpf_ktime_get_boot_ns(), which is the record's time too:
 * reading the clock twice is a tenth of what a record costs where time is virtual.
 */
static __always_inline bool admit(__u64 cgroup_id, __u32 kind, __u64 now)
{
	if (within_rate(cgroup_id, kind, now))
		return true;
	count_short(cgroup_id, kind, false);
	return false;
}

/* Hands over a record of size bytes whose header is filled. */
static __always_inline void submit(void *record, __u64 size, __u32 kind)
{
	struct record_header *h = record;
	__u32 zero = 0, *looking = bpf_map_lookup_elem(&awake, &zero);
	__u64 flags = looking && *looking ? BPF_RB_NO_WAKEUP : 0;
	long err;

	h->size = size;
	if (BULK_KINDS & BIT(kind) && !h->guard)
		err = bpf_ringbuf_output(&bulk, record, size, flags);
	else
		err = bpf_ringbuf_output(&urgent, record, size, flags);
	if (err)
		count_short(workload_known(h->cgroup_id), kind, true);
}

/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Opens, of which only some are wanted: there is a list of prefixes of paths for those that may read, and one for those
 * that may write.
 */
#pragma once

#include "area.h"
#include "event.h"
#include "file.h"
#include "kernel.h"
#include "path.h"
#include "ring.h"
#include "syscall.h"
#include "task.h"
#include <bpf/bpf_helpers.h>

/* Bits are those of the list, and of the path's bytes as far as they are looked at. */
struct prefix_key {
	__u32 bits;
	__u32 list;
	__u8 path[PREFIX_MAX];
};

/*
 * Filled before the settings name the lists, and emptied of the lists before after that, so that no moment is without
 * the one list or the other.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 4 * PREFIXES_MAX); /* two lists each of what is and what is to be */
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix_key);
	__type(value, __u8);
} prefixes SEC(".maps");

/* Which lists may want a file opened with these flags: OPENS_* without _ALL, shifted down to OPENS_READS. */
static __always_inline __u64 lists_of(__u32 flags)
{
	if (flags & O_PATH)
		return OPENS_READS;
	switch (flags & O_ACCMODE) {
	case O_WRONLY:
		return OPENS_WRITES;
	case O_RDWR:
		return OPENS_READS | OPENS_WRITES;
	default:
		return OPENS_READS;
	}
}

static __always_inline __u64 beginnings_of(struct settings *wants, __u64 lists)
{
	return (lists & OPENS_READS ? wants->read_beginnings : 0) |
	       (lists & OPENS_WRITES ? wants->write_beginnings : 0);
}

/* Up to here a file's way to the root of its mount namespace is looked at before its path is put together. */
#define CLIMB_STEPS 64

/* Whether some prefix on the lists may begin with this name below the root. As beginning() of user space. */
static __always_inline bool name_begins(struct dentry *dentry, __u64 beginnings)
{
	const unsigned char *name = FOLLOW(dentry, d_name.name);
	__u8 first[2] = {};

	if (!dentry || FOLLOW(dentry, d_name.len) < sizeof(first))
		return true;
	first_two(first, name);
	return beginnings >> (((first[0] * 37 + first[1]) & 0xff) >> 2) & 1;
}

/*
 * Whether some prefix on the lists may begin as the file's path does: most files are of no interest, and end here. One that is
 * too deep, or not below the root, may be.
 */
static __always_inline bool may_be_listed(struct file *file, __u64 beginnings)
{
	struct dentry *dentry = FOLLOW(file, f_path.dentry), *root, *below = 0;
	struct mount *mnt = mount_of((__u64)FOLLOW(file, f_path.mnt)), *above;
	int i;

	root = FOLLOW(mnt, mnt.mnt_root);
	for (i = 0; i < CLIMB_STEPS; i++) {
		if (dentry == root) {
			above = FOLLOW(mnt, mnt_parent);
			if (above == mnt)
				return name_begins(below, beginnings);
			dentry = FOLLOW(mnt, mnt_mountpoint);
			mnt = above;
			root = FOLLOW(mnt, mnt.mnt_root);
			continue;
		}
		below = dentry;
		dentry = FOLLOW(dentry, d_parent);
		if (dentry == below)
			return true;
	}
	return true;
}

/* Below, bounds are repeated where they are used: Linux before 6.2 forgets those of what it spills. */

/* Whether the path in the area has a prefix on the list. The key is the path itself, where it lies. */
static __always_inline bool list_has(struct area *a, __u64 at, __u32 list)
{
	struct prefix_key *key;
	__u64 len = PATH_MAX - at;

	bound(at, PATH_MAX - 1);
	key = (void *)&a->path[HEADROOM - PREFIX_KEY_HEAD + at];
	if (len > PREFIX_MAX)
		len = PREFIX_MAX;
	key->bits = (sizeof(key->list) + len) * 8;
	key->list = list;
	return bpf_map_lookup_elem(&prefixes, key);
}

/* Whether one of the lists has the path, or the lists are no longer those that count. */
static __always_inline bool path_wanted(struct area *a, __u64 at, struct settings *wants, __u64 opens,
					__u64 lists)
{
	if (lists & OPENS_READS && list_has(a, at, opens))
		return true;
	if (lists & OPENS_WRITES && list_has(a, at, (__u32)opens + 1))
		return true;
	/* They may have been emptied while we looked. */
	return *(volatile __u64 *)&wants->opens != opens;
}

/* An open that may be told. */
struct opening {
	struct task_struct *task;
	struct file *file;
	struct call_context *call; /* that has returned, or NULL in the midst of it */
	enum call which;
	__u32 guard; /* that has denied it, or killed who did it, or 0: that is told whoever wants what */
	bool killed;
};

/* Where in the caller's memory a call that has returned had its path, 0 if nowhere. */
static __always_inline __u64 path_argument(struct call_context *c, enum call call)
{
	if (call == CALL_OPEN || call == CALL_CREATE)
		return argument(c, 0);
	return call == CALL_OPEN_AT || call == CALL_OPEN_AT_2 ? argument(c, 1) : 0;
}

/* What was asked of an open that an open file keeps no trace of (do_dentry_open), in the midst of the call it still does. */
#define OPEN_ONCE (O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC)

static __always_inline __u32 open_once(struct opening *o)
{
	__u64 flags = 0;

	if (!o->call)
		return 0;
	switch (o->which) {
	case CALL_OPEN:
		flags = argument(o->call, 1);
		break;
	case CALL_CREATE:
		flags = O_CREAT | O_TRUNC;
		break;
	case CALL_OPEN_AT:
	case CALL_OPEN_HANDLE:
		flags = argument(o->call, 2);
		break;
	case CALL_OPEN_AT_2: /* struct open_how begins with them; if they cannot be read any more, they are not told */
		bpf_probe_read_user(&flags, sizeof(flags), (void *)argument(o->call, 2));
		break;
	default:
		break;
	}
	return flags & OPEN_ONCE;
}

/* The kernel's own copy of the path that the task is having looked up, by whatever way it asked, or 0. */
static __always_inline __u64 path_looked_up(struct task_struct *task)
{
	if (!bpf_core_field_exists(task->nameidata) || !bpf_core_type_exists(struct filename) ||
	    !bpf_core_field_exists(((struct nameidata *)0)->name))
		return 0;
	return (__u64)BPF_CORE_READ(task, nameidata, name, name);
}

/* Says in the record what came of reading the path as the caller wrote it. One of PATH_MAX with its NUL is the longest there is. */
static __always_inline __u64 given_note(struct file_open_record *r, long got, bool in_kernel)
{
	__u64 len = 0;

	/* Without a name, as by a file handle, the kernel looks up nothing. */
	if (in_kernel && got == 1)
		return 0;
	r->given_flags = in_kernel ? GIVEN_KERNEL : GIVEN_ARGUMENT;
	if (got < 1) {
		r->given_flags |= GIVEN_UNREADABLE;
		return 0;
	}
	if (got > PATH_MAX)
		r->given_flags |= GIVEN_TRUNCATED;
	len = got - 1;
	bound(len, PATH_MAX);
	r->given_len = len;
	return len;
}

/* Submits a copy of a record of size bytes, with the path as the caller wrote it behind. */
static __always_inline void open_submit_given(struct area *a, struct file_open_record *r, __u64 size, struct opening *o)
{
	__u64 from = o->call ? path_argument(o->call, o->which) : path_looked_up(o->task);
	struct file_open_record *copy = (void *)a->record;
	long got;

	bound(size, sizeof(*r) + PATH_MAX);
	bpf_probe_read_kernel(copy, size, r);
	if (from) {
		if (o->call)
			got = bpf_probe_read_user_str(&a->record[size], PATH_MAX + 1, (void *)from);
		else
			got = bpf_probe_read_kernel_str(&a->record[size], PATH_MAX + 1, (void *)from);
		size += given_note(copy, got, !o->call);
	}
	bound(size, sizeof(*r) + 2 * PATH_MAX);
	submit(copy, size, RECORD_FILE_OPEN);
}

/* The record is built before the path, where it lies. */
static __always_inline void open_submit(struct area *a, __u64 at, bool whole, struct opening *o, bool given, __u64 now)
{
	struct file *file = o->file;
	struct inode *inode = FOLLOW(file, f_inode);
	struct file_open_record *r;
	__u64 len = PATH_MAX - at;

	bound(at, PATH_MAX - 1);
	r = (void *)&a->path[HEADROOM - sizeof(*r) + at];
	header_fill(&r->header, o->task, RECORD_FILE_OPEN, now);
	if (o->guard && o->killed)
		header_kill(&r->header, o->guard);
	else if (o->guard)
		header_deny(&r->header, o->guard);
	__builtin_memset(&r->file, 0, sizeof(*r) - sizeof(r->header));
	r->open_flags = FOLLOW(file, f_flags) | open_once(o);
	r->file.path_len = len;
	if (!whole)
		r->file.flags = FILE_PATH_TRUNCATED;
	inode_fill(&r->file, inode, FOLLOW(file, f_path.mnt));
	bound(len, PATH_MAX);
	if (given)
		open_submit_given(a, r, sizeof(*r) + len, o);
	else
		submit(r, sizeof(*r) + len, RECORD_FILE_OPEN);
}

static __always_inline void emit_file_open(struct opening *o)
{
	struct task_struct *task = o->task;
	struct settings *wants = settings_now();
	struct file *file = o->file;
	__u64 now, cgroup, opens, lists, at;
	struct area *a;
	bool all, whole;
	int number;

	if (!file || !wants)
		return;
	opens = *(volatile __u64 *)&wants->opens;
	lists = lists_of(FOLLOW(file, f_flags));
	all = o->guard || lists << OPENS_ALL_SHIFT & opens;
	lists &= opens;
	if (!all && (!lists || !may_be_listed(file, beginnings_of(wants, lists))))
		return;
	now = bpf_ktime_get_boot_ns();
	cgroup = cgroup_id(task);
	if (all && !admit(workload_id(task), RECORD_FILE_OPEN, now))
		return;
	a = area_begin(cgroup, RECORD_FILE_OPEN, &number);
	if (!a)
		return;
	at = path_find(a, number, FOLLOW(file, f_path.dentry), FOLLOW(file, f_path.mnt), &whole);
	if (all || ((!whole || path_wanted(a, at, wants, opens, lists)) && admit(workload_id(task), RECORD_FILE_OPEN, now)))
		open_submit(a, at, whole, o, opens & OPENS_GIVEN, now);
	give_back(&a->busy);
}

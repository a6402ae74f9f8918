/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Changes of names, attributes and mounts; execs that failed. */
#pragma once

#include "area.h"
#include "event.h"
#include "file.h"
#include "kernel.h"
#include "path.h"
#include "ring.h"
#include "task.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* A record under construction. */
struct change {
	struct area *area;
	struct change_record *record;
	int number; /* of the area */
	__u64 end;  /* of the record so far */
};

/* Where the next part may start: two paths with their bases, then a text. */
#define PART_START_MAX (sizeof(struct change_record) + 4 * PATH_MAX)

static __always_inline bool change_begin(struct change *c, struct task_struct *task, __u32 kind)
{
	__u64 workload = workload_id(task), now = bpf_ktime_get_boot_ns();

	if (!admit(workload, kind, now))
		return false;
	c->area = area_begin(workload, kind, &c->number);
	if (!c->area)
		return false;
	c->record = (void *)c->area->record;
	c->end = sizeof(*c->record);
	header_fill(&c->record->header, task, kind, now);
	__builtin_memset(&c->record->file, 0, sizeof(*c->record) - sizeof(c->record->header));
	return true;
}

static __always_inline void change_end(struct change *c, __u32 kind)
{
	bound(c->end, AREA_RECORD_MAX);
	submit(c->record, c->end, kind);
	give_back(&c->area->busy);
}

/* The next part is a path the kernel knows. */
static __always_inline void change_dentry(struct change *c, struct file_facts *facts,
					  struct dentry *dentry, struct vfsmount *mnt)
{
	bound(c->end, PART_START_MAX);
	c->end += dentry_fill(c->area, c->number, facts, dentry, mnt, &c->area->record[c->end]);
}

static __always_inline void change_path(struct change *c, struct file_facts *facts, struct path *path)
{
	change_dentry(c, facts, BPF_CORE_READ(path, dentry), BPF_CORE_READ(path, mnt));
}

static __always_inline void change_file(struct change *c, struct file_facts *facts, struct file *file)
{
	struct path path;

	BPF_CORE_READ_INTO(&path, file, f_path);
	change_dentry(c, facts, path.dentry, path.mnt);
}

/* The next part is the directory that a relative path starts at. */
static __always_inline void change_base(struct change *c, struct file_facts *facts,
					struct task_struct *task, int dirfd)
{
	struct file *file;
	struct path base;
	bool whole;

	if (dirfd == AT_FDCWD) {
		BPF_CORE_READ_INTO(&base, task, fs, pwd);
	} else {
		file = file_of(task, dirfd);
		if (!file)
			return;
		BPF_CORE_READ_INTO(&base, file, f_path);
	}
	bound(c->end, PART_START_MAX);
	facts->base_len = path_put(c->area, c->number, &c->area->record[c->end], base.dentry, base.mnt,
				   &whole);
	c->end += facts->base_len;
}

/* The next part is a path as the caller wrote it, which another of its threads may have changed since. */
static __always_inline void change_argument(struct change *c, struct file_facts *facts,
					    struct task_struct *task, int dirfd, __u64 from)
{
	__u8 first;

	bound(c->end, PART_START_MAX);
	facts->flags |= FILE_PATH_ARGUMENT;
	facts->path_len = string_put(&c->area->record[c->end], PATH_MAX, from);
	first = c->area->record[c->end];
	c->end += facts->path_len;
	if (!facts->path_len || first != '/')
		change_base(c, facts, task, dirfd);
}

/* The next part is a text of the caller's. */
static __always_inline void change_user_text(struct change *c, __u32 *len, __u32 max, __u64 from)
{
	bound(c->end, PART_START_MAX);
	*len = string_put(&c->area->record[c->end], max, from);
	c->end += *len;
}

/* The next part is a text that the kernel has copied already. */
static __always_inline void change_kernel_text(struct change *c, __u32 *len, __u32 max, const char *from)
{
	long n;

	bound(c->end, PART_START_MAX);
	n = bpf_probe_read_kernel_str(&c->area->record[c->end], max, from);
	*len = n > 0 ? n - 1 : 0;
	c->end += *len;
}

/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Facts about an open file and its inode. */
#pragma once

#include "area.h"
#include "event.h"
#include "kernel.h"
#include "path.h"
#include "ring.h"
#include "task.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define ERRNO_MAX 4095

/*
 * True for the mounts only the kernel uses: their namespace is MNT_NS_INTERNAL, an error value. A
 * memfd is an inode on the tmpfs (or hugetlbfs) that is mounted so.
 */
static __always_inline bool mount_is_internal(struct vfsmount *vfsmnt)
{
	struct mount *mnt = (void *)((__u64)vfsmnt - bpf_core_field_offset(struct mount, mnt));

	return (__u64)BPF_CORE_READ(mnt, mnt_ns) >= (__u64)-ERRNO_MAX;
}

/*
 * overlayfs keeps __upperdentry right behind the VFS inode in struct ovl_inode. The struct itself is
 * in the module's BTF, not in vmlinux's, hence the arithmetic.
 */
static __always_inline bool inode_is_upper(struct inode *inode)
{
	void *upper = 0;

	bpf_probe_read_kernel(&upper, sizeof(upper),
			      (void *)inode + bpf_core_type_size(struct inode));
	return upper != 0;
}

/* What the inode tells, but not the path. */
static __always_inline void inode_fill(struct file_facts *facts, struct inode *inode,
				       struct vfsmount *mnt)
{
	struct super_block *sb = BPF_CORE_READ(inode, i_sb);
	unsigned long magic = BPF_CORE_READ(sb, s_magic);

	facts->inode = BPF_CORE_READ(inode, i_ino);
	facts->device = BPF_CORE_READ(sb, s_dev);
	facts->mode = BPF_CORE_READ(inode, i_mode);
	if (BPF_CORE_READ(inode, i_nlink) == 0)
		facts->flags |= FILE_UNLINKED;
	if (magic == OVERLAYFS_SUPER_MAGIC && inode_is_upper(inode))
		facts->flags |= FILE_UPPER_LAYER;
	if ((magic == TMPFS_MAGIC || magic == HUGETLBFS_MAGIC) && mount_is_internal(mnt))
		facts->flags |= FILE_MEMFD;
}

/* Fills facts, which are zero, and puts the path to a place with room for PATH_MAX. Returns its length. */
static __always_inline __u64 dentry_fill(struct area *a, int number, struct file_facts *facts,
					 struct dentry *dentry, struct vfsmount *mnt, void *to)
{
	struct inode *inode = BPF_CORE_READ(dentry, d_inode);
	bool whole;

	if (inode)
		inode_fill(facts, inode, mnt);
	facts->path_len = path_put(a, number, to, dentry, mnt, &whole);
	if (!whole)
		facts->flags |= FILE_PATH_TRUNCATED;
	return facts->path_len;
}

static __always_inline __u64 file_fill(struct area *a, int number, struct file_facts *facts,
				       struct file *file, void *to)
{
	struct path path;

	BPF_CORE_READ_INTO(&path, file, f_path);
	return dentry_fill(a, number, facts, path.dentry, path.mnt, to);
}

/* The file behind a descriptor of the task, or NULL. */
static __always_inline struct file *file_of(struct task_struct *task, __u32 fd)
{
	struct fdtable *table = LOAD(task, files, fdt);
	struct file **files = LOAD(table, fd), *file = 0;

	if (fd >= LOAD(table, max_fds))
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file), &files[fd]);
	return file;
}

/* A guard, if it is not 0, has denied the open, or killed who did it. */
static __always_inline void emit_file_open(struct task_struct *task, struct file *file, __u32 guard,
					   bool killed)
{
	__u64 cgroup = cgroup_id(task), end = sizeof(struct file_open_record);
	struct file_open_record *r;
	struct area *a;
	int number;

	if (!file || !admit(cgroup, RECORD_FILE_OPEN))
		return;
	number = area_claim();
	a = area_of(number);
	if (!a) {
		count_short(cgroup, RECORD_FILE_OPEN, true);
		return;
	}
	r = (void *)a->record;
	header_fill(&r->header, task, RECORD_FILE_OPEN);
	if (guard && killed)
		header_kill(&r->header, guard);
	else if (guard)
		header_deny(&r->header, guard);
	__builtin_memset(&r->file, 0, sizeof(*r) - sizeof(r->header));
	r->open_flags = BPF_CORE_READ(file, f_flags);
	end += file_fill(a, number, &r->file, file, &a->record[end]);
	submit(r, end, RECORD_FILE_OPEN);
	give_back(&a->busy);
}

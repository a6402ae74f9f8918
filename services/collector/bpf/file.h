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
	struct mount *mnt = mount_of((__u64)vfsmnt);

	return (__u64)FOLLOW(mnt, mnt_ns) >= (__u64)-ERRNO_MAX;
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
	struct super_block *sb = FOLLOW(inode, i_sb);
	unsigned long magic = FOLLOW(sb, s_magic);

	facts->inode = FOLLOW(inode, i_ino);
	facts->device = FOLLOW(sb, s_dev);
	facts->mode = FOLLOW(inode, i_mode);
	if (FOLLOW(inode, i_nlink) == 0)
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
	struct inode *inode = FOLLOW(dentry, d_inode);
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
	return dentry_fill(a, number, facts, FOLLOW(file, f_path.dentry), FOLLOW(file, f_path.mnt), to);
}

/* The file behind a descriptor of the task, or NULL. */
static __always_inline struct file *file_of(struct task_struct *task, __u32 fd)
{
	struct fdtable *table = LOAD(task, files, fdt);
	struct file **files = LOAD(table, fd), *file = 0;

	if (fd >= LOAD(table, max_fds))
		return 0;
#ifndef LEGACY
	if (has_cast)
		return (struct file *)word_at(&files[fd]);
#endif
	bpf_probe_read_kernel(&file, sizeof(file), &files[fd]);
	return file;
}

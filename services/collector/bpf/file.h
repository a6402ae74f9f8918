/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Facts about an open file and its inode. */
#pragma once

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

/* Fills facts and puts the path at offset to of the record. */
static __always_inline void file_fill(struct scratch *s, struct file_facts *facts, struct file *file,
				      __u64 to)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	struct super_block *sb = BPF_CORE_READ(inode, i_sb);
	unsigned long magic = BPF_CORE_READ(sb, s_magic);
	struct path path;
	__u32 flags = 0;
	bool whole;

	BPF_CORE_READ_INTO(&path, file, f_path);
	facts->inode = BPF_CORE_READ(inode, i_ino);
	facts->device = BPF_CORE_READ(sb, s_dev);
	facts->mode = BPF_CORE_READ(inode, i_mode);
	if (BPF_CORE_READ(inode, i_nlink) == 0)
		flags |= FILE_UNLINKED;
	if (magic == OVERLAYFS_SUPER_MAGIC && inode_is_upper(inode))
		flags |= FILE_UPPER_LAYER;
	if ((magic == TMPFS_MAGIC || magic == HUGETLBFS_MAGIC) && mount_is_internal(path.mnt))
		flags |= FILE_MEMFD;
	facts->path_len = path_put(s, to, &path, &whole);
	if (!whole)
		flags |= FILE_PATH_TRUNCATED;
	facts->flags = flags;
}

/* The file behind a descriptor of the task, or NULL. */
static __always_inline struct file *file_of(struct task_struct *task, __u32 fd)
{
	struct fdtable *table = task->files->fdt;
	struct file *file = 0;

	if (fd >= table->max_fds)
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file), &table->fd[fd]);
	return file;
}

static __always_inline void emit_file_open(struct task_struct *task, __u32 fd)
{
	struct file *file = file_of(task, fd);
	struct file_open_record *r;
	struct scratch *s;

	if (!file)
		return;
	s = scratch_get(RECORD_FILE_OPEN);
	if (!s)
		return;
	r = (void *)s->record;
	header_fill(&r->header, task, RECORD_FILE_OPEN);
	file_fill(s, &r->file, file, sizeof(*r));
	r->open_flags = BPF_CORE_READ(file, f_flags);
	r->pad = 0;
	submit(s, sizeof(*r) + r->file.path_len, RECORD_FILE_OPEN);
}

/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What an exec was asked for, and what privilege its file gave: what struct linux_binprm holds at the exec's end. */
#pragma once

#include "area.h"
#include "event.h"
#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/*
 * What linux_binprm.per_clear has if bprm_fill_uid() took an id from the file, or cap_bprm_creds_from_file() capabilities that
 * the process did not have (personality.h: PER_CLEAR_ON_SETID).
 */
#define PER_CLEAR_ON_SETID 0x0740000

/* linux_binprm.unsafe: what the file gives is taken back. */
#define LSM_UNSAFE_NO_NEW_PRIVS 4

static __always_inline bool secure_exec(struct linux_binprm *bprm)
{
#ifdef LEGACY
	return BPF_CORE_READ_BITFIELD_PROBED(bprm, secureexec);
#else
	return BPF_CORE_READ_BITFIELD(bprm, secureexec);
#endif
}

/* Whether the process may get capabilities that it would not keep without its file's. */
static __always_inline bool capable_by_file(struct task_struct *task)
{
	const struct cred *cred = LOAD(task, cred);
	__u64 permitted, ambient;

	COPY_WORD(&permitted, cred, cap_permitted);
	COPY_WORD(&ambient, cred, cap_ambient);
	return permitted & ~ambient;
}

/*
 * Says in the flags of a record, which is otherwise filled, what the file gave. A set-id bit leaves an effective id other than the
 * real one, which no exec changes; where the kernel took it back (a tracer, no_new_privs) both are the same. Of capabilities
 * nothing else tells: root is given all of them without a file's, and who changes its ids may become root.
 */
static __always_inline void exec_gains(struct exec_record *r, struct task_struct *task,
				       struct linux_binprm *bprm)
{
	bool secure = secure_exec(bprm), other_user, other_group;
	__u32 mode = r->exe.mode;

	if (secure)
		r->flags |= EXEC_SECURE;
	if (!(LOAD(bprm, per_clear) & PER_CLEAR_ON_SETID) || LOAD(bprm, unsafe) & LSM_UNSAFE_NO_NEW_PRIVS)
		return;
	other_user = r->header.effective_uid != r->header.uid;
	other_group = r->header.effective_gid != r->header.gid;
	if (other_user && mode & S_ISUID)
		r->flags |= EXEC_SETUID;
	if (other_group && (mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
		r->flags |= EXEC_SETGID;
	if (!other_user && !other_group && secure && r->header.uid != 0 && capable_by_file(task))
		r->flags |= EXEC_CAPABILITIES;
}

/* From Linux 6.13 on this bit of the nanoseconds says that somebody asked for them. */
#define CTIME_QUERIED (1u << 31)

#define NS_PER_SECOND 1000000000ll

static __always_inline __s64 inode_ctime(struct inode *inode)
{
	if (bpf_core_field_exists(inode->i_ctime_sec))
		return FOLLOW(inode, i_ctime_sec) * NS_PER_SECOND + (FOLLOW(inode, i_ctime_nsec) & ~CTIME_QUERIED);
	if (bpf_core_field_exists(inode->__i_ctime))
		return FOLLOW(inode, __i_ctime.tv_sec) * NS_PER_SECOND + FOLLOW(inode, __i_ctime.tv_nsec);
	return FOLLOW(inode, i_ctime.tv_sec) * NS_PER_SECOND + FOLLOW(inode, i_ctime.tv_nsec);
}

static __always_inline __s64 inode_mtime(struct inode *inode)
{
	if (bpf_core_field_exists(inode->i_mtime_sec))
		return FOLLOW(inode, i_mtime_sec) * NS_PER_SECOND + FOLLOW(inode, i_mtime_nsec);
	if (bpf_core_field_exists(inode->__i_mtime))
		return FOLLOW(inode, __i_mtime.tv_sec) * NS_PER_SECOND + FOLLOW(inode, __i_mtime.tv_nsec);
	return FOLLOW(inode, i_mtime.tv_sec) * NS_PER_SECOND + FOLLOW(inode, i_mtime.tv_nsec);
}

/* Puts the times of the program's file behind a record of end bytes, if it has one. Returns where it then ends. */
static __always_inline __u64 times_put(struct area *a, __u64 end, struct task_struct *task)
{
	struct file *exe = LOAD(task, mm, exe_file);
	struct inode *inode = FOLLOW(exe, f_inode);
	struct file_times times;

	if (!inode)
		return end;
	times.ctime_ns = inode_ctime(inode);
	times.mtime_ns = inode_mtime(inode);
	((struct exec_record *)a->record)->flags |= EXEC_TIMES;
	bound(end, AREA_RECORD_MAX - sizeof(times));
	bpf_probe_read_kernel(&a->record[end], sizeof(times), &times);
	return end + sizeof(times);
}

/* Copies a name of the kernel's with its NUL to a place with room for PATH_MAX; returns its length, which is 1 at least. */
static __always_inline __u64 name_put(__u8 *to, const char *name)
{
	long len = bpf_probe_read_kernel_str(to, PATH_MAX, name);

	if (len > 0)
		return len;
	*to = 0;
	return 1;
}

/*
 * Puts the names of a script and of its interpreter behind a record of end bytes. Returns where it then ends. The kernel keeps
 * one name for both if what was asked for is what runs.
 */
static __always_inline __u64 script_put(struct area *a, __u64 end, struct linux_binprm *bprm)
{
	const char *script = LOAD(bprm, filename), *interpreter = LOAD(bprm, interp);

	if (script == interpreter)
		return end;
	((struct exec_record *)a->record)->flags |= EXEC_SCRIPT;
	bound(end, sizeof(struct exec_record) + 2 * PATH_MAX + ARGV_MAX);
	end += name_put(&a->record[end], script);
	bound(end, sizeof(struct exec_record) + 3 * PATH_MAX + ARGV_MAX);
	return end + name_put(&a->record[end], interpreter);
}

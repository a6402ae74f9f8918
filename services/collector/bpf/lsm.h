/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Programs of the tiers lsm and modify-return, on the kernel's own decisions (security/security.c): whatever call or
 * io_uring operation leads there and before it happens, so results are not known yet. Written as lsm/HOOK; for
 * modify-return user space attaches the same programs to the functions that ask the hooks, security_HOOK for most of them.
 */
#pragma once

#include "change.h"
#include "file.h"
#include "guard.h"
#include "memory.h"
#include "open.h"

/* file.f_flags: an exec opens it. file.f_mode: overlayfs opens its own file below it. */
#define FMODE_EXEC	0x20
#define FMODE_NOACCOUNT 0x20000000

/* Set by user space: the programs are on the functions that ask the hooks. */
const volatile __u8 modify_return = 0;

/* Whether a tier's programs are called at all. */
__u32 trial_fired;

SEC("lsm/file_open")
int on_trial(void *ctx)
{
	trial_fired = 1;
	return 0;
}

/*
 * An argument as a number. Read as memory, because the verifier knows the type of what it loads from the context, and
 * hands a global function nothing typed as a number.
 */
static __always_inline void *untyped(__u64 *ctx, int n)
{
	void *value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), &ctx[n]);
	return value;
}

static __always_inline int verdict(__u32 guard)
{
	return guard ? -EPERM : 0;
}

SEC("lsm/file_open")
int on_file_open(__u64 *ctx)
{
	struct file *file = (struct file *)ctx[0];
	struct opening o = { .task = current_task(), .file = file };

	if (LOAD(file, f_flags) & FMODE_EXEC || LOAD(file, f_mode) & FMODE_NOACCOUNT)
		return 0;
	if (opens_to_write(file))
		o.guard = guard_of_file(GUARD_WRITE, file);
	if (o.guard || wanted(RECORD_FILE_OPEN))
		emit_file_open(&o);
	return verdict(o.guard);
}

/* The program, or the interpreter, that an exec is about to run. */
SEC("lsm/bprm_check_security")
int on_bprm_check(__u64 *ctx)
{
	struct linux_binprm *bprm = (struct linux_binprm *)ctx[0];
	struct file *file = BPF_CORE_READ(bprm, file);
	__u32 guard = guard_of_executable(file);
	struct change c;

	sign_set(SIGN_EXEC_CHECKED);
	if (guard && change_begin(&c, current_task(), RECORD_EXEC_FAILED)) {
		header_deny(&c.record->header, guard);
		change_file(&c, &c.record->file, file);
		change_end(&c, RECORD_EXEC_FAILED);
	}
	return verdict(guard);
}

/* Whether there is a record to make of a change, which a guard may have denied. */
static __always_inline bool decided_begin(struct change *c, __u32 kind, __u32 guard)
{
	if (!guard && !wanted(kind))
		return false;
	if (!change_begin(c, current_task(), kind))
		return false;
	if (guard)
		header_deny(&c->record->header, guard);
	return true;
}

/* A name in a directory: what path_* hooks are given, as arguments number dir and dentry. */
static __always_inline __u32 guard_of_name(__u64 *ctx, int dir, int dentry)
{
	struct path *path = (void *)ctx[dir];

	return guard_of_path(GUARD_WRITE, (__u64)untyped(ctx, dentry), (__u64)BPF_CORE_READ(path, mnt));
}

static __always_inline bool name_begin(struct change *c, __u64 *ctx, int dir, int dentry, __u32 kind,
				       __u32 guard)
{
	struct path *path = (void *)ctx[dir];

	if (!decided_begin(c, kind, guard))
		return false;
	change_dentry(c, &c->record->file, untyped(ctx, dentry), BPF_CORE_READ(path, mnt));
	return true;
}

/* An existing file: what the attribute hooks are given. */
static __always_inline __u32 guard_of_existing(__u64 at)
{
	struct path *path = (void *)at;

	return guard_of_path(GUARD_WRITE, (__u64)BPF_CORE_READ(path, dentry),
			     (__u64)BPF_CORE_READ(path, mnt));
}

static __always_inline bool path_begin(struct change *c, __u64 path, __u32 kind, __u32 guard)
{
	if (!decided_begin(c, kind, guard))
		return false;
	change_path(c, &c->record->file, (void *)path);
	return true;
}

SEC("lsm/path_rename")
int on_path_rename(__u64 *ctx)
{
	struct path *to = (struct path *)ctx[2];
	__u32 guard = guard_of_name(ctx, 0, 1);
	struct change c;

	if (!guard)
		guard = guard_of_name(ctx, 2, 3);
	if (!name_begin(&c, ctx, 0, 1, RECORD_RENAME, guard))
		return verdict(guard);
	change_dentry(&c, &c.record->target, untyped(ctx, 3), BPF_CORE_READ(to, mnt));
	change_end(&c, RECORD_RENAME);
	return verdict(guard);
}

SEC("lsm/path_unlink")
int on_path_unlink(__u64 *ctx)
{
	__u32 guard = guard_of_name(ctx, 0, 1);
	struct change c;

	if (name_begin(&c, ctx, 0, 1, RECORD_UNLINK, guard))
		change_end(&c, RECORD_UNLINK);
	return verdict(guard);
}

SEC("lsm/path_rmdir")
int on_path_rmdir(__u64 *ctx)
{
	__u32 guard = guard_of_name(ctx, 0, 1);
	struct change c;

	if (name_begin(&c, ctx, 0, 1, RECORD_RMDIR, guard))
		change_end(&c, RECORD_RMDIR);
	return verdict(guard);
}

/* (old dentry, new directory, new dentry); both lie on the same mount, or the kernel has refused. */
SEC("lsm/path_link")
int on_path_link(__u64 *ctx)
{
	struct path *dir = (struct path *)ctx[1];
	__u32 guard = guard_of_name(ctx, 1, 0); /* a second name would be a way round the guard */
	struct change c;

	if (!guard)
		guard = guard_of_name(ctx, 1, 2);
	if (!name_begin(&c, ctx, 1, 0, RECORD_LINK, guard))
		return verdict(guard);
	change_dentry(&c, &c.record->target, untyped(ctx, 2), BPF_CORE_READ(dir, mnt));
	change_end(&c, RECORD_LINK);
	return verdict(guard);
}

SEC("lsm/path_symlink")
int on_path_symlink(__u64 *ctx)
{
	__u32 guard = guard_of_name(ctx, 0, 1);
	struct change c;

	if (!name_begin(&c, ctx, 0, 1, RECORD_SYMLINK, guard))
		return verdict(guard);
	change_kernel_text(&c, &c.record->text_len, PATH_MAX, (void *)ctx[2]);
	change_end(&c, RECORD_SYMLINK);
	return verdict(guard);
}

SEC("lsm/path_mkdir")
int on_path_mkdir(__u64 *ctx)
{
	__u32 guard = guard_of_name(ctx, 0, 1);
	struct change c;

	if (!name_begin(&c, ctx, 0, 1, RECORD_MKDIR, guard))
		return verdict(guard);
	c.record->mode = ctx[2];
	change_end(&c, RECORD_MKDIR);
	return verdict(guard);
}

/* An open that creates passes here too, with a regular file's mode: that is the open's to tell. */
SEC("lsm/path_mknod")
int on_path_mknod(__u64 *ctx)
{
	__u32 mode = ctx[2], guard = guard_of_name(ctx, 0, 1);
	struct change c;

	if (!guard && ((mode & S_IFMT) == S_IFREG || (mode & S_IFMT) == 0))
		return 0;
	if (!name_begin(&c, ctx, 0, 1, RECORD_MKNOD, guard))
		return verdict(guard);
	c.record->mode = mode;
	change_end(&c, RECORD_MKNOD);
	return verdict(guard);
}

SEC("lsm/path_chmod")
int on_path_chmod(__u64 *ctx)
{
	__u32 guard = guard_of_existing(ctx[0]);
	struct change c;

	if (!path_begin(&c, ctx[0], RECORD_CHMOD, guard))
		return verdict(guard);
	c.record->mode = ctx[1];
	change_end(&c, RECORD_CHMOD);
	return verdict(guard);
}

SEC("lsm/path_chown")
int on_path_chown(__u64 *ctx)
{
	__u32 guard = guard_of_existing(ctx[0]);
	struct change c;

	if (!path_begin(&c, ctx[0], RECORD_CHOWN, guard))
		return verdict(guard);
	c.record->uid = ctx[1];
	c.record->gid = ctx[2];
	change_end(&c, RECORD_CHOWN);
	return verdict(guard);
}

/* The new size is not among what the hook is given. */
SEC("lsm/path_truncate")
int on_path_truncate(__u64 *ctx)
{
	__u32 guard = guard_of_existing(ctx[0]);
	struct change c;

	if (path_begin(&c, ctx[0], RECORD_TRUNCATE, guard))
		change_end(&c, RECORD_TRUNCATE);
	return verdict(guard);
}

/* Linux 6.2 and later: ftruncate, and opens with O_TRUNC. */
SEC("lsm/file_truncate")
int on_file_truncate(__u64 *ctx)
{
	struct file *file = (struct file *)ctx[0];
	__u32 guard = guard_of_file(GUARD_WRITE, file);
	struct change c;

	if (!decided_begin(&c, RECORD_TRUNCATE, guard))
		return verdict(guard);
	change_file(&c, &c.record->file, file);
	change_end(&c, RECORD_TRUNCATE);
	return verdict(guard);
}

/* (device, mount point, type, flags, data) */
SEC("lsm/sb_mount")
int on_sb_mount(__u64 *ctx)
{
	struct change c;

	if (!path_begin(&c, ctx[1], RECORD_MOUNT, 0))
		return 0;
	change_kernel_text(&c, &c.record->text_len, PATH_MAX, (void *)ctx[0]);
	change_kernel_text(&c, &c.record->fs_len, NAME_MAX + 1, (void *)ctx[2]);
	c.record->change_flags = ctx[3];
	change_end(&c, RECORD_MOUNT);
	return 0;
}

/* A mount of the fsopen family gets its place here. */
SEC("lsm/move_mount")
int on_move_mount(__u64 *ctx)
{
	struct change c;

	if (path_begin(&c, ctx[1], RECORD_MOUNT, 0))
		change_end(&c, RECORD_MOUNT);
	return 0;
}

SEC("lsm/sb_umount")
int on_sb_umount(__u64 *ctx)
{
	struct vfsmount *mnt = (struct vfsmount *)ctx[0];
	struct change c;

	if (!wanted(RECORD_UMOUNT) || !change_begin(&c, current_task(), RECORD_UMOUNT))
		return 0;
	change_dentry(&c, &c.record->file, BPF_CORE_READ(mnt, mnt_root), untyped(ctx, 0));
	c.record->change_flags = (__u32)ctx[1];
	change_end(&c, RECORD_UMOUNT);
	return 0;
}

/* (where the old root goes, new root) */
SEC("lsm/sb_pivotroot")
int on_sb_pivotroot(__u64 *ctx)
{
	struct change c;

	if (!path_begin(&c, ctx[1], RECORD_PIVOT_ROOT, 0))
		return 0;
	change_path(&c, &c.record->target, (void *)ctx[0]);
	change_end(&c, RECORD_PIVOT_ROOT);
	return 0;
}

SEC("lsm/path_chroot")
int on_path_chroot(__u64 *ctx)
{
	struct change c;

	if (path_begin(&c, ctx[0], RECORD_CHROOT, 0))
		change_end(&c, RECORD_CHROOT);
	return 0;
}

/* (file or NULL, asked protection, protection, flags); the function that asks the hook works out the third by itself. */
SEC("lsm/mmap_file")
int on_mmap_file(__u64 *ctx)
{
	__u64 asked = ctx[1], given = modify_return ? asked : ctx[2]; /* not: ctx[modify_return ? 1 : 2] */
	struct memory_facts facts = {
		.file = (struct file *)ctx[0],
		.flags = given,
		.writable = given & PROT_WRITE,
	};

	if (facts.flags & PROT_EXEC && wanted(RECORD_MMAP_EXEC))
		emit_memory(current_task(), RECORD_MMAP_EXEC, &facts);
	return 0;
}

/* (area of memory, asked protection, protection) */
SEC("lsm/file_mprotect")
int on_file_mprotect(__u64 *ctx)
{
	struct vm_area_struct *vma = (struct vm_area_struct *)ctx[0];
	__u64 before = BPF_CORE_READ(vma, vm_flags);
	struct memory_facts facts = {
		.file = BPF_CORE_READ(vma, vm_file),
		.flags = ctx[2],
		.writable = ctx[2] & PROT_WRITE || before & VM_WRITE,
	};

	if (facts.flags & PROT_EXEC && !(before & VM_EXEC) && wanted(RECORD_MPROTECT_EXEC))
		emit_memory(current_task(), RECORD_MPROTECT_EXEC, &facts);
	return 0;
}

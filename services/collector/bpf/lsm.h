/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Programs of the tiers lsm and modify-return, on the kernel's own decisions (security/security.c): whatever call or
 * io_uring operation leads there and before it happens, so results are not known yet. Written as lsm/HOOK; for
 * modify-return user space attaches the same programs to security_HOOK.
 */
#pragma once

#include "change.h"
#include "file.h"
#include "memory.h"
#include "open.h"
#include "privilege.h"
#include "socket.h"

/* file.f_flags: an exec opens it. file.f_mode: overlayfs opens its own file below it. */
#define FMODE_EXEC	0x20
#define FMODE_NOACCOUNT 0x20000000

/* Whether a tier's programs are called at all. */
__u32 trial_fired;

SEC("lsm/file_open")
int on_trial(void *ctx)
{
	trial_fired = 1;
	return 0;
}

SEC("lsm/file_open")
int on_file_open(__u64 *ctx)
{
	struct file *file = (struct file *)ctx[0];

	if (!wanted(RECORD_FILE_OPEN) || LOAD(file, f_flags) & FMODE_EXEC ||
	    LOAD(file, f_mode) & FMODE_NOACCOUNT)
		return 0;
	emit_file_open(current_task(), file);
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

/* A name in a directory: what path_* hooks are given, as arguments number dir and dentry. */
static __always_inline bool name_begin(struct change *c, __u64 *ctx, int dir, int dentry, __u32 kind)
{
	struct path *path = (void *)ctx[dir];

	if (!wanted(kind) || !change_begin(c, current_task(), kind))
		return false;
	change_dentry(c, &c->record->file, untyped(ctx, dentry), BPF_CORE_READ(path, mnt));
	return true;
}

/* An existing file: what the attribute hooks are given. */
static __always_inline bool path_begin(struct change *c, __u64 path, __u32 kind)
{
	if (!wanted(kind) || !change_begin(c, current_task(), kind))
		return false;
	change_path(c, &c->record->file, (void *)path);
	return true;
}

SEC("lsm/path_rename")
int on_path_rename(__u64 *ctx)
{
	struct path *to = (struct path *)ctx[2];
	struct change c;

	if (!name_begin(&c, ctx, 0, 1, RECORD_RENAME))
		return 0;
	change_dentry(&c, &c.record->target, untyped(ctx, 3), BPF_CORE_READ(to, mnt));
	change_end(&c, RECORD_RENAME);
	return 0;
}

SEC("lsm/path_unlink")
int on_path_unlink(__u64 *ctx)
{
	struct change c;

	if (name_begin(&c, ctx, 0, 1, RECORD_UNLINK))
		change_end(&c, RECORD_UNLINK);
	return 0;
}

SEC("lsm/path_rmdir")
int on_path_rmdir(__u64 *ctx)
{
	struct change c;

	if (name_begin(&c, ctx, 0, 1, RECORD_RMDIR))
		change_end(&c, RECORD_RMDIR);
	return 0;
}

/* (old dentry, new directory, new dentry); both lie on the same mount, or the kernel has refused. */
SEC("lsm/path_link")
int on_path_link(__u64 *ctx)
{
	struct path *dir = (struct path *)ctx[1];
	struct change c;

	if (!name_begin(&c, ctx, 1, 0, RECORD_LINK))
		return 0;
	change_dentry(&c, &c.record->target, untyped(ctx, 2), BPF_CORE_READ(dir, mnt));
	change_end(&c, RECORD_LINK);
	return 0;
}

SEC("lsm/path_symlink")
int on_path_symlink(__u64 *ctx)
{
	struct change c;

	if (!name_begin(&c, ctx, 0, 1, RECORD_SYMLINK))
		return 0;
	change_kernel_text(&c, &c.record->text_len, PATH_MAX, (void *)ctx[2]);
	change_end(&c, RECORD_SYMLINK);
	return 0;
}

SEC("lsm/path_mkdir")
int on_path_mkdir(__u64 *ctx)
{
	struct change c;

	if (!name_begin(&c, ctx, 0, 1, RECORD_MKDIR))
		return 0;
	c.record->mode = ctx[2];
	change_end(&c, RECORD_MKDIR);
	return 0;
}

/* An open that creates passes here too, with a regular file's mode: that is the open's to tell. */
SEC("lsm/path_mknod")
int on_path_mknod(__u64 *ctx)
{
	__u32 mode = ctx[2];
	struct change c;

	if ((mode & S_IFMT) == S_IFREG || (mode & S_IFMT) == 0)
		return 0;
	if (!name_begin(&c, ctx, 0, 1, RECORD_MKNOD))
		return 0;
	c.record->mode = mode;
	change_end(&c, RECORD_MKNOD);
	return 0;
}

SEC("lsm/path_chmod")
int on_path_chmod(__u64 *ctx)
{
	struct change c;

	if (!path_begin(&c, ctx[0], RECORD_CHMOD))
		return 0;
	c.record->mode = ctx[1];
	change_end(&c, RECORD_CHMOD);
	return 0;
}

SEC("lsm/path_chown")
int on_path_chown(__u64 *ctx)
{
	struct change c;

	if (!path_begin(&c, ctx[0], RECORD_CHOWN))
		return 0;
	c.record->uid = ctx[1];
	c.record->gid = ctx[2];
	change_end(&c, RECORD_CHOWN);
	return 0;
}

/* The new size is not among what the hook is given. */
SEC("lsm/path_truncate")
int on_path_truncate(__u64 *ctx)
{
	struct change c;

	if (path_begin(&c, ctx[0], RECORD_TRUNCATE))
		change_end(&c, RECORD_TRUNCATE);
	return 0;
}

/* Linux 6.2 and later: ftruncate, and opens with O_TRUNC. */
SEC("lsm/file_truncate")
int on_file_truncate(__u64 *ctx)
{
	struct file *file = (struct file *)ctx[0];
	struct change c;

	if (!wanted(RECORD_TRUNCATE) || !change_begin(&c, current_task(), RECORD_TRUNCATE))
		return 0;
	change_file(&c, &c.record->file, file);
	change_end(&c, RECORD_TRUNCATE);
	return 0;
}

/* (device, mount point, type, flags, data) */
SEC("lsm/sb_mount")
int on_sb_mount(__u64 *ctx)
{
	struct change c;

	if (!path_begin(&c, ctx[1], RECORD_MOUNT))
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

	if (path_begin(&c, ctx[1], RECORD_MOUNT))
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

	if (!path_begin(&c, ctx[1], RECORD_PIVOT_ROOT))
		return 0;
	change_path(&c, &c.record->target, (void *)ctx[0]);
	change_end(&c, RECORD_PIVOT_ROOT);
	return 0;
}

SEC("lsm/path_chroot")
int on_path_chroot(__u64 *ctx)
{
	struct change c;

	if (path_begin(&c, ctx[0], RECORD_CHROOT))
		change_end(&c, RECORD_CHROOT);
	return 0;
}

/* (file or NULL, asked protection, protection, flags) */
SEC("lsm/mmap_file")
int on_mmap_file(__u64 *ctx)
{
	struct memory_facts facts = {
		.file = (struct file *)ctx[0],
		.flags = ctx[2],
		.writable = ctx[2] & PROT_WRITE,
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

/* (family, type, protocol, whether the kernel itself wants it) */
SEC("lsm/socket_create")
int on_socket_create(__u64 *ctx)
{
	if (!(__u32)ctx[3] && wanted(RECORD_SOCKET))
		emit_socket_create(current_task(), ctx[0], ctx[1], ctx[2]);
	return 0;
}

SEC("lsm/socket_bind")
int on_socket_bind(__u64 *ctx)
{
	struct given_address given = { .at = ctx[1], .len = ctx[2], .in_kernel = true };
	struct socket *socket = (struct socket *)ctx[0];

	if (wanted(RECORD_BIND))
		emit_socket(current_task(), BPF_CORE_READ(socket, sk), RECORD_BIND, &given);
	return 0;
}

SEC("lsm/socket_listen")
int on_socket_listen(__u64 *ctx)
{
	struct socket *socket = (struct socket *)ctx[0];

	if (wanted(RECORD_LISTEN))
		emit_socket(current_task(), BPF_CORE_READ(socket, sk), RECORD_LISTEN, 0);
	return 0;
}

SEC("lsm/socket_connect")
int on_socket_connect(__u64 *ctx)
{
	struct given_address given = { .at = ctx[1], .len = ctx[2], .in_kernel = true };
	struct socket *socket = (struct socket *)ctx[0];
	struct sock *sk = BPF_CORE_READ(socket, sk);
	__u16 asked = AF_UNSPEC, family = BPF_CORE_READ(sk, __sk_common.skc_family);
	__u32 kind = family == AF_UNIX ? RECORD_CONNECT_UNIX : RECORD_CONNECT;

	bpf_probe_read_kernel(&asked, sizeof(asked), (void *)ctx[1]);
	if (asked == AF_UNSPEC || (family != AF_UNIX && !speaks_ip(family)) || !wanted(kind))
		return 0;
	emit_socket(current_task(), sk, kind, &given);
	return 0;
}

/* (sock, message, size). Under way is what is known of its result, as of a connect's. */
SEC("lsm/socket_sendmsg")
int on_socket_sendmsg(__u64 *ctx)
{
	struct socket *socket = (struct socket *)ctx[0];
	struct msghdr *message = (struct msghdr *)ctx[1];
	struct given_address given = {
		.at = (__u64)BPF_CORE_READ(message, msg_name),
		.len = BPF_CORE_READ(message, msg_namelen),
		.in_kernel = true,
	};

	if (given.at && wanted(RECORD_SEND))
		emit_send(current_task(), BPF_CORE_READ(socket, sk), &given, -EINPROGRESS);
	return 0;
}

/* A connection that was accepted gets its socket: the peer is known by now. */
SEC("lsm/sock_graft")
int on_sock_graft(__u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];

	if (wanted(RECORD_ACCEPT) && speaks_ip(BPF_CORE_READ(sk, __sk_common.skc_family)))
		emit_socket(current_task(), sk, RECORD_ACCEPT, 0);
	return 0;
}

/* (new credentials, old ones, flags): the setuid family, but not a setuid program. */
SEC("lsm/task_fix_setuid")
int on_task_fix_setuid(__u64 *ctx)
{
	struct privilege_record r = {};

	if (!wanted(RECORD_SETUID) || !privilege_begin(&r, current_task(), RECORD_SETUID))
		return 0;
	user_ids_fill(&r, (struct cred *)ctx[0]);
	privilege_submit(&r);
	return 0;
}

SEC("lsm/task_fix_setgid")
int on_task_fix_setgid(__u64 *ctx)
{
	struct privilege_record r = {};

	if (!wanted(RECORD_SETGID) || !privilege_begin(&r, current_task(), RECORD_SETGID))
		return 0;
	group_ids_fill(&r, (struct cred *)ctx[0]);
	privilege_submit(&r);
	return 0;
}

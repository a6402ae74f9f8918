/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What a system call that has returned means. Handlers look at the kernel's objects where the call leaves one behind
 * (a descriptor, a socket, credentials), else at the caller's memory, and say so.
 */
#pragma once

#include "change.h"
#include "event.h"
#include "file.h"
#include "kernel.h"
#include "memory.h"
#include "privilege.h"
#include "socket.h"
#include "syscall.h"
#include "task.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* What a change is of. Addresses are in the caller's memory; 0 is none. */
struct change_args {
	__u64 path; /* or none: the file is behind fd */
	__u64 target;
	__u64 text;
	__u64 file_system;
	__u64 size;
	__u64 flags;
	int fd; /* what a relative path starts at, too */
	int target_fd;
	__u32 mode;
	__u32 uid;
	__u32 gid;
	__u32 kind;
};

static __always_inline void call_result(struct record_header *h, struct call_context *c)
{
	header_result(h, c->result);
	h->flags |= c->flags;
}

/* Failures are told of what is rare and grave; of what floods only what happened. */
static __always_inline bool tells(struct call_context *c, __u32 kind)
{
	return wanted(kind) && (c->result >= 0 || !(BULK_KINDS & BIT(kind)));
}

static __attribute__((noinline)) int change_call(struct call_context *c, struct change_args *args)
{
	struct change_record *r;
	struct change change;
	struct file *file;

	if (!tells(c, args->kind) || !change_begin(&change, c->task, args->kind))
		return 0;
	r = change.record;
	call_result(&r->header, c);
	r->size = args->size;
	r->change_flags = args->flags;
	r->mode = args->mode;
	r->uid = args->uid;
	r->gid = args->gid;
	if (args->path)
		change_argument(&change, &r->file, c->task, args->fd, args->path);
	else if ((file = file_of(c->task, args->fd)))
		change_file(&change, &r->file, file);
	if (args->target)
		change_argument(&change, &r->target, c->task, args->target_fd, args->target);
	if (args->text)
		change_user_text(&change, &r->text_len, PATH_MAX, args->text);
	if (args->file_system)
		change_user_text(&change, &r->fs_len, NAME_MAX + 1, args->file_system);
	change_end(&change, args->kind);
	return 0;
}

/* Calls that move or remove names. */
static __always_inline bool name_args(struct call_context *c, enum call call, struct change_args *a)
{
	bool at = call == CALL_RENAME_AT || call == CALL_LINK_AT || call == CALL_UNLINK_AT;

	switch (call) {
	case CALL_RENAME:
	case CALL_RENAME_AT:
		a->kind = RECORD_RENAME;
		break;
	case CALL_LINK:
	case CALL_LINK_AT:
		a->kind = RECORD_LINK;
		break;
	case CALL_UNLINK:
		a->kind = RECORD_UNLINK;
		break;
	case CALL_UNLINK_AT:
		a->kind = argument(c, 2) & AT_REMOVEDIR ? RECORD_RMDIR : RECORD_UNLINK;
		break;
	case CALL_RMDIR:
		a->kind = RECORD_RMDIR;
		break;
	default:
		return false;
	}
	if (at)
		a->fd = argument_fd(c, 0);
	a->path = argument(c, at ? 1 : 0);
	if (a->kind == RECORD_RENAME || a->kind == RECORD_LINK) {
		if (at)
			a->target_fd = argument_fd(c, 2);
		a->target = argument(c, at ? 3 : 1);
	}
	return true;
}

/* Calls that make names. */
static __always_inline bool make_args(struct call_context *c, enum call call, struct change_args *a)
{
	bool at = call == CALL_MKDIR_AT || call == CALL_MKNOD_AT;

	switch (call) {
	case CALL_SYMLINK:
		a->text = argument(c, 0);
		a->path = argument(c, 1);
		a->kind = RECORD_SYMLINK;
		return true;
	case CALL_SYMLINK_AT:
		a->text = argument(c, 0);
		a->fd = argument_fd(c, 1);
		a->path = argument(c, 2);
		a->kind = RECORD_SYMLINK;
		return true;
	case CALL_MKDIR:
	case CALL_MKDIR_AT:
		a->kind = RECORD_MKDIR;
		break;
	case CALL_MKNOD:
	case CALL_MKNOD_AT:
		a->kind = RECORD_MKNOD;
		break;
	default:
		return false;
	}
	if (at)
		a->fd = argument_fd(c, 0);
	a->path = argument(c, at ? 1 : 0);
	a->mode = argument(c, at ? 2 : 1);
	return true;
}

/* Calls that change attributes. */
static __always_inline bool attribute_args(struct call_context *c, enum call call, struct change_args *a)
{
	bool at = call == CALL_CHMOD_AT || call == CALL_CHOWN_AT;
	bool fd = call == CALL_CHMOD_FD || call == CALL_CHOWN_FD || call == CALL_TRUNCATE_FD ||
		  call == CALL_TRUNCATE_64_FD || call == CALL_SETXATTR_FD;

	switch (call) {
	case CALL_CHMOD:
	case CALL_CHMOD_AT:
	case CALL_CHMOD_FD:
		a->kind = RECORD_CHMOD;
		a->mode = argument(c, at ? 2 : 1);
		break;
	case CALL_CHOWN:
	case CALL_CHOWN_AT:
	case CALL_CHOWN_FD:
		a->kind = RECORD_CHOWN;
		a->uid = argument(c, at ? 2 : 1);
		a->gid = argument(c, at ? 3 : 2);
		break;
	case CALL_TRUNCATE:
	case CALL_TRUNCATE_FD:
		a->kind = RECORD_TRUNCATE;
		a->size = argument(c, 1);
		break;
	case CALL_TRUNCATE_64:
	case CALL_TRUNCATE_64_FD:
		a->kind = RECORD_TRUNCATE;
		a->size = argument(c, 1) | argument(c, 2) << 32;
		break;
	case CALL_SETXATTR:
	case CALL_SETXATTR_FD:
		a->kind = RECORD_SETXATTR;
		a->text = argument(c, 1);
		break;
	default:
		return false;
	}
	if (at || fd)
		a->fd = argument_fd(c, 0);
	if (!fd)
		a->path = argument(c, at ? 1 : 0);
	return true;
}

/* Calls that change the tree of mounts, or where a process sees its root. */
static __always_inline bool mount_args(struct call_context *c, enum call call, struct change_args *a)
{
	switch (call) {
	case CALL_MOUNT:
		a->kind = RECORD_MOUNT;
		a->text = argument(c, 0);
		a->path = argument(c, 1);
		a->file_system = argument(c, 2);
		a->flags = argument(c, 3);
		return true;
	case CALL_MOVE_MOUNT:
		a->kind = RECORD_MOUNT;
		a->text = argument(c, 1);
		a->fd = argument_fd(c, 2);
		a->path = argument(c, 3);
		return true;
	case CALL_UMOUNT:
		a->kind = RECORD_UMOUNT;
		a->path = argument(c, 0);
		a->flags = argument(c, 1);
		return true;
	case CALL_PIVOT_ROOT:
		a->kind = RECORD_PIVOT_ROOT;
		a->path = argument(c, 0);
		a->target = argument(c, 1);
		return true;
	case CALL_CHROOT:
		a->kind = RECORD_CHROOT;
		a->path = argument(c, 0);
		return true;
	default:
		return false;
	}
}

static __attribute__((noinline)) int handle_change(struct call_context *c, enum call call)
{
	struct change_args args = { .fd = AT_FDCWD, .target_fd = AT_FDCWD };

	if (name_args(c, call, &args) || make_args(c, call, &args) || attribute_args(c, call, &args) ||
	    mount_args(c, call, &args))
		change_call(c, &args);
	return 0;
}

/* An exec that returned has failed. */
static __attribute__((noinline)) int handle_exec(struct call_context *c, enum call call)
{
	struct change_args args = { .fd = AT_FDCWD, .kind = RECORD_EXEC_FAILED };

	if (c->result >= 0)
		return 0;
	if (call == CALL_EXEC_AT)
		args.fd = argument_fd(c, 0);
	args.path = argument(c, call == CALL_EXEC_AT ? 1 : 0);
	return change_call(c, &args);
}

static __attribute__((noinline)) int handle_memfd(struct call_context *c)
{
	struct memory_facts facts = {};

	if (!tells(c, RECORD_MEMFD) || c->result < 0)
		return 0;
	facts.file = file_of(c->task, c->result);
	facts.flags = argument(c, 1);
	facts.name = argument(c, 0);
	facts.writable = true;
	emit_memory(c->task, RECORD_MEMFD, &facts);
	return 0;
}

static __attribute__((noinline)) int handle_mmap(struct call_context *c, enum call call)
{
	struct memory_facts facts = {};
	__u32 args[5] = {}; /* addr, len, prot, flags, fd */

	if (!wanted(RECORD_MMAP_EXEC) || (c->result < 0 && c->result >= -ERRNO_MAX))
		return 0;
	if (call == CALL_MMAP_OLD) {
		bpf_probe_read_user(args, sizeof(args), (void *)argument(c, 0));
	} else {
		args[2] = argument(c, 2);
		args[3] = argument(c, 3);
		args[4] = argument(c, 4);
	}
	if (!(args[2] & PROT_EXEC))
		return 0;
	if (!(args[3] & MAP_ANONYMOUS))
		facts.file = file_of(c->task, args[4]);
	facts.flags = args[2];
	facts.writable = args[2] & PROT_WRITE;
	emit_memory(c->task, RECORD_MMAP_EXEC, &facts);
	return 0;
}

static __attribute__((noinline)) int handle_mprotect(struct call_context *c)
{
	struct memory_facts facts = {};
	__u32 prot = argument(c, 2);

	if (!(prot & PROT_EXEC) || !tells(c, RECORD_MPROTECT_EXEC))
		return 0;
	facts.flags = prot;
	facts.writable = prot & PROT_WRITE;
	emit_memory(c->task, RECORD_MPROTECT_EXEC, &facts);
	return 0;
}

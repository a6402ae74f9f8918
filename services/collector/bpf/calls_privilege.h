/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What a system call about privileges means once it has returned. The same in every tier. */
#pragma once

#include "calls.h"
#include "privilege.h"

/* ptrace.h: requests that begin to trace, or change the traced process. */
#define PTRACE_TRACEME	 0
#define PTRACE_POKETEXT	 4
#define PTRACE_POKEUSR	 6
#define PTRACE_SETREGS	 13
#define PTRACE_SETFPREGS 15
#define PTRACE_ATTACH	 16
#define PTRACE_SETREGSET 0x4205
#define PTRACE_SEIZE	 0x4206

/* add_key and request_key have no operation of keyctl's. */
#define KEYCTL_NONE 0xffffffff

static __always_inline bool ptrace_tells(__u64 request)
{
	return request == PTRACE_TRACEME ||
	       (request >= PTRACE_POKETEXT && request <= PTRACE_POKEUSR) ||
	       request == PTRACE_SETREGS || request == PTRACE_SETFPREGS || request == PTRACE_ATTACH ||
	       request == PTRACE_SETREGSET || request == PTRACE_SEIZE;
}

/*
 * bpf.h: commands on elements of maps, and what is known of a program or map. They need its descriptor, and getting one is
 * told. The collector itself gives many, and each would make a record that makes another.
 */
#define BPF_MAP_LOOKUP_ELEM	       1
#define BPF_MAP_GET_NEXT_KEY	       4
#define BPF_OBJ_GET_INFO_BY_FD	       15
#define BPF_MAP_LOOKUP_AND_DELETE_ELEM 21
#define BPF_MAP_LOOKUP_BATCH	       24
#define BPF_MAP_DELETE_BATCH	       27

static __always_inline bool bpf_tells(__u64 command)
{
	return !(command >= BPF_MAP_LOOKUP_ELEM && command <= BPF_MAP_GET_NEXT_KEY) &&
	       command != BPF_OBJ_GET_INFO_BY_FD && command != BPF_MAP_LOOKUP_AND_DELETE_ELEM &&
	       !(command >= BPF_MAP_LOOKUP_BATCH && command <= BPF_MAP_DELETE_BATCH);
}

/*
 * A table, and not a switch: of what it reads at a place it does not know the verifier forgets the value, and so it looks once, and
 * not once for each kind, at what is done for all of them.
 */
static const volatile __u8 privilege_kinds[] = {
	[CALL_SETUID] = RECORD_SETUID,
	[CALL_SETGID] = RECORD_SETGID,
	[CALL_SETGROUPS] = RECORD_SETGROUPS,
	[CALL_CAPSET] = RECORD_CAPSET,
	[CALL_PTRACE] = RECORD_PTRACE,
	[CALL_PROCESS_VM_READ] = RECORD_PROCESS_VM_READ,
	[CALL_PROCESS_VM_WRITE] = RECORD_PROCESS_VM_WRITE,
	[CALL_SETNS] = RECORD_SETNS,
	[CALL_UNSHARE] = RECORD_UNSHARE,
	[CALL_BPF] = RECORD_BPF,
	[CALL_KEYCTL] = RECORD_KEYCTL,
	[CALL_ADD_KEY] = RECORD_KEYCTL,
	[CALL_USERFAULTFD] = RECORD_USERFAULTFD,
	[CALL_PERF_EVENT_OPEN] = RECORD_PERF_EVENT_OPEN,
	[CALL_IO_URING_SETUP] = RECORD_IO_URING_SETUP,
};

static __always_inline __u32 privilege_kind(enum call call)
{
	__u64 i = call;

	if (i >= sizeof(privilege_kinds))
		return 0;
	bound(i, sizeof(privilege_kinds) - 1);
	return privilege_kinds[i];
}

/* perf_event_attr: type, size, config. */
static __always_inline void perf_fill(struct privilege_record *r, __u64 attr)
{
	struct {
		__u32 type;
		__u32 size;
		__u64 config;
	} head = {};

	bpf_probe_read_user(&head, sizeof(head), (void *)attr);
	r->args[0] = head.type;
	r->args[1] = head.config;
	r->arg_count = 2;
}

static __always_inline void privilege_fill(struct privilege_record *r, struct call_context *c, enum call call)
{
	struct task_struct *task = c->task;
	const struct cred *cred = LOAD(task, cred);

	r->arg_count = 1;
	r->args[0] = argument(c, 0);
	switch (call) {
	case CALL_SETUID:
		user_ids_fill(r, cred);
		break;
	case CALL_SETGID:
		group_ids_fill(r, cred);
		break;
	case CALL_CAPSET:
		capabilities_fill(r, cred);
		break;
	case CALL_PTRACE:
		if (r->args[0] != PTRACE_TRACEME)
			target_fill(r, argument(c, 1));
		break;
	case CALL_PROCESS_VM_READ:
	case CALL_PROCESS_VM_WRITE:
		target_fill(r, argument(c, 0));
		r->args[0] = c->result > 0 ? c->result : 0;
		break;
	case CALL_SETNS:
		r->args[0] = argument(c, 1);
		break;
	case CALL_ADD_KEY:
		r->args[0] = KEYCTL_NONE;
		break;
	case CALL_PERF_EVENT_OPEN:
		perf_fill(r, argument(c, 0));
		break;
	default:
		break;
	}
}

static __attribute__((noinline)) int handle_privilege(struct call_context *c, enum call call)
{
	struct privilege_record r = {};
	__u32 kind = privilege_kind(call);

	if (!kind || !wanted(kind))
		return 0;
	if (call == CALL_PTRACE && !ptrace_tells(argument(c, 0)))
		return 0;
	if (call == CALL_BPF && !bpf_tells((__u32)argument(c, 0)))
		return 0;
	if (!privilege_begin(&r, c->task, kind))
		return 0;
	call_result(&r.header, c);
	privilege_fill(&r, c, call);
	privilege_submit(&r);
	return 0;
}

static __attribute__((noinline)) int handle_module(struct call_context *c, enum call call)
{
	__u32 kind = call == CALL_DELETE_MODULE ? RECORD_MODULE_UNLOAD : RECORD_MODULE_LOAD;

	if (!wanted(kind))
		return 0;
	if (call == CALL_FINIT_MODULE)
		emit_module(c->task, kind, c->result, argument(c, 2),
			    file_of(c->task, argument(c, 0)), 0);
	else if (call == CALL_DELETE_MODULE)
		emit_module(c->task, kind, c->result, argument(c, 1), 0, argument(c, 0));
	else
		emit_module(c->task, kind, c->result, 0, 0, 0);
	return 0;
}

static __always_inline bool is_module_call(enum call call)
{
	return call == CALL_INIT_MODULE || call == CALL_FINIT_MODULE || call == CALL_DELETE_MODULE;
}

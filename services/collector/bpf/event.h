/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Records as they lie on the ring buffer. User space decodes them by these offsets
 * (internal/record): append fields, never reorder, never reuse. Little endian, no pointers.
 */
#pragma once

#include "kernel.h"

#define PATH_MAX 4096
#define ARGV_MAX 32768

/* Kinds of record; also the classes in which losses are counted. */
enum record_kind {
	RECORD_EXEC = 1,
	RECORD_FORK = 2,
	RECORD_EXIT = 3,
	RECORD_FILE_OPEN = 4,
	RECORD_CONNECT = 5,
	RECORD_ACCEPT = 6,
	RECORD_EXISTING = 7, /* only from the task iterator */
	RECORD_KINDS,
};

/* Who did it and when. First in every record. */
struct record_header {
	__u32 size; /* of the whole record, this header included */
	__u32 kind; /* RECORD_* */
	__u64 boottime_ns;
	__u64 start_boottime_ns;
	__u64 parent_start_boottime_ns;
	__u64 cgroup_id;
	__u64 effective_capabilities;
	__u32 tgid;
	__u32 tid;
	__u32 parent_tgid;
	__u32 uid;
	__u32 gid;
	__u32 effective_uid;
	__u32 effective_gid;
	__u32 login_uid;
	__u32 mnt_ns;
	__u32 pid_ns;
	__u32 net_ns;
	__u32 user_ns;
	char comm[16];
};
_Static_assert(sizeof(struct record_header) == 112, "record_header is wire format");

/* file_facts.flags */
#define FILE_UNLINKED	    (1u << 0)
#define FILE_MEMFD	    (1u << 1)
#define FILE_UPPER_LAYER    (1u << 2)
#define FILE_PATH_TRUNCATED (1u << 3)

struct file_facts {
	__u64 inode;
	__u32 device;
	__u32 mode;
	__u32 flags;
	__u32 path_len; /* bytes of path, which the record holds further on */
};
_Static_assert(sizeof(struct file_facts) == 24, "file_facts is wire format");

/* exec_record.flags */
#define EXEC_ARGV_TRUNCATED  (1u << 0)
#define EXEC_ARGV_UNREADABLE (1u << 1)

/* Followed by path_len bytes of path, cwd_len of working directory, argv_len of NUL-ended arguments. */
struct exec_record {
	struct record_header header;
	struct file_facts exe;
	__u32 tty;
	__u32 session;
	__u32 argv_bytes; /* in the process's memory */
	__u32 argv_len;	  /* in this record */
	__u32 cwd_len;
	__u32 flags;
};
_Static_assert(sizeof(struct exec_record) == 160, "exec_record is wire format");

struct fork_record {
	struct record_header header;
	__u64 child_start_boottime_ns;
	__u64 child_cgroup_id;
	__u32 child_tgid;
	__u32 pad;
};
_Static_assert(sizeof(struct fork_record) == 136, "fork_record is wire format");

struct exit_record {
	struct record_header header;
	__u32 wait_status;
	__u32 pad;
};
_Static_assert(sizeof(struct exit_record) == 120, "exit_record is wire format");

/* Followed by path_len bytes of path. */
struct file_open_record {
	struct record_header header;
	struct file_facts file;
	__u32 open_flags;
	__u32 pad;
};
_Static_assert(sizeof(struct file_open_record) == 144, "file_open_record is wire format");

/* socket_record.flags */
#define SOCKET_REMOTE_ARGUMENT (1u << 0)

/* A connect or an accept. IPv4 addresses take the first 4 bytes. */
struct socket_record {
	struct record_header header;
	__u16 family;
	__u16 protocol;
	__u16 local_port; /* host order, both */
	__u16 remote_port;
	__u8 local[16];
	__u8 remote[16];
	__s32 result;
	__u32 flags;
};
_Static_assert(sizeof(struct socket_record) == 160, "socket_record is wire format");

/*
 * Structs used only through casts are missing from the object's BTF, and so from the generated Go
 * against which the decoder's offsets are tested. Naming them as globals keeps them.
 */
#define BTF_ANCHOR(type) const struct type *const anchor_##type = 0

BTF_ANCHOR(exec_record);
BTF_ANCHOR(fork_record);
BTF_ANCHOR(exit_record);
BTF_ANCHOR(file_open_record);
BTF_ANCHOR(socket_record);
const enum record_kind anchor_record_kind = RECORD_EXEC;

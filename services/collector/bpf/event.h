/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Records as they lie on the rings. User space decodes them by these offsets (internal/record): append
 * fields, never reorder, never reuse. Little endian, no pointers.
 */
#pragma once

#include "kernel.h"

#define PATH_MAX 4096
#define ARGV_MAX 32768
#define NAME_MAX 255
#define DNS_MAX	 1024

/* Prefixes of paths in an interest, and bytes of each. */
#define PREFIXES_MAX	4096
#define PREFIX_MAX	240
#define PREFIX_KEY_HEAD 8

/* Kinds of record; also the classes in which losses are counted and the bits of an interest. Below 64. */
enum record_kind {
	RECORD_EXEC = 1,
	RECORD_FORK = 2,
	RECORD_EXIT = 3,
	RECORD_FILE_OPEN = 4,
	RECORD_CONNECT = 5,
	RECORD_ACCEPT = 6,
	RECORD_EXISTING = 7, /* only from the task iterator */
	RECORD_EXEC_FAILED = 8,
	RECORD_SIGNAL = 9,
	RECORD_RENAME = 10,
	RECORD_UNLINK = 11,
	RECORD_RMDIR = 12,
	RECORD_LINK = 13,
	RECORD_SYMLINK = 14,
	RECORD_MKDIR = 15,
	RECORD_MKNOD = 16,
	RECORD_CHMOD = 17,
	RECORD_CHOWN = 18,
	RECORD_TRUNCATE = 19,
	RECORD_SETXATTR = 20,
	RECORD_MOUNT = 21,
	RECORD_UMOUNT = 22,
	RECORD_PIVOT_ROOT = 23,
	RECORD_CHROOT = 24,
	RECORD_MMAP_EXEC = 25,
	RECORD_MPROTECT_EXEC = 26,
	RECORD_MEMFD = 27,
	RECORD_SOCKET = 28,
	RECORD_BIND = 29,
	RECORD_LISTEN = 30,
	RECORD_SEND = 31,
	RECORD_CONNECT_UNIX = 32,
	RECORD_DNS_QUESTION = 33,
	RECORD_DNS_ANSWER = 34,
	RECORD_SETUID = 35,
	RECORD_SETGID = 36,
	RECORD_SETGROUPS = 37,
	RECORD_CAPSET = 38,
	RECORD_PTRACE = 39,
	RECORD_PROCESS_VM_READ = 40,
	RECORD_PROCESS_VM_WRITE = 41,
	RECORD_SETNS = 42,
	RECORD_UNSHARE = 43,
	RECORD_MODULE_LOAD = 44,
	RECORD_MODULE_UNLOAD = 45,
	RECORD_BPF = 46,
	RECORD_KEYCTL = 47,
	RECORD_USERFAULTFD = 48,
	RECORD_PERF_EVENT_OPEN = 49,
	RECORD_IO_URING_SETUP = 50,
	RECORD_IO_URING = 51,
	RECORD_DUPLICATE = 52,
	RECORD_KINDS,
};

/* record_header.flags */
#define RECORD_RESULT_KNOWN (1u << 0)
#define RECORD_COMPAT_32    (1u << 1)
#define RECORD_X32	    (1u << 2)
#define RECORD_KILLED	    (1u << 3) /* the guard could not deny, so the process was killed */

/* Who did it, when, and what came of it. First in every record. */
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
	__s64 result; /* valid with RECORD_RESULT_KNOWN */
	__u32 flags;
	__u32 guard; /* that denied it, or 0 */
};
_Static_assert(sizeof(struct record_header) == 128, "record_header is wire format");

/* file_facts.flags */
#define FILE_UNLINKED	    (1u << 0)
#define FILE_MEMFD	    (1u << 1)
#define FILE_UPPER_LAYER    (1u << 2)
#define FILE_PATH_TRUNCATED (1u << 3)
#define FILE_PATH_ARGUMENT  (1u << 4) /* the path comes from the caller's memory */

/*
 * The record holds path_len bytes of path further on and then base_len bytes of the directory that a
 * relative path from the caller starts at; the latter comes from the kernel.
 */
struct file_facts {
	__u64 inode;
	__u32 device;
	__u32 mode;
	__u32 flags;
	__u32 path_len;
	__u32 base_len;
	__u32 pad;
};
_Static_assert(sizeof(struct file_facts) == 32, "file_facts is wire format");

/* exec_record.flags */
#define EXEC_ARGV_TRUNCATED  (1u << 0)
#define EXEC_ARGV_UNREADABLE (1u << 1)
#define EXEC_SETUID	     (1u << 2) /* these three: what the file gave took effect */
#define EXEC_SETGID	     (1u << 3)
#define EXEC_CAPABILITIES    (1u << 4)
#define EXEC_SECURE	     (1u << 5)
#define EXEC_SCRIPT	     (1u << 6)
#define EXEC_TIMES	     (1u << 7)

/*
 * Followed by the path, cwd_len bytes of working directory, argv_len of NUL-ended arguments; with EXEC_SCRIPT then by the
 * script's and its interpreter's names, each with its NUL; with EXEC_TIMES then by struct file_times of exe.
 */
struct exec_record {
	struct record_header header;
	struct file_facts exe;
	__u32 tty;
	__u32 session;
	__u32 argv_bytes; /* in the process's memory */
	__u32 argv_len;	  /* in this record */
	__u32 cwd_len;
	__u32 flags;
	__u32 group;
	__u32 inner_pid;   /* these two as the process's own pid namespace numbers them */
	__u32 inner_group; /* 0 if the group's leader is of an outer one */
	__u32 pad;
};
_Static_assert(sizeof(struct exec_record) == 200, "exec_record is wire format");

/* As stat(2) tells them, in nanoseconds since 1970. */
struct file_times {
	__s64 ctime_ns;
	__s64 mtime_ns;
};
_Static_assert(sizeof(struct file_times) == 16, "file_times is wire format");

struct fork_record {
	struct record_header header;
	__u64 child_start_boottime_ns;
	__u64 child_cgroup_id;
	__u32 child_tgid;
	__u32 pad;
};
_Static_assert(sizeof(struct fork_record) == 152, "fork_record is wire format");

struct exit_record {
	struct record_header header;
	__u32 wait_status;
	__u32 pad;
};
_Static_assert(sizeof(struct exit_record) == 136, "exit_record is wire format");

/* file_open_record.given_flags */
#define GIVEN_ARGUMENT	 (1u << 0) /* read from the caller's memory when the call was over */
#define GIVEN_KERNEL	 (1u << 1) /* from the kernel's own copy; neither if nobody asked for it, or there is none */
#define GIVEN_TRUNCATED	 (1u << 2)
#define GIVEN_UNREADABLE (1u << 3)

/* Followed by the path, and given_len bytes of the path as the caller wrote it. */
struct file_open_record {
	struct record_header header;
	struct file_facts file;
	__u32 open_flags;
	__u16 given_len;
	__u16 given_flags;
};
_Static_assert(sizeof(struct file_open_record) == 168, "file_open_record is wire format");

/*
 * A change of names, attributes or mounts, and an exec that failed. Followed by the file's path, the
 * target's, text_len bytes of text, fs_len of the name of a type of file system.
 */
struct change_record {
	struct record_header header;
	struct file_facts file;
	struct file_facts target;
	__u64 size;
	__u64 change_flags;
	__u32 mode;
	__u32 uid;
	__u32 gid;
	__u32 text_len;
	__u32 fs_len;
	__u32 pad;
};
_Static_assert(sizeof(struct change_record) == 232, "change_record is wire format");

/* Followed by the file's path and name_len bytes of name. */
struct memory_record {
	struct record_header header;
	struct file_facts file;
	__u32 memory_flags; /* PROT_* or MFD_* */
	__u32 writable;
	__u32 name_len;
	__u32 pad;
};
_Static_assert(sizeof(struct memory_record) == 176, "memory_record is wire format");

/* socket_record.flags */
#define SOCKET_REMOTE_ARGUMENT (1u << 0)
#define SOCKET_ACCEPTED	       (1u << 1) /* of a duplicate: its connection came in */

/* Any operation on a socket. IPv4 addresses take the first 4 bytes. Followed by unix_len bytes of path. */
struct socket_record {
	struct record_header header;
	__u16 family;
	__u16 protocol;
	__u16 local_port; /* host order, both */
	__u16 remote_port;
	__u8 local[16];
	__u8 remote[16];
	__u32 flags;
	__u16 type;
	__u16 unix_len;
};
_Static_assert(sizeof(struct socket_record) == 176, "socket_record is wire format");

/* duplicate_record.call */
enum duplicate_call {
	DUPLICATE_DUP = 1,
	DUPLICATE_DUP2 = 2,
	DUPLICATE_DUP3 = 3,
	DUPLICATE_FCNTL = 4,
	DUPLICATE_PIDFD_GETFD = 5,
};

/* A descriptor of a socket, in a place that the header's result says. */
struct duplicate_record {
	struct socket_record socket;
	__u32 call; /* DUPLICATE_* */
	__s32 source; /* the descriptor it is a duplicate of; with PIDFD_GETFD another process's */
};
_Static_assert(sizeof(struct duplicate_record) == 184, "duplicate_record is wire format");

/* Followed by message_len bytes of the DNS message. Local is the end in this host's sockets. */
struct dns_record {
	struct record_header header;
	__u16 family;
	__u16 local_port;
	__u16 remote_port;
	__u16 message_len;
	__u8 local[16];
	__u8 remote[16];
	__u32 whole_len; /* of the message on the wire */
	__u32 protocol;	 /* IPPROTO_UDP or IPPROTO_TCP */
};
_Static_assert(sizeof(struct dns_record) == 176, "dns_record is wire format");

struct signal_record {
	struct record_header header;
	__u64 target_start_boottime_ns;
	__u32 target_tgid;
	__u32 number;
};
_Static_assert(sizeof(struct signal_record) == 144, "signal_record is wire format");

#define CALL_ARGS 3

/* A use of privilege. Followed by name_len bytes of name. */
struct privilege_record {
	struct record_header header;
	__u64 args[CALL_ARGS]; /* by kind: see event.proto, PrivilegeOperation */
	__u64 target_start_boottime_ns;
	__u32 target_tgid;
	__u32 arg_count;
	__u32 name_len;
	__u32 pad;
};
_Static_assert(sizeof(struct privilege_record) == 176, "privilege_record is wire format");

/*
 * Structs used only through casts are missing from the object's BTF, and so from the generated Go
 * against which the decoder's offsets are tested. Naming them as globals keeps them.
 */
#define BTF_ANCHOR(type) const struct type *const anchor_##type = 0

BTF_ANCHOR(exec_record);
BTF_ANCHOR(file_times);
BTF_ANCHOR(fork_record);
BTF_ANCHOR(exit_record);
BTF_ANCHOR(file_open_record);
BTF_ANCHOR(change_record);
BTF_ANCHOR(memory_record);
BTF_ANCHOR(socket_record);
BTF_ANCHOR(duplicate_record);
BTF_ANCHOR(dns_record);
BTF_ANCHOR(signal_record);
BTF_ANCHOR(privilege_record);
const enum duplicate_call anchor_duplicate_call = DUPLICATE_DUP;
const enum record_kind anchor_record_kind = RECORD_EXEC;

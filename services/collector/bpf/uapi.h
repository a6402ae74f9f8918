/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Types and values that the kernel promises to everybody (include/uapi). */
#pragma once

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef short __s16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef _Bool bool;

#define true 1
#define false 0

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LRU_PERCPU_HASH = 10,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_RINGBUF = 27,
};

#define BPF_ANY		  0
#define BPF_NOEXIST	  1
#define BPF_F_NO_PREALLOC 1
#define BPF_RB_NO_WAKEUP  1

#define AF_UNSPEC 0
#define AF_UNIX	  1
#define AF_INET	  2
#define AF_INET6  10

#define SOCK_TYPE_MASK 0xf /* without SOCK_CLOEXEC and SOCK_NONBLOCK */

#define AT_FDCWD      (-100)
#define AT_REMOVEDIR  0x200

#define F_DUPFD		 0
#define F_DUPFD_CLOEXEC 1030

#define PROT_WRITE    0x2
#define PROT_EXEC     0x4
#define MAP_ANONYMOUS 0x20
#define VM_WRITE      0x2
#define VM_EXEC	      0x4

#define SIGKILL 9

#define O_ACCMODE 03
#define O_WRONLY  01
#define O_RDWR	  02
#define O_CREAT	  0100
#define O_EXCL	  0200
#define O_NOCTTY  0400
#define O_TRUNC	  01000
#define O_PATH	  010000000 /* asm-generic, as on x86 and arm64 */

#define S_ISUID	 04000
#define S_ISGID	 02000
#define S_IXGRP	 010
#define S_IFMT	 0170000
#define S_IFREG	 0100000
#define S_IFSOCK 0140000

#define EPERM	    1
#define EINTR	    4
#define EINPROGRESS 115

#define OVERLAYFS_SUPER_MAGIC 0x794c7630
#define TMPFS_MAGIC	      0x01021994
#define HUGETLBFS_MAGIC	      0x958458f6

/* UAPI, of which the verifier translates each access. */
struct __sk_buff {
	__u32 len;
	__u32 before_sk[41];
	__u64 sk; /* a struct bpf_sock * */
};

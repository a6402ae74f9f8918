/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The parts of the kernel's types that the collector reads, and no others. Offsets are relocated at
 * load time from the running kernel's BTF, so order and gaps mean nothing here; names and kinds do.
 * Written by hand: a vmlinux.h would be 130 000 lines of which these are used.
 */
#pragma once

#include "uapi.h"

#define ERESTARTSYS	  512 /* what sys_exit shows when a signal ended the call */
#define TS_COMPAT	  0x2 /* x86 thread_info.status: in a 32-bit system call */
#define ARM64_TIF_32BIT	  22  /* bit of arm64's thread_info.flags: runs a 32-bit program */
#define X32_SYSCALL_BIT	  0x40000000
#define SIGNAL_GROUP_EXIT 0x4 /* signal_struct.flags */
#define PIDTYPE_PGID	  2   /* signal_struct.pids, these two */
#define PIDTYPE_SID	  3

#define INITIAL_PID_NAMESPACE 0xeffffffc /* PROC_PID_INIT_INO */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	__u32 val;
} kuid_t;

typedef struct {
	__u32 val;
} kgid_t;

typedef struct {
	__u64 val;
} kernel_cap_t;

typedef struct {
	int counter;
} atomic_t;

struct ns_common {
	unsigned int inum;
};

struct pid_namespace {
	struct ns_common ns;
};

struct mnt_namespace {
	struct ns_common ns;
};

struct net {
	struct ns_common ns;
};

struct user_namespace {
	struct ns_common ns;
};

struct nsproxy {
	struct mnt_namespace *mnt_ns;
	struct net *net_ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct cred {
	kuid_t uid;
	kgid_t gid;
	kuid_t suid;
	kgid_t sgid;
	kuid_t euid;
	kgid_t egid;
	kernel_cap_t cap_inheritable;
	kernel_cap_t cap_permitted;
	kernel_cap_t cap_effective;
	kernel_cap_t cap_ambient;
	struct user_namespace *user_ns;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
};

struct cgroup {
	struct kernfs_node *kn;
	int level;
	struct cgroup *ancestors[1]; /* from Linux 6.1 on */
	__u64 ancestor_ids[1];	     /* before */
};

enum cgroup_subsys_id {
	memory_cgrp_id = 4,
};

struct css_set {
	struct cgroup_subsys_state *subsys[12];
	struct cgroup *dfl_cgrp;
};

struct tty_driver {
	int major;
	int minor_start;
};

struct tty_struct {
	struct tty_driver *driver;
	int index;
};

struct signal_struct {
	atomic_t live;
	int group_exit_code;
	unsigned int flags;
	struct pid *pids[4];
	struct tty_struct *tty;
};

struct qstr {
	union {
		struct {
			__u32 hash;
			__u32 len;
		};
		__u64 hash_len;
	};
	const unsigned char *name;
};

struct super_block {
	__u32 s_dev;
	unsigned long s_magic;
};

struct timespec64 {
	__s64 tv_sec;
	long tv_nsec;
};

struct inode {
	unsigned short i_mode;
	unsigned int i_nlink;
	unsigned long i_ino;
	struct super_block *i_sb;
	struct timespec64 i_ctime, i_mtime;	/* before Linux 6.6, and 6.7 */
	struct timespec64 __i_ctime, __i_mtime; /* before 6.11 */
	__s64 i_ctime_sec, i_mtime_sec;
	__u32 i_ctime_nsec, i_mtime_nsec;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
};

struct vfsmount {
	struct dentry *mnt_root;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	struct mnt_namespace *mnt_ns;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
	unsigned int f_flags;
	unsigned int f_mode;
	void *private_data;
};

struct linux_binprm {
	unsigned int secureexec : 1;
	struct file *file;
	int unsafe;
	unsigned int per_clear;
	const char *filename;
	const char *interp;
};

struct vm_area_struct {
	unsigned long vm_flags;
	struct file *vm_file;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct fs_struct {
	struct path pwd;
};

struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
	struct file *exe_file;
};

struct filename {
	const char *name;
};

struct nameidata {
	struct filename *name;
};

struct thread_info {
	unsigned long flags;
	__u32 status;
};

struct task_struct {
	struct thread_info thread_info;
	void *stack;
	struct mm_struct *mm;
	int pid;
	int tgid;
	int exit_code;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	__u64 start_boottime;
	const struct cred *cred;
	char comm[16];
	struct fs_struct *fs;
	struct files_struct *files;
	struct nsproxy *nsproxy;
	struct nameidata *nameidata;
	struct signal_struct *signal;
	kuid_t loginuid;
	struct css_set *cgroups;
};

struct in6_addr {
	__u8 bytes[16];
};

struct sock_common {
	unsigned short skc_family;
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};

typedef struct {
	int owned;
} socket_lock_t;

struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	__u16 sk_type;
	__u16 sk_protocol;
	__u32 sk_max_ack_backlog;
};

struct socket {
	short type;
	struct sock *sk;
};

struct msghdr {
	void *msg_name;
	int msg_namelen;
};

struct kernel_siginfo {
	int si_signo;
	int si_code;
};

struct io_kiocb {
	__u8 opcode;
};

/* x86-64 and arm64 name their registers differently; only the names of the built target relocate. */
struct pt_regs {
#if defined(__TARGET_ARCH_x86)
	unsigned long bp, bx, r8, r9, r10, cx, dx, si, di, orig_ax;
#elif defined(__TARGET_ARCH_arm64)
	unsigned long long regs[31];
	unsigned long long orig_x0;
	int syscallno;
#endif
};

enum bpf_func_id {
	BPF_FUNC_task_pt_regs = 175,
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#pragma clang attribute pop

/*
 * Follows typed pointers: LOAD(task, cgroups, dfl_cgrp) is task->cgroups->dfl_cgrp. Where the verifier knows the
 * type, that is a plain load, a tenth of the cost of bpf_probe_read_kernel, and a bad pointer reads as zero. Linux before
 * 5.11 does not tell the type of the current task.
 */
#ifdef LEGACY
#define LOAD(...) BPF_CORE_READ(__VA_ARGS__)
#define current_task() ((struct task_struct *)bpf_get_current_task())
#else
#define LOAD(...) ___arrow(__VA_ARGS__)
#define current_task() ((struct task_struct *)bpf_get_current_task_btf())
#endif

/*
 * The same from a pointer whose type the verifier does not know, where the kernel lets us say it (Linux 6.2); user space
 * finds out. What is then read is as untrusted as before, and a bad pointer reads as zero.
 */
#ifdef LEGACY
#define FOLLOW(...) BPF_CORE_READ(__VA_ARGS__)
#else
const volatile __u8 has_cast = 0;
extern void *bpf_rdonly_cast(const void *, __u32) __attribute__((section(".ksyms"), weak));

#define TYPED(p) ((typeof(p))bpf_rdonly_cast(p, bpf_core_type_id_kernel(typeof(*(p)))))
#define FOLLOW(p, ...)                                                                             \
	(has_cast ? ___arrow(TYPED(p), __VA_ARGS__) : BPF_CORE_READ(p, __VA_ARGS__))
#endif

/* Copies 8 bytes of a field of a typed pointer's target, whatever the field's own type. */
#ifdef LEGACY
#define COPY_WORD(to, p, field) bpf_core_read(to, 8, &(p)->field)
#else
#define COPY_WORD(to, p, field) (*(__u64 *)(to) = *(const __u64 *)&(p)->field)
#endif

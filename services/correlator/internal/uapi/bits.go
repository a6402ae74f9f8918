package uapi

// OpenFlags are open(2)'s above the access mode, as amd64 and arm64 agree on them. O_SYNC holds the bit of O_DSYNC.
var OpenFlags = []Bit{
	{0o100, "O_CREAT"}, {0o200, "O_EXCL"}, {0o400, "O_NOCTTY"}, {0o1000, "O_TRUNC"}, {0o2000, "O_APPEND"},
	{0o4000, "O_NONBLOCK"}, {0o10000, "O_DSYNC"}, {0o4000000, "O_SYNC"}, {0o2000000, "O_CLOEXEC"}, {0o10000000, "O_PATH"},
	{0o20000000, "O_TMPFILE"},
}

// Modes are st_mode's, in Falco's order, behind the type of a file.
var Modes = []Bit{
	{1 << 0, "S_IXOTH"}, {1 << 1, "S_IWOTH"}, {1 << 2, "S_IROTH"}, {1 << 3, "S_IXGRP"}, {1 << 4, "S_IWGRP"}, {1 << 5, "S_IRGRP"},
	{1 << 6, "S_IXUSR"}, {1 << 7, "S_IWUSR"}, {1 << 8, "S_IRUSR"}, {1 << 9, "S_ISVTX"}, {1 << 10, "S_ISGID"}, {1 << 11, "S_ISUID"},
}

// FileTypes are st_mode's, by its highest four bits.
var FileTypes = [16]string{
	1: "S_IFIFO", 2: "S_IFCHR", 4: "S_IFDIR", 6: "S_IFBLK", 8: "S_IFREG", 10: "S_IFLNK", 12: "S_IFSOCK",
}

// MountFlags are mount(2)'s.
var MountFlags = []Bit{
	{1 << 0, "MS_RDONLY"}, {1 << 1, "MS_NOSUID"}, {1 << 2, "MS_NODEV"}, {1 << 3, "MS_NOEXEC"}, {1 << 4, "MS_SYNCHRONOUS"},
	{1 << 5, "MS_REMOUNT"}, {1 << 6, "MS_MANDLOCK"}, {1 << 7, "MS_DIRSYNC"}, {1 << 8, "MS_NOSYMFOLLOW"}, {1 << 10, "MS_NOATIME"},
	{1 << 11, "MS_NODIRATIME"}, {1 << 12, "MS_BIND"}, {1 << 13, "MS_MOVE"}, {1 << 14, "MS_REC"}, {1 << 15, "MS_SILENT"},
	{1 << 16, "MS_POSIXACL"}, {1 << 17, "MS_UNBINDABLE"}, {1 << 18, "MS_PRIVATE"}, {1 << 19, "MS_SLAVE"}, {1 << 20, "MS_SHARED"},
	{1 << 21, "MS_RELATIME"}, {1 << 22, "MS_KERNMOUNT"}, {1 << 23, "MS_I_VERSION"}, {1 << 24, "MS_STRICTATIME"},
	{1 << 25, "MS_LAZYTIME"},
}

// UmountFlags are umount2(2)'s.
var UmountFlags = []Bit{{1, "MNT_FORCE"}, {2, "MNT_DETACH"}, {4, "MNT_EXPIRE"}, {8, "UMOUNT_NOFOLLOW"}}

// MemfdFlags are memfd_create(2)'s.
var MemfdFlags = []Bit{{1, "MFD_CLOEXEC"}, {2, "MFD_ALLOW_SEALING"}, {4, "MFD_HUGETLB"}, {8, "MFD_NOEXEC_SEAL"}, {16, "MFD_EXEC"}}

// RenameFlags are renameat2(2)'s.
var RenameFlags = []Bit{{1, "RENAME_NOREPLACE"}, {2, "RENAME_EXCHANGE"}, {4, "RENAME_WHITEOUT"}}

// CloneFlags are unshare(2)'s, and setns(2)'s types of namespace.
var CloneFlags = []Bit{
	{0x80, "CLONE_NEWTIME"}, {0x200, "CLONE_FS"}, {0x400, "CLONE_FILES"}, {0x20000, "CLONE_NEWNS"}, {0x40000, "CLONE_SYSVSEM"},
	{0x2000000, "CLONE_NEWCGROUP"}, {0x4000000, "CLONE_NEWUTS"}, {0x8000000, "CLONE_NEWIPC"}, {0x10000000, "CLONE_NEWUSER"},
	{0x20000000, "CLONE_NEWPID"}, {0x40000000, "CLONE_NEWNET"},
}

// ProtFlags are mmap(2)'s and mprotect(2)'s.
var ProtFlags = []Bit{
	{1, "PROT_READ"}, {2, "PROT_WRITE"}, {4, "PROT_EXEC"}, {8, "PROT_SEM"}, {0x1000000, "PROT_GROWSDOWN"}, {0x2000000, "PROT_GROWSUP"},
}

// ModuleFlags are finit_module(2)'s.
var ModuleFlags = []Bit{{1, "MODULE_INIT_IGNORE_MODVERSIONS"}, {2, "MODULE_INIT_IGNORE_VERMAGIC"}, {4, "MODULE_INIT_COMPRESSED_FILE"}}

// Capabilities are capabilities(7)'s.
var Capabilities = []Bit{
	{1 << 0, "CAP_CHOWN"}, {1 << 1, "CAP_DAC_OVERRIDE"}, {1 << 2, "CAP_DAC_READ_SEARCH"}, {1 << 3, "CAP_FOWNER"}, {1 << 4, "CAP_FSETID"},
	{1 << 5, "CAP_KILL"}, {1 << 6, "CAP_SETGID"}, {1 << 7, "CAP_SETUID"}, {1 << 8, "CAP_SETPCAP"}, {1 << 9, "CAP_LINUX_IMMUTABLE"},
	{1 << 10, "CAP_NET_BIND_SERVICE"}, {1 << 11, "CAP_NET_BROADCAST"}, {1 << 12, "CAP_NET_ADMIN"}, {1 << 13, "CAP_NET_RAW"},
	{1 << 14, "CAP_IPC_LOCK"}, {1 << 15, "CAP_IPC_OWNER"}, {1 << 16, "CAP_SYS_MODULE"}, {1 << 17, "CAP_SYS_RAWIO"},
	{1 << 18, "CAP_SYS_CHROOT"}, {1 << 19, "CAP_SYS_PTRACE"}, {1 << 20, "CAP_SYS_PACCT"}, {1 << 21, "CAP_SYS_ADMIN"},
	{1 << 22, "CAP_SYS_BOOT"}, {1 << 23, "CAP_SYS_NICE"}, {1 << 24, "CAP_SYS_RESOURCE"}, {1 << 25, "CAP_SYS_TIME"},
	{1 << 26, "CAP_SYS_TTY_CONFIG"}, {1 << 27, "CAP_MKNOD"}, {1 << 28, "CAP_LEASE"}, {1 << 29, "CAP_AUDIT_WRITE"},
	{1 << 30, "CAP_AUDIT_CONTROL"}, {1 << 31, "CAP_SETFCAP"}, {1 << 32, "CAP_MAC_OVERRIDE"}, {1 << 33, "CAP_MAC_ADMIN"},
	{1 << 34, "CAP_SYSLOG"}, {1 << 35, "CAP_WAKE_ALARM"}, {1 << 36, "CAP_BLOCK_SUSPEND"}, {1 << 37, "CAP_AUDIT_READ"},
	{1 << 38, "CAP_PERFMON"}, {1 << 39, "CAP_BPF"}, {1 << 40, "CAP_CHECKPOINT_RESTORE"},
}

// socketTypes are socket(2)'s, without SOCK_CLOEXEC and SOCK_NONBLOCK.
var socketTypes = [...]string{
	1: "SOCK_STREAM", 2: "SOCK_DGRAM", 3: "SOCK_RAW", 4: "SOCK_RDM", 5: "SOCK_SEQPACKET", 6: "SOCK_DCCP", 10: "SOCK_PACKET",
}

// perfTypes are perf_event_open(2)'s.
var perfTypes = [...]string{
	0: "PERF_TYPE_HARDWARE", 1: "PERF_TYPE_SOFTWARE", 2: "PERF_TYPE_TRACEPOINT", 3: "PERF_TYPE_HW_CACHE", 4: "PERF_TYPE_RAW",
	5: "PERF_TYPE_BREAKPOINT",
}

// dnsCodes are RFC 1035's and RFC 2136's.
var dnsCodes = [...]string{
	0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 6: "YXDOMAIN", 7: "YXRRSET", 8: "NXRRSET",
	9: "NOTAUTH", 10: "NOTZONE",
}

// dnsTypes are those of the IANA registry that are in use.
var dnsTypes = map[uint32]string{
	1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 10: "NULL", 12: "PTR", 13: "HINFO", 15: "MX", 16: "TXT", 28: "AAAA", 29: "LOC", 33: "SRV",
	35: "NAPTR", 39: "DNAME", 41: "OPT", 43: "DS", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 50: "NSEC3", 52: "TLSA", 64: "SVCB",
	65: "HTTPS", 99: "SPF", 249: "TKEY", 250: "TSIG", 251: "IXFR", 252: "AXFR", 255: "ANY", 256: "URI", 257: "CAA",
}

package kill

import "strings"

// pfKthread is PF_KTHREAD of the kernel's include/linux/sched.h, unchanged since 2.6.
const pfKthread = 0x00200000

// subject is a process somebody asks to kill, and what there is to judge it by.
type subject struct {
	identity
	self      identity
	callerPID uint32
	allowHost bool
}

// onHost says that the process is in the same pid namespace as the enforcer, the host's. From a nested one a process
// cannot get out, and nothing inside changes what the kernel says about it here.
func (s subject) onHost() bool { return s.namespaces <= 1 }

// protection is one line of the never-kill list.
type protection struct {
	reason string
	covers func(subject) bool
}

// neverKill is asked from the top; the first line that covers a process refuses it.
//
// It uses only what uid 0 with KILL and DAC_OVERRIDE can see of any process: /proc/<pid>/{stat,status}. The namespace
// links, the executable and the root of others need CAP_SYS_PTRACE, and a uid says nothing, since a container may run
// under one of ours.
var neverKill = []protection{
	{"pid 1: the node ends with it", func(s subject) bool { return s.pid == 1 }},
	{"kernel thread: it is the kernel", func(s subject) bool { return s.flags&pfKthread != 0 }},
	{"the enforcer itself", func(s subject) bool { return s.pid == s.self.pid }},
	{"the enforcer's parent: it restarts Palisade", func(s subject) bool { return s.pid == s.self.parent }},
	// With parent 1 (systemd) or 0 (own pid namespace) a shared parent says nothing.
	{"child of the enforcer's parent: Palisade's own", func(s subject) bool { return s.self.parent > 1 && s.parent == s.self.parent }},
	{"the caller", func(s subject) bool { return s.callerPID != 0 && uint32(s.pid) == s.callerPID }},
	{"runtime or supervisor of the host: its containers end or are orphaned with it", hostDaemon},
	{"in the host's pid namespace: not in a container, or in one that shares it (kill.allow_host)", func(s subject) bool { return s.onHost() && !s.allowHost }},
}

// hostNames are the commands of hostDaemon, sorted; "x" is also "x-…" and "x:…".
var hostNames = []string{
	"conmon",     // holds a Podman or CRI-O container's terminal and exit code
	"containerd", // with containerd-shim, the parent of its containers
	"crio",
	"dockerd",
	"init",
	"kubelet",
	"palisade",
	"runc", // a container half made
	"systemd",
}

// hostDaemon goes by the name a process gave itself, which anybody can forge. So it counts only on the host, where a
// container's process cannot pass for one, and it only ever spares: allow_host does not override it.
func hostDaemon(s subject) bool {
	if !s.onHost() {
		return false
	}
	for _, name := range hostNames {
		if s.comm == name || strings.HasPrefix(s.comm, name+"-") || strings.HasPrefix(s.comm, name+":") {
			return true
		}
	}
	return false
}

// refusal is the reason not to kill the subject, or "".
func refusal(s subject) string {
	for _, line := range neverKill {
		if line.covers(s) {
			return line.reason
		}
	}
	return ""
}

package workload

import (
	"slices"

	"github.com/palisade-sec/palisade/services/correlator/internal/process"
)

// Apply takes in a runtime's news. It returns true if a cgroup was bound.
func (x *Index) Apply(u Update) bool {
	if u.Complete {
		x.endAllBut(u.Running)
	}
	for _, ref := range u.Gone {
		x.end(ref)
	}
	bound := false
	for _, t := range u.Running {
		bound = x.running(t) || bound
	}
	return bound
}

// endAllBut ends the tasks that a complete list does not name.
func (x *Index) endAllBut(running []Task) {
	named := make(map[Ref]bool, len(running))
	for _, t := range running {
		named[t.Ref] = true
	}
	for ref := range x.tasks {
		if !named[ref] {
			x.end(ref)
		}
	}
}

// end lets a task expire.
func (x *Index) end(ref Ref) {
	if t := x.tasks[ref]; t != nil {
		delete(x.tasks, ref)
		t.expires = x.cfg.Now().Add(x.cfg.Grace)
	}
}

// expired says whether a task has been over for longer than late events take.
func (x *Index) expired(t *task) bool { return !t.expires.IsZero() && x.cfg.Now().After(t.expires) }

func (x *Index) stopWaiting(pid uint32, t *task) {
	rest := slices.DeleteFunc(x.waiting[pid], func(other *task) bool { return other == t })
	if len(rest) == 0 {
		delete(x.waiting, pid)
		return
	}
	x.waiting[pid] = rest
}

// running takes in a task that is new, or described anew.
func (x *Index) running(t Task) bool {
	if old := x.tasks[t.Ref]; old != nil {
		if old.PID == t.PID {
			old.Workload = t.Workload
			return old.cgroupID == 0 && x.bind(old)
		}
		x.end(t.Ref) // started again
	}
	fresh := &task{Task: t}
	x.tasks[t.Ref] = fresh
	x.waiting[t.PID] = append(x.waiting[t.PID], fresh)
	return x.bind(fresh)
}

// kthreadd's pid. It is in the namespaces that the kernel began with, and cannot leave them.
const kthreadd = 2

// Observe learns from a process's own event: the host's namespaces from pid 1, or where that cannot be seen from kthreadd, and the cgroup
// of a task's first process. It returns true if that bound a cgroup.
func (x *Index) Observe(entry *process.Entry) bool {
	if !entry.Placed {
		return false
	}
	if entry.Key.PID == 1 || entry.Key.PID == kthreadd && x.hostPID == 0 {
		x.hostMnt, x.hostPID = entry.MntNS, entry.PIDNS
	}
	if len(x.waiting) == 0 {
		return false
	}
	bound := false
	for _, t := range slices.Clone(x.waiting[entry.Key.PID]) {
		bound = x.bind(t) || bound
	}
	return bound
}

// bind joins the runtime's word with the kernel's, if both are there and nothing speaks against it. A refusal is not
// final: `runc init` passes through the host's namespaces before it becomes the container's first process.
func (x *Index) bind(t *task) bool {
	if x.expired(t) { // and not swept yet: its pid may be another process's by now
		x.stopWaiting(t.PID, t)
		return false
	}
	// It may have exited by now: a short-lived container's whole life can be over before its runtime tells of it.
	entry := x.tree.Latest(t.PID)
	if entry == nil || !entry.Placed {
		return false // the kernel has not said yet where it is
	}
	if reason := x.refusal(t, entry); reason != "" {
		if reason != t.refused && x.cfg.Refused != nil {
			x.cfg.Refused(t.Ref, reason)
		}
		t.refused = reason
		return false
	}
	t.cgroupID = entry.CgroupID
	x.bindings[entry.CgroupID] = t
	x.tell(entry.CgroupID, true)
	delete(x.unclaimed, entry.CgroupID)
	x.stopWaiting(t.PID, t)
	entry.Home = entry.CgroupID
	x.generation++
	return true
}

// refusal says what speaks against binding the cgroup of a task's process to the task, empty if nothing does.
func (x *Index) refusal(t *task, entry *process.Entry) Reason {
	if entry.CgroupID <= rootCgroup {
		return ReasonRoot
	}
	if x.isHost(Place{CgroupID: entry.CgroupID, MntNS: entry.MntNS, PIDNS: entry.PIDNS}) {
		return ReasonHost
	}
	if b := x.bindings[entry.CgroupID]; b != nil && b != t && b.expires.IsZero() {
		return ReasonConflict
	}
	if x.sharedWithHost(entry) {
		return ReasonShared
	}
	return ""
}

// sharedWithHost says whether the nearest live ancestor that is in the host's namespaces (the shim, as soon as runC is
// done) is in the same cgroup: then the process has not been moved to one of its own yet, or never will be, and the
// cgroup says nothing about the container.
func (x *Index) sharedWithHost(entry *process.Entry) bool {
	above := entry
	for range maxAncestors {
		if above = x.tree.Parent(above); above == nil {
			return false
		}
		if x.tree.Live(above.Key.PID) != above || !above.Placed {
			continue
		}
		if x.isHost(Place{MntNS: above.MntNS, PIDNS: above.PIDNS}) {
			return above.CgroupID == entry.CgroupID
		}
	}
	return false
}

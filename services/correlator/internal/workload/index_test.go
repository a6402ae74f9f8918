package workload

import (
	"slices"
	"testing"
	"time"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/process"
)

const (
	hostNS = 100
	ctrNS  = 200
)

// node is an index with a host that has pid 1 and a shim.
type node struct {
	*Index
	t       *testing.T
	tree    *process.Tree
	now     time.Time
	refused []Reason
	bound   map[uint64]bool
}

func newNode(t *testing.T) *node {
	n := &node{t: t, tree: process.New(100), now: time.Unix(1000, 0), bound: map[uint64]bool{}}
	n.Index = NewIndex(Config{
		Grace: 10 * time.Second, Now: func() time.Time { return n.now },
		Refused: func(_ Ref, r Reason) { n.refused = append(n.refused, r) },
		Bound:   func(cgroup uint64, bound bool) { n.bound[cgroup] = bound },
	}, n.tree)
	n.see(1, 0, hostNS, 1, "/init")
	n.see(shim, 1, hostNS, 5, "/bin/shim")
	return n
}

const shim = 20

// see is an exec by pid in a cgroup; the start time is the pid times ten, or in the event's pid above a million.
func (n *node) see(pid, parent uint32, ns uint32, cgroup uint64, exe string) *process.Entry {
	return n.seeAt(key(pid), parent, ns, cgroup, exe)
}

func (n *node) seeAt(k *eventv1.ProcessKey, parent uint32, ns uint32, cgroup uint64, exe string) *process.Entry {
	entry := n.tree.Apply(&eventv1.Event{
		BoottimeNs: k.GetStartBoottimeNs() + 1, Process: k, Parent: key(parent), CgroupId: cgroup,
		Namespaces: &eventv1.Namespaces{Mnt: ns, Pid: ns},
		Kind:       &eventv1.Event_Exec{Exec: &eventv1.Exec{Exe: &eventv1.File{Path: exe}, Argv: []string{exe}, Cwd: "/"}},
	})
	n.Observe(entry)
	return entry
}

func key(pid uint32) *eventv1.ProcessKey {
	if pid == 0 {
		return nil
	}
	return &eventv1.ProcessKey{Pid: pid, StartBoottimeNs: uint64(pid) * 10}
}

func (n *node) exit(entry *process.Entry) {
	n.tree.Apply(&eventv1.Event{
		Process:  &eventv1.ProcessKey{Pid: entry.Key.PID, StartBoottimeNs: entry.Key.StartBoottimeNs},
		CgroupId: entry.CgroupID, Kind: &eventv1.Event_Exit{Exit: &eventv1.Exit{}},
	})
}

func run(id string, pid uint32) Update {
	return Update{Running: []Task{{Ref: Ref{"ns", id}, PID: pid, Workload: known(id)}}}
}

func known(id string) *findingv1.Workload {
	return &findingv1.Workload{ContainerId: id, Metadata: findingv1.MetadataState_METADATA_STATE_KNOWN}
}

// whose is the container id, "host", "pending", or "?" for one that is worth waiting for.
func (n *node) whose(entry *process.Entry) string {
	n.t.Helper()
	w, settled := n.Resolve(entry, Place{CgroupID: entry.CgroupID, MntNS: entry.MntNS, PIDNS: entry.PIDNS})
	switch {
	case !settled:
		return "?"
	case w.GetMetadata() == findingv1.MetadataState_METADATA_STATE_HOST:
		return "host"
	case w.GetMetadata() == findingv1.MetadataState_METADATA_STATE_PENDING:
		return "pending"
	}
	return w.GetContainerId()
}

func (n *node) want(entry *process.Entry, want string) {
	n.t.Helper()
	if got := n.whose(entry); got != want {
		n.t.Errorf("pid %d in cgroup %d is of %q, want %q", entry.Key.PID, entry.CgroupID, got, want)
	}
}

func (n *node) wantRefused(want ...Reason) {
	n.t.Helper()
	if !slices.Equal(n.refused, want) {
		n.t.Errorf("refused = %q, want %q", n.refused, want)
	}
}

func TestHostIsHostAtOnce(t *testing.T) {
	n := newNode(t)
	n.want(n.see(30, shim, hostNS, 77, "/usr/sbin/sshd"), "host")
	n.want(n.see(31, shim, ctrNS, 1, "/usr/bin/unshare"), "host")
}

func TestBindsInEitherOrder(t *testing.T) {
	n := newNode(t)
	n.Apply(run("a", 40)) // the runtime first
	n.want(n.see(40, shim, ctrNS, 1001, "/app"), "a")
	second := n.see(41, shim, ctrNS, 1002, "/app") // the kernel first
	n.want(second, "?")
	if !n.Apply(run("b", 41)) {
		t.Error("Apply() = false, want true: it bound")
	}
	n.want(second, "b")
	n.want(n.see(42, shim, ctrNS, 1002, "/bin/sh"), "b") // docker exec
	n.wantRefused()
}

func TestAReusedPidIsNotBoundToADeadContainer(t *testing.T) {
	n := newNode(t)
	n.Apply(run("a", 40)) // the kernel never says where it was
	n.Apply(Update{Gone: []Ref{{"ns", "a"}}})
	n.now = n.now.Add(11 * time.Second) // longer than the grace, and nobody has swept
	n.want(n.see(40, shim, ctrNS, 1001, "/other"), "?")
	if _, waiting := n.Len(); waiting != 0 {
		t.Errorf("%d pids are waited for, want none", waiting)
	}
}

func TestRuncInitDoesNotMisbind(t *testing.T) {
	n := newNode(t)
	n.Apply(run("a", 50))
	early := n.see(50, shim, hostNS, 5, "/usr/sbin/runc") // still where the shim is
	n.want(early, "host")
	n.see(50, shim, ctrNS, 5, "/usr/sbin/runc") // own namespaces, the shim's cgroup
	n.want(n.tree.Live(shim), "host")
	n.want(n.see(50, shim, ctrNS, 1001, "/app"), "a")
	n.want(n.tree.Live(shim), "host")
	n.wantRefused(ReasonHost, ReasonShared)
}

// A container in the host's pid namespace has mounts of its own, and is no part of the host. Pid 1 cannot be seen on every machine.
func TestAContainerInTheHostsPIDNamespaceIsAContainer(t *testing.T) {
	for name, first := range map[string]uint32{"pid 1 is seen": 1, "only kthreadd is": kthreadd} {
		n := &node{t: t, tree: process.New(100), now: time.Unix(1000, 0), bound: map[uint64]bool{}}
		n.Index = NewIndex(Config{Now: func() time.Time { return n.now }}, n.tree)
		place := func(pid, parent, mnt uint32, cgroup uint64) *process.Entry {
			entry := n.tree.Apply(&eventv1.Event{
				BoottimeNs: uint64(pid)*10 + 1, Process: key(pid), Parent: key(parent), CgroupId: cgroup,
				Namespaces: &eventv1.Namespaces{Mnt: mnt, Pid: initialPIDNamespace},
				Kind:       &eventv1.Event_Exec{Exec: &eventv1.Exec{Exe: &eventv1.File{Path: "/app"}, Argv: []string{"/app"}}},
			})
			n.Observe(entry)
			return entry
		}
		place(first, 0, hostNS, 1)
		place(shim, first, hostNS, 5)
		inside := place(40, shim, ctrNS, 1001)
		n.want(inside, "?")
		n.Apply(run("a", 40))
		n.want(inside, "a")
		n.want(n.tree.Live(shim), "host")
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

func TestRootCgroupIsNobodys(t *testing.T) {
	n := newNode(t)
	n.Apply(run("a", 50))
	n.want(n.see(50, shim, ctrNS, 1, "/app"), "host")
	n.wantRefused(ReasonRoot)
}

func TestConflictIsRefused(t *testing.T) {
	n := newNode(t)
	n.see(40, shim, ctrNS, 1001, "/app")
	n.Apply(run("a", 40))
	intruder := n.see(41, shim, ctrNS, 1001, "/other")
	n.Apply(run("b", 41))
	n.want(intruder, "a")
	n.wantRefused(ReasonConflict)
	// Once a is gone the cgroup may be b's.
	n.Apply(Update{Gone: []Ref{{"ns", "a"}}})
	n.Apply(run("b", 41))
	n.want(intruder, "b")
}

func TestPidReuseDoesNotRebind(t *testing.T) {
	n := newNode(t)
	first := n.see(40, shim, ctrNS, 1001, "/app")
	n.Apply(run("a", 40))
	n.exit(first)
	reused := n.seeAt(&eventv1.ProcessKey{Pid: 40, StartBoottimeNs: 9000}, shim, ctrNS, 1002, "/other")
	n.Apply(run("a", 40)) // the runtime has not noticed
	n.want(reused, "?")
	n.want(first, "a")
}

func TestB17ANameIsNoEvidence(t *testing.T) {
	n := newNode(t)
	victim := "f00d" // the id of a running container, which the attacker puts wherever it can
	n.see(40, shim, ctrNS, 1001, "/app")
	n.Apply(run(victim, 40))
	spoof := n.see(60, shim, ctrNS, 1003, "/docker/"+victim)
	n.want(spoof, "?")
	n.GiveUp(1003)
	n.want(spoof, "pending")
	// From inside a container, a cgroup named like another is still the maker's.
	attacker := n.see(70, shim, ctrNS, 1004, "/evil")
	n.Apply(run("evil", 70))
	n.want(attacker, "evil")
	n.want(n.see(71, 70, ctrNS, 1005, "/"+victim), "evil")
}

func TestNestedCgroupsBelongToTheContainer(t *testing.T) {
	n := newNode(t)
	first := n.see(40, shim, ctrNS, 1001, "/dockerd")
	child := n.see(41, 40, ctrNS+1, 2001, "/inner") // seen before the container is known
	grandchild := n.see(42, 41, hostNS, 2002, "/escaped")
	n.want(child, "?")
	n.Apply(run("a", 40))
	for _, entry := range []*process.Entry{first, child, grandchild} {
		n.want(entry, "a")
	}
	n.exit(child)
	n.want(n.see(43, 42, ctrNS, 2003, "/late"), "a")
}

func TestEndsAfterGrace(t *testing.T) {
	n := newNode(t)
	entry := n.see(40, shim, ctrNS, 1001, "/app")
	n.Apply(run("a", 40))
	n.Apply(Update{Complete: true}) // not in the list any more
	n.now = n.now.Add(9 * time.Second)
	n.Sweep()
	n.want(entry, "a")
	n.now = n.now.Add(2 * time.Second)
	n.Sweep()
	n.want(entry, "?")
	if bound, waiting := n.Len(); bound != 0 || waiting != 0 {
		t.Errorf("Len() = %d, %d, want 0, 0", bound, waiting)
	}
}

func TestShortLivedContainer(t *testing.T) {
	n := newNode(t)
	// Over before the runtime says a word.
	first := n.see(40, shim, ctrNS, 1001, "/bin/true")
	n.exit(first)
	n.Apply(run("a", 40))
	n.Apply(Update{Gone: []Ref{{"ns", "a"}}})
	n.want(first, "a")
	// The runtime has told it all before the kernel's events arrive.
	n.Apply(run("b", 41))
	n.Apply(Update{Gone: []Ref{{"ns", "b"}}})
	n.want(n.see(41, shim, ctrNS, 1002, "/bin/true"), "b")
	n.now = n.now.Add(time.Minute)
	n.Apply(run("c", 42))
	n.Apply(Update{Complete: true})
	n.now = n.now.Add(time.Minute)
	n.Sweep()
	if bound, waiting := n.Len(); bound != 0 || waiting != 0 {
		t.Errorf("Len() = %d, %d, want 0, 0", bound, waiting)
	}
	n.want(n.see(42, shim, ctrNS, 1003, "/other"), "?")
}

func TestRestartedContainer(t *testing.T) {
	n := newNode(t)
	old := n.see(40, shim, ctrNS, 1001, "/app")
	n.Apply(run("a", 40))
	n.Apply(run("a", 45))
	n.want(n.see(45, shim, ctrNS, 1002, "/app"), "a")
	n.want(old, "a") // in its grace
	n.now = n.now.Add(time.Minute)
	n.Sweep()
	n.want(old, "?")
}

func TestUnclaimedIsNotWaitedForAgain(t *testing.T) {
	n := newNode(t)
	service := n.see(90, 1, ctrNS, 3000, "/usr/lib/systemd/systemd-resolved")
	n.want(service, "?")
	n.GiveUp(3000)
	n.want(service, "pending")
	n.Apply(run("late", 90)) // B18: claimed after all
	n.want(service, "late")
	n.now = n.now.Add(unclaimedFor + time.Second)
	n.Sweep()
	if len(n.unclaimed) != 0 {
		t.Errorf("unclaimed = %v, want none", n.unclaimed)
	}
}

// A process without an ancestor in the container, in a nested cgroup, is the container's by the kernel's word.
func TestB17AStrangerInANestedCgroupIsTheContainers(t *testing.T) {
	n := newNode(t)
	n.see(40, shim, ctrNS, 1001, "/app")
	n.Apply(run("a", 40))
	stranger := n.see(50, shim, ctrNS, 1002, "/entered")
	n.want(stranger, "?")
	w, settled := n.Resolve(stranger, Place{CgroupID: 1002, Registered: 1001, MntNS: ctrNS, PIDNS: ctrNS})
	if !settled || w.GetContainerId() != "a" {
		t.Errorf("Resolve = %v, %v, want container a", w, settled)
	}
	n.want(stranger, "a")
}

func TestWhatIsBoundIsTold(t *testing.T) {
	n := newNode(t)
	n.see(40, shim, ctrNS, 1001, "/app")
	n.Apply(run("a", 40))
	if !n.bound[1001] {
		t.Error("cgroup 1001 is not told to be bound")
	}
	n.Apply(Update{Gone: []Ref{{"ns", "a"}}})
	n.Sweep()
	if !n.bound[1001] {
		t.Error("cgroup 1001 is told to be free while late events may come")
	}
	n.now = n.now.Add(11 * time.Second)
	n.Sweep()
	if n.bound[1001] {
		t.Error("cgroup 1001 is not told to be free")
	}
}

func TestResolveDoesNotAllocate(t *testing.T) {
	n := newNode(t)
	inside := n.see(40, shim, ctrNS, 1001, "/app")
	n.Apply(run("a", 40))
	outside := n.tree.Live(shim)
	if got := testing.AllocsPerRun(100, func() {
		for _, entry := range [...]*process.Entry{inside, outside} {
			n.Observe(entry)
			n.Resolve(entry, Place{CgroupID: entry.CgroupID, MntNS: entry.MntNS, PIDNS: entry.PIDNS})
		}
	}); got != 0 {
		t.Errorf("allocates %v times, want 0", got)
	}
}

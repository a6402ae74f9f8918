// Package workload says whose a process is: which container's, or the host's. Data in: what the runtime says (container
// X's first process is pid P) and what the kernel says (P is in cgroup C). Data out: a workload for each event.
//
// A container is a cgroup id. The two sayings are joined through P: C becomes X's, until the runtime says that X is
// gone. Names (of cgroups, processes, files) are never looked at: anyone inside a container can make one up. Processes
// in other cgroups belong to the container of their nearest ancestor that has one, so a nested cgroup hides nobody.
//
// The index holds no lock: the goroutine that owns the process tree owns it too.
package workload

import (
	"slices"
	"strconv"
	"time"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/process"
)

// Ref names a container within a node.
type Ref struct{ Namespace, ID string }

// Identity tells workloads apart: a container by its id, one that nobody has claimed by its cgroup, and the host by neither.
type Identity struct {
	Container string
	Cgroup    uint64
}

// IdentityOf is a workload's, of whose processes one was in that cgroup.
func IdentityOf(w *findingv1.Workload, cgroupID uint64) Identity {
	switch {
	case w.GetContainerId() != "":
		return Identity{Container: w.GetContainerId()}
	case w.GetMetadata() == findingv1.MetadataState_METADATA_STATE_HOST:
		return Identity{}
	}
	return Identity{Cgroup: cgroupID}
}

// String is the identity for people: a container's id, "cgroup N", and nothing for the host.
func (i Identity) String() string {
	if i.Container == "" && i.Cgroup != 0 {
		return "cgroup " + strconv.FormatUint(i.Cgroup, 10)
	}
	return i.Container
}

// KeyOf is a workload's identity as text.
func KeyOf(w *findingv1.Workload, cgroupID uint64) string { return IdentityOf(w, cgroupID).String() }

// Task is a running container, as its runtime describes it.
type Task struct {
	Ref Ref
	// PID is its first process, in the initial pid namespace.
	PID uint32
	// Workload describes it. It must not be changed any more.
	Workload *findingv1.Workload
}

// Update is news from a runtime.
type Update struct {
	// Running are tasks that are new, or described anew.
	Running []Task
	Gone    []Ref
	// Complete says that there are no tasks but Running.
	Complete bool
}

// Place is where a process was when an event happened.
type Place struct {
	CgroupID uint64
	// Registered is the nearest cgroup at or above it that the kernel was told is a container's, 0 if there is none.
	Registered   uint64
	MntNS, PIDNS uint32
}

// Reason says why a binding was refused.
type Reason string

// Why a runtime's word is not enough to bind a cgroup.
const (
	// ReasonRoot: the process is in the root cgroup, which is nobody's.
	ReasonRoot Reason = "root_cgroup"
	// ReasonHost: the process lives in the host's mount and pid namespaces.
	ReasonHost Reason = "host_namespaces"
	// ReasonShared: a host process that started the container lives in the same cgroup.
	ReasonShared Reason = "shared_with_host"
	// ReasonConflict: the cgroup is another live container's.
	ReasonConflict Reason = "conflict"
)

// Reasons are all of them.
var Reasons = []Reason{ReasonRoot, ReasonHost, ReasonShared, ReasonConflict}

const (
	// rootCgroup is the id of a cgroup2 hierarchy's root. Zero is an event without cgroup.
	rootCgroup = 1
	// initialPIDNamespace is the kernel's constant inode number (PROC_PID_INIT_INO), for the time until pid 1 was seen.
	initialPIDNamespace = 0xEFFFFFFC
	// unclaimedFor is how long a cgroup that no runtime claimed is not waited for again. A claim ends it.
	unclaimedFor = 30 * time.Second
	maxUnclaimed = 4096
)

// Config is what the index needs to know.
type Config struct {
	// Grace keeps a container after its end, so that late events find it: the runtime may have told us of its whole
	// life before the kernel's first word of it arrives.
	Grace time.Duration
	// Now is the clock.
	Now func() time.Time
	// Refused is told of each refused binding.
	Refused func(Ref, Reason)
	// Bound is told of each cgroup that becomes a container's, or is no more. It may be nil.
	Bound func(cgroupID uint64, bound bool)
}

// Index is the workloads of a node.
type Index struct {
	cfg      Config
	tree     *process.Tree
	tasks    map[Ref]*task
	waiting  map[uint32][]*task // by pid, those that are not bound
	bindings map[uint64]*task   // by cgroup id
	// unclaimed are cgroups that nobody claimed, and until when that is believed.
	unclaimed map[uint64]time.Time
	// generation counts the bindings ever made. A process that had no home at one of them is not searched again at it.
	generation   uint64
	hostMnt      uint32
	hostPID      uint32
	host, strays *findingv1.Workload
}

type task struct {
	Task
	cgroupID uint64 // zero while not bound
	refused  Reason
	// expires is when it is forgotten, zero while it runs.
	expires time.Time
}

// NewIndex returns an index over a tree.
func NewIndex(cfg Config, tree *process.Tree) *Index {
	return &Index{
		cfg: cfg, tree: tree, tasks: map[Ref]*task{}, waiting: map[uint32][]*task{}, bindings: map[uint64]*task{},
		unclaimed: map[uint64]time.Time{}, generation: 1,
		host:   &findingv1.Workload{Metadata: findingv1.MetadataState_METADATA_STATE_HOST},
		strays: &findingv1.Workload{Metadata: findingv1.MetadataState_METADATA_STATE_PENDING},
	}
}

// Len is how many containers are bound, and how many tasks still wait for the kernel's word.
func (x *Index) Len() (bound, waiting int) { return len(x.bindings), len(x.waiting) }

// Host is the host's workload.
func (x *Index) Host() *findingv1.Workload { return x.host }

// Resolve says whose the process is, or false if that is worth waiting for. A nil entry is a process that nothing is
// known of.
func (x *Index) Resolve(entry *process.Entry, at Place) (*findingv1.Workload, bool) {
	for _, cgroup := range [...]uint64{at.CgroupID, at.Registered} {
		if b := x.bindings[cgroup]; b != nil {
			if entry != nil {
				entry.Home = cgroup
			}
			return b.Workload, true
		}
	}
	if entry != nil {
		if b := x.home(entry); b != nil {
			return b.Workload, true
		}
	}
	if at.CgroupID <= rootCgroup || x.isHost(at) {
		return x.host, true
	}
	if until, ok := x.unclaimed[at.CgroupID]; ok && x.cfg.Now().Before(until) {
		return x.strays, true
	}
	return nil, false
}

// home is the binding of the process's nearest ancestor that has one, nil if there is none.
func (x *Index) home(entry *process.Entry) *task {
	if b := x.bindings[entry.Home]; b != nil {
		return b
	}
	entry.Home = 0
	if entry.Searched == x.generation {
		return nil
	}
	entry.Searched = x.generation
	above := entry
	for range maxAncestors {
		if above = x.tree.Parent(above); above == nil {
			return nil
		}
		for _, cgroup := range [...]uint64{above.CgroupID, above.Home} {
			if b := x.bindings[cgroup]; b != nil {
				entry.Home = cgroup
				return b
			}
		}
	}
	return nil
}

// maxAncestors bounds a walk up the tree.
const maxAncestors = 64

func (x *Index) tell(cgroupID uint64, bound bool) {
	if x.cfg.Bound != nil {
		x.cfg.Bound(cgroupID, bound)
	}
}

// InHostPIDs says whether a place is in the host's pid namespace, whatever mounts it sees: services have mounts of their own.
func (x *Index) InHostPIDs(at Place) bool {
	return at.PIDNS == x.hostPID || x.hostPID == 0 && at.PIDNS == initialPIDNamespace
}

// InHostMounts says whether a place is in the host's mount namespace, as far as that is known.
func (x *Index) InHostMounts(at Place) bool { return x.hostPID == 0 || at.MntNS == x.hostMnt }

// Stray is the workload of a cgroup that nobody claims.
func (x *Index) Stray() *findingv1.Workload { return x.strays }

// isHost says whether a place is in both of the host's namespaces.
func (x *Index) isHost(at Place) bool {
	if x.hostPID == 0 {
		return at.PIDNS == initialPIDNamespace
	}
	return at.PIDNS == x.hostPID && at.MntNS == x.hostMnt
}

// GiveUp says that nobody claimed the cgroup in time.
func (x *Index) GiveUp(cgroupID uint64) {
	if len(x.unclaimed) >= maxUnclaimed {
		clear(x.unclaimed)
	}
	x.unclaimed[cgroupID] = x.cfg.Now().Add(unclaimedFor)
}

// Sweep forgets what has expired.
func (x *Index) Sweep() {
	now := x.cfg.Now()
	for cgroup, t := range x.bindings {
		if x.expired(t) {
			delete(x.bindings, cgroup)
			x.tell(cgroup, false)
		}
	}
	for pid, tasks := range x.waiting {
		for _, t := range slices.Clone(tasks) {
			if x.expired(t) {
				x.stopWaiting(pid, t)
			}
		}
	}
	for cgroup, until := range x.unclaimed {
		if now.After(until) {
			delete(x.unclaimed, cgroup)
		}
	}
}

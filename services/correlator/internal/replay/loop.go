package replay

import (
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/internal/decode"
)

// Loop is a recording over and over, until there were so many events. What the first snapshot has is the same each time. All that
// began later is new each time: its processes have other pids and start times, its containers other ids and cgroups, and all of it
// is later by the recording's length. A round ends with the exits of its processes that still run and the end of its containers
// that do. Every entry is decoded anew, as from a file.
type Loop struct {
	entries [][]byte // encoded, the first snapshots not among them
	opening []*correlatorv1.RecordedEntry
	want    uint64 // events

	// Renewing is how long it took to make processes and containers new, which is no part of a replay.
	Renewing time.Duration

	span     uint64 // of a round, nanoseconds
	numbers  uint64 // above all batches' numbers, sequences and positions
	old      known
	round    uint64
	place    int
	given    uint64
	live     map[key]*eventv1.Event            // processes of this round, by an event of theirs
	tasks    map[string]*correlatorv1.TaskRef  // containers of this round
	last     *collectorv1.StreamEventsResponse // of this round
	lastTime time.Time
}

type key struct {
	pid   uint32
	start uint64
}

// known is what the snapshot has, and so is not renewed.
type known struct {
	processes  map[key]bool
	pids       map[uint32]bool
	cgroups    map[uint64]bool
	containers map[string]bool
}

// NewLoop reads a recording into memory.
func NewLoop(source Source, events uint64) (*Loop, error) {
	l := &Loop{want: events, old: known{map[key]bool{}, map[uint32]bool{}, map[uint64]bool{0: true, 1: true}, map[string]bool{}}}
	var first, last time.Time
	total := 0
	for {
		entry, err := source.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read recording to loop: %w", err)
		}
		if s := entry.GetSnapshot(); s != nil && len(l.entries) == 0 {
			l.old.add(s)
			l.opening = append(l.opening, entry)
			continue
		}
		if entry.GetSnapshot() != nil || entry.GetMissed() != nil {
			return nil, errors.New("read recording to loop: it has a gap, and then a loop makes no sense")
		}
		raw, err := proto.Marshal(entry)
		if err != nil {
			return nil, fmt.Errorf("read recording to loop: %w", err)
		}
		l.entries = append(l.entries, raw)
		l.measure(entry.GetBatch().GetBatch())
		total += len(entry.GetBatch().GetBatch().GetEvents())
		if last = entry.GetTime().AsTime(); first.IsZero() {
			first = last
		}
	}
	if total == 0 {
		return nil, errors.New("read recording to loop: no event is in it")
	}
	l.span = uint64(last.Sub(first) + time.Second) //nolint:gosec // entries are in order
	l.begin()
	return l, nil
}

func (k known) add(s *correlatorv1.Snapshot) {
	for _, e := range s.GetProcesses() {
		k.processes[keyOf(e.GetProcess())], k.pids[e.GetProcess().GetPid()], k.cgroups[e.GetCgroupId()] = true, true, true
		if e.GetParent() != nil {
			k.processes[keyOf(e.GetParent())] = true
		}
	}
	for _, t := range s.GetTasks() {
		k.containers[t.GetRef().GetId()] = true
	}
}

func (l *Loop) measure(b *collectorv1.StreamEventsResponse) {
	l.numbers = max(l.numbers, b.GetBatch()+1)
	for _, e := range b.GetEvents() {
		l.numbers = max(l.numbers, e.GetSequence()+1, e.GetPosition()+1)
	}
}

func keyOf(k *eventv1.ProcessKey) key { return key{k.GetPid(), k.GetStartBoottimeNs()} }

func (l *Loop) begin() {
	l.place, l.live, l.tasks, l.last = 0, map[key]*eventv1.Event{}, map[string]*correlatorv1.TaskRef{}, nil
}

// Next is the next entry, io.EOF once there were as many events as are wanted.
func (l *Loop) Next() (*correlatorv1.RecordedEntry, error) {
	if len(l.opening) > 0 {
		entry := l.opening[0]
		l.opening = l.opening[1:]
		return entry, nil
	}
	if l.given >= l.want {
		return nil, io.EOF
	}
	if l.place == len(l.entries) {
		entry := l.closing()
		l.round++
		l.begin()
		l.given += uint64(len(entry.GetBatch().GetBatch().GetEvents()))
		return entry, nil
	}
	entry := &correlatorv1.RecordedEntry{}
	if err := decode.Message(l.entries[l.place], entry); err != nil {
		return nil, fmt.Errorf("loop: %w", err)
	}
	l.place++
	begun := time.Now()
	l.renew(entry)
	l.Renewing += time.Since(begun)
	l.given += uint64(len(entry.GetBatch().GetBatch().GetEvents()))
	return entry, nil
}

func (l *Loop) renew(entry *correlatorv1.RecordedEntry) {
	l.later(entry.GetTime())
	l.lastTime = entry.GetTime().AsTime()
	if b := entry.GetBatch().GetBatch(); b != nil {
		if b.Batch != 0 {
			b.Batch += l.round * l.numbers
			l.last = b
		}
		for _, e := range b.GetEvents() {
			l.event(e)
		}
	}
	if n := entry.GetNews(); n != nil {
		n.Complete = n.Complete && l.round == 0 // a whole list would name the first round's, too
		for _, t := range n.GetRunning() {
			l.task(t)
		}
		for _, ref := range n.GetGone() {
			l.ref(ref)
			delete(l.tasks, ref.GetId())
		}
	}
}

func (l *Loop) later(t *timestamppb.Timestamp) {
	if t == nil {
		return
	}
	at := t.AsTime().Add(time.Duration(l.round * l.span))  //nolint:gosec // some days
	t.Seconds, t.Nanos = at.Unix(), int32(at.Nanosecond()) //nolint:gosec // below a second
}

func (l *Loop) event(e *eventv1.Event) {
	shift := l.round * l.span
	e.BoottimeNs += shift
	l.later(e.GetTime())
	if e.Sequence != 0 {
		e.Sequence += l.round * l.numbers
	}
	e.Position += l.round * l.numbers
	e.CgroupId, e.WorkloadCgroupId = l.cgroup(e.CgroupId), l.cgroup(e.WorkloadCgroupId)
	fresh := !l.old.processes[keyOf(e.GetProcess())] && e.GetProcess().GetPid() != 0
	l.process(e.GetProcess())
	l.process(e.GetParent())
	e.Tid = e.GetProcess().GetPid()
	switch kind := e.GetKind().(type) {
	case *eventv1.Event_Fork:
		l.process(kind.Fork.GetChild())
		kind.Fork.ChildCgroupId = l.cgroup(kind.Fork.GetChildCgroupId())
		l.live[keyOf(kind.Fork.GetChild())] = &eventv1.Event{Process: kind.Fork.GetChild(), CgroupId: kind.Fork.GetChildCgroupId()}
	case *eventv1.Event_Exec:
		kind.Exec.Session, kind.Exec.Group = l.pid(kind.Exec.GetSession()), l.pid(kind.Exec.GetGroup())
	case *eventv1.Event_Exit:
		delete(l.live, keyOf(e.GetProcess()))
		return
	case *eventv1.Event_Signal:
		l.process(kind.Signal.GetTarget())
	case *eventv1.Event_Privilege:
		l.process(kind.Privilege.GetTarget())
	}
	if fresh {
		l.live[keyOf(e.GetProcess())] = e
	}
}

// process renews a key, unless the snapshot has it.
func (l *Loop) process(k *eventv1.ProcessKey) {
	if k.GetPid() == 0 || l.old.processes[keyOf(k)] {
		return
	}
	k.Pid = l.newPID(k.GetPid())
	k.StartBoottimeNs += l.round * l.span
}

func (l *Loop) pid(pid uint32) uint32 {
	if pid == 0 || l.old.pids[pid] {
		return pid
	}
	return l.newPID(pid)
}

// newPID is above what Linux gives (1 << 22), so that it is nobody's of the snapshot.
func (l *Loop) newPID(pid uint32) uint32 {
	const most = 1 << 22
	return most + (pid+uint32(l.round)*65_537)%most //nolint:gosec // wraps on purpose
}

func (l *Loop) cgroup(id uint64) uint64 {
	if l.old.cgroups[id] {
		return id
	}
	return id + l.round<<40
}

func (l *Loop) task(t *correlatorv1.Task) {
	if l.old.containers[t.GetRef().GetId()] {
		return
	}
	l.ref(t.GetRef())
	t.Pid = l.pid(t.GetPid())
	if t.GetWorkload() != nil {
		t.Workload.ContainerId = t.GetRef().GetId()
	}
	l.tasks[t.GetRef().GetId()] = t.GetRef()
}

func (l *Loop) ref(r *correlatorv1.TaskRef) {
	if !l.old.containers[r.GetId()] {
		r.Id = fmt.Sprintf("%s-%d", r.GetId(), l.round)
	}
}

// closing ends what began in this round and runs still.
func (l *Loop) closing() *correlatorv1.RecordedEntry {
	batch := &collectorv1.StreamEventsResponse{BootId: l.last.GetBootId(), Instance: l.last.GetInstance(), Epoch: l.last.GetEpoch(), Batch: l.last.GetBatch()}
	for _, e := range l.live {
		batch.Events = append(batch.Events, &eventv1.Event{
			BoottimeNs: e.GetBoottimeNs(), Process: e.GetProcess(), CgroupId: e.GetCgroupId(), Kind: &eventv1.Event_Exit{Exit: &eventv1.Exit{}},
		})
	}
	entry := &correlatorv1.RecordedEntry{
		Time: timestamppb.New(l.lastTime), Kind: &correlatorv1.RecordedEntry_Batch{Batch: &correlatorv1.RecordedBatch{Batch: batch}},
	}
	if len(l.tasks) > 0 {
		news := &correlatorv1.WorkloadNews{}
		for _, ref := range l.tasks {
			news.Gone = append(news.Gone, ref)
		}
		l.opening = append(l.opening, &correlatorv1.RecordedEntry{
			Time: timestamppb.New(l.lastTime), Kind: &correlatorv1.RecordedEntry_News{News: news},
		})
	}
	return entry
}

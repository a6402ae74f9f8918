package pipeline

import (
	"google.golang.org/protobuf/proto"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/account"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// partBytes is about how large a part of a snapshot gets, and partProcesses how many processes it has at most.
const (
	partBytes     = 2 << 20
	partProcesses = 2000
)

// snapshot is what the engine knows, in parts, and then which of the containers are over. Events that wait for their container are
// not in it.
func (e *Engine) snapshot() []*correlatorv1.RecordedEntry {
	var parts []*correlatorv1.RecordedEntry
	add := func(s *correlatorv1.Snapshot) {
		s.BootId, s.Tier = e.stream.bootID, e.stream.tier
		parts = append(parts, &correlatorv1.RecordedEntry{Kind: &correlatorv1.RecordedEntry_Snapshot{Snapshot: s}})
	}
	size, begin, events := 0, 0, e.tree.Describe()
	for i, event := range events {
		if size += proto.Size(event); size > partBytes || i-begin >= partProcesses {
			add(&correlatorv1.Snapshot{Processes: events[begin:i]})
			size, begin = proto.Size(event), i
		}
	}
	running, over := e.index.Tasks()
	add(&correlatorv1.Snapshot{Processes: events[begin:], Tasks: workload.Messages(append(running, over...)), Accounts: e.accounts.Message()})
	if len(over) > 0 {
		news := &correlatorv1.WorkloadNews{}
		for _, t := range over {
			news.Gone = append(news.Gone, t.Ref.Message())
		}
		parts = append(parts, &correlatorv1.RecordedEntry{Kind: &correlatorv1.RecordedEntry_News{News: news}})
	}
	return parts
}

// Restore takes in a part of a snapshot. Nothing of it is judged.
func (e *Engine) Restore(part *correlatorv1.Snapshot) {
	e.stream.bootID = part.GetBootId()
	if part.GetTier() != "" {
		e.stream.tier = part.GetTier()
	}
	for _, event := range part.GetProcesses() {
		if entry := e.tree.Apply(event); entry != nil {
			e.index.Observe(entry)
			s := subject{event: event, entry: entry, place: placeOf(event, entry.MntNS, entry.PIDNS)}
			e.enter(&s)
		}
	}
	e.index.Apply(workload.Update{Running: workload.TasksOf(part.GetTasks())})
	if part.GetAccounts() != nil {
		e.know(account.Of(part.GetAccounts()))
	}
}

// Accounts takes in what the host's users and groups are called from now on. What waits is judged by it, too.
func (e *Engine) Accounts(table *account.Table) {
	if e.deps.Recorder != nil {
		e.deps.Recorder.Accounts(e.now(), table)
	}
	e.know(table)
}

func (e *Engine) know(table *account.Table) {
	e.accounts, e.judged.context.Accounts = table, table
}

package workload

import (
	"maps"
	"slices"
	"strings"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
)

// Tasks are the containers that run, and those that are over but not forgotten, each sorted by id.
func (x *Index) Tasks() (running, over []Task) {
	seen := map[Ref]bool{}
	for ref, t := range x.tasks {
		seen[ref] = true
		running = append(running, t.Task)
	}
	for t := range maps.Values(x.bindings) {
		if !seen[t.Ref] && !t.expires.IsZero() {
			over = append(over, t.Task)
		}
	}
	byID := func(a, b Task) int {
		return strings.Compare(a.Ref.Namespace+"/"+a.Ref.ID, b.Ref.Namespace+"/"+b.Ref.ID)
	}
	slices.SortFunc(running, byID)
	slices.SortFunc(over, byID)
	return running, over
}

// Message is the update for a recording.
func (u Update) Message() *correlatorv1.WorkloadNews {
	news := &correlatorv1.WorkloadNews{Running: Messages(u.Running), Complete: u.Complete}
	for _, ref := range u.Gone {
		news.Gone = append(news.Gone, ref.Message())
	}
	return news
}

// UpdateOf is what was recorded.
func UpdateOf(news *correlatorv1.WorkloadNews) Update {
	u := Update{Running: TasksOf(news.GetRunning()), Complete: news.GetComplete()}
	for _, ref := range news.GetGone() {
		u.Gone = append(u.Gone, refOf(ref))
	}
	return u
}

// Messages are tasks for a recording. They share the workloads.
func Messages(tasks []Task) []*correlatorv1.Task {
	messages := make([]*correlatorv1.Task, len(tasks))
	for i, t := range tasks {
		messages[i] = &correlatorv1.Task{Ref: t.Ref.Message(), Pid: t.PID, Workload: t.Workload}
	}
	return messages
}

// TasksOf are recorded tasks.
func TasksOf(messages []*correlatorv1.Task) []Task {
	tasks := make([]Task, len(messages))
	for i, m := range messages {
		tasks[i] = Task{Ref: refOf(m.GetRef()), PID: m.GetPid(), Workload: m.GetWorkload()}
	}
	return tasks
}

// Message is the name for a recording.
func (r Ref) Message() *correlatorv1.TaskRef {
	return &correlatorv1.TaskRef{Namespace: r.Namespace, Id: r.ID}
}

func refOf(m *correlatorv1.TaskRef) Ref { return Ref{Namespace: m.GetNamespace(), ID: m.GetId()} }

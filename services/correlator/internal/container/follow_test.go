package container

import (
	"log/slog"
	"testing"

	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// A list takes containerd a while, and events are passed on meanwhile: what they say is newer than the list.
func TestAListDoesNotUndoWhatEventsSaidMeanwhile(t *testing.T) {
	ref := func(id string) workload.Ref { return workload.Ref{Namespace: "ns", ID: id} }
	task := func(id string, pid uint32) workload.Task { return workload.Task{Ref: ref(id), PID: pid} }
	w := &Watcher{
		updates: make(chan workload.Update, 1), known: map[workload.Ref]known{},
		health: health{runtime: "containerd", log: slog.New(slog.DiscardHandler), err: errNotYet},
	}
	l := list{since: map[workload.Ref]workload.Task{
		ref("started"): task("started", 2), ref("ended"): {Ref: ref("ended")}, ref("restarted"): task("restarted", 4),
	}}
	made := listed{tasks: []workload.Task{task("old", 1), task("ended", 3), task("restarted", 5)}}
	if err := w.endList(t.Context(), l, made); err != nil {
		t.Fatal(err)
	}
	u := <-w.updates
	got := map[string]uint32{}
	for _, task := range u.Running {
		got[task.Ref.ID] = task.PID
	}
	want := map[string]uint32{"old": 1, "started": 2, "restarted": 4}
	if !u.Complete || len(got) != len(want) {
		t.Errorf("update = %+v, want a complete one of %v", u, want)
	}
	for id, pid := range want {
		if got[id] != pid {
			t.Errorf("pid of %s = %d, want %d", id, got[id], pid)
		}
	}
	if err := w.Err(); err != nil {
		t.Errorf("Err() = %v after a list, want nil", err)
	}
}

// A list that fails is asked for again; it does not end the subscription, whose events are as true as before.
func TestAListThatFailsIsAskedForAgain(t *testing.T) {
	w := &Watcher{
		updates: make(chan workload.Update, 1), asked: make(chan struct{}, 1),
		health: health{runtime: "containerd", log: slog.New(slog.DiscardHandler)},
	}
	if err := w.endList(t.Context(), list{}, listed{err: errNotYet}); err != nil {
		t.Fatalf("endList() error = %v, want nil", err)
	}
	if w.Err() == nil || len(w.asked) != 1 || len(w.updates) != 0 {
		t.Errorf("Err() = %v, %d asked, %d updates, want an error, 1, 0", w.Err(), len(w.asked), len(w.updates))
	}
}

package container

import (
	"errors"
	"time"

	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// patience is how long a task of another runtime's is withheld that only containerd has told of: Docker answers nothing about a container
// while it starts it. It is less than what events of an unknown cgroup wait for by default, so they find the whole description.
const patience = 700 * time.Millisecond

// withheld is a task as containerd told it, and until when its own runtime may take to describe it.
type withheld struct {
	task  workload.Task
	until time.Time
}

// withhold says whether a task that containerd tells of is to be told later: it is another runtime's, which is followed or about to be,
// which alone knows name and image, and has not said them yet.
func (r *Runtimes) withhold(t workload.Task, now time.Time) bool {
	for i, other := range r.others {
		if other.namespace() != t.Ref.Namespace {
			continue
		}
		if err, _ := other.state().get(); err != nil && !errors.Is(err, errNotYet) || r.claims[i+1][t.Ref].workload != nil {
			return false
		}
		held, again := r.withheld[t.Ref]
		if !again {
			held.until = now.Add(patience)
		}
		held.task = t
		r.withheld[t.Ref] = held
		return now.Before(held.until)
	}
	return false
}

// overdue tells of what was withheld long enough, in containerd's words.
func (r *Runtimes) overdue(now time.Time) workload.Update {
	var out workload.Update
	for ref, held := range r.withheld {
		if !now.Before(held.until) {
			delete(r.withheld, ref)
			out.Running = append(out.Running, held.task)
		}
	}
	return out
}

// due fires when something is overdue. It is nil if nothing is withheld.
func (r *Runtimes) due(now time.Time) <-chan time.Time {
	var first time.Time
	for _, held := range r.withheld {
		if first.IsZero() || held.until.Before(first) {
			first = held.until
		}
	}
	if first.IsZero() {
		return nil
	}
	return time.After(first.Sub(now))
}

// beforeGone tells of tasks that are over while they were withheld: what they did is theirs all the same.
func (r *Runtimes) beforeGone(gone []workload.Ref) workload.Update {
	var out workload.Update
	for _, ref := range gone {
		if held, ok := r.withheld[ref]; ok {
			delete(r.withheld, ref)
			out.Running = append(out.Running, held.task)
		}
	}
	return out
}

package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Config bounds what an engine remembers.
type Config struct {
	Hold      HoldConfig
	Processes ProcessesConfig
	Workloads WorkloadsConfig
}

// HoldConfig bounds how events wait for their container's description.
type HoldConfig struct {
	// For is how long one waits at most.
	For time.Duration `yaml:"for"`
	// Events is how many may wait at once.
	Events int `yaml:"events"`
}

// ProcessesConfig bounds the process tree.
type ProcessesConfig struct {
	// KeepExited is how many exited processes are remembered.
	KeepExited int `yaml:"keep_exited"`
}

// WorkloadsConfig bounds the workload index.
type WorkloadsConfig struct {
	// Grace is how long a container is remembered after its end.
	Grace time.Duration `yaml:"grace"`
}

// DefaultConfig is fit for a node with some hundred containers.
func DefaultConfig() Config {
	return Config{
		Hold:      HoldConfig{For: time.Second, Events: 4096},
		Processes: ProcessesConfig{KeepExited: 16384},
		Workloads: WorkloadsConfig{Grace: 30 * time.Second},
	}
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	if c.Hold.For <= 0 || c.Hold.For > time.Minute {
		errs = append(errs, fmt.Errorf("hold.for: %v is not above 0 and at most 1m", c.Hold.For))
	}
	if c.Hold.Events < 1 {
		errs = append(errs, fmt.Errorf("hold.events: %d is not positive", c.Hold.Events))
	}
	if c.Processes.KeepExited < 1 {
		errs = append(errs, fmt.Errorf("processes.keep_exited: %d is not positive", c.Processes.KeepExited))
	}
	if c.Workloads.Grace < 0 {
		errs = append(errs, fmt.Errorf("workloads.grace: %v is negative", c.Workloads.Grace))
	}
	return errors.Join(errs...)
}

// Why an event waits no longer.
const (
	releaseBound   = "bound"   // its container is known
	releaseExpired = "expired" // nobody claimed its cgroup in time
	releaseFull    = "full"    // too many wait
)

// waiting is the events of one cgroup, in order.
type waiting struct {
	cgroupID uint64
	deadline time.Time
	subjects []subject
}

// holds is all that waits. Queues are in order of their deadlines: each has the same time from its first event.
type holds struct {
	limit  int
	count  int
	byID   map[uint64]*waiting
	queues []*waiting
}

func newHolds(limit int) *holds { return &holds{limit: limit, byID: map[uint64]*waiting{}} }

// waits says whether a cgroup's events wait, so that a later one must queue up behind them.
func (h *holds) waits(cgroupID uint64) bool { return len(h.byID) > 0 && h.byID[cgroupID] != nil }

func (h *holds) full() bool { return h.count >= h.limit }

// oldest is the queue whose deadline is next, nil if nothing waits.
func (h *holds) oldest() *waiting {
	if len(h.queues) == 0 {
		return nil
	}
	return h.queues[0]
}

// all is a copy of the list of queues, which may be emptied on the way.
func (h *holds) all() []*waiting { return slices.Clone(h.queues) }

// add queues an event up. It returns true if it is the first of its cgroup.
func (h *holds) add(s subject, deadline time.Time) bool {
	h.count++
	q := h.byID[s.place.CgroupID]
	first := q == nil
	if first {
		q = &waiting{cgroupID: s.place.CgroupID, deadline: deadline}
		h.byID[q.cgroupID] = q
		h.queues = append(h.queues, q)
	}
	q.subjects = append(q.subjects, s)
	return first
}

// take removes a queue's first event, and the queue with its last.
func (h *holds) take(q *waiting) subject {
	s := q.subjects[0]
	q.subjects[0] = subject{}
	q.subjects = q.subjects[1:]
	h.count--
	if len(q.subjects) == 0 {
		delete(h.byID, q.cgroupID)
		h.queues = slices.DeleteFunc(h.queues, func(other *waiting) bool { return other == q })
	}
	return s
}

// next is how long until a deadline, at most limit.
func (h *holds) next(now time.Time, limit time.Duration) time.Duration {
	if q := h.oldest(); q != nil {
		return max(0, min(limit, q.deadline.Sub(now)))
	}
	return limit
}

// hold lets an event wait for its workload.
func (e *Engine) hold(ctx context.Context, s subject) error {
	for e.held.full() {
		if err := e.release(ctx, e.held.oldest(), releaseFull); err != nil {
			return err
		}
		if !e.held.waits(s.place.CgroupID) {
			if done, err := e.judge(ctx, s); done || err != nil {
				return err
			}
		}
	}
	s.batch.Keep()
	if e.held.add(s, e.now().Add(e.cfg.Hold.For)) {
		e.deps.Runtime.Ask()
	}
	return nil
}

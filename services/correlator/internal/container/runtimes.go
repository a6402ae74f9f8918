package container

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// Runtimes follows every runtime of a node and tells of a container once, whoever tells of it: Docker's containers are
// containerd's too. Containerd's word on the pid counts, for it comes first; Docker's on name and image, which it alone has.
type Runtimes struct {
	containerd *Watcher
	others     []source
	updates    chan workload.Update
	// claims are by source: containerd, then the others. Only Run's goroutine uses them and what is withheld.
	claims   []map[workload.Ref]claim
	withheld map[workload.Ref]withheld
}

// source follows one runtime.
type source interface {
	Run(ctx context.Context) error
	// news is where updates arrive; ask wants a list soon and does not block; state is whether the runtime is followed.
	news() <-chan workload.Update
	ask()
	state() *health
	// namespace is the one that its containers are known by.
	namespace() string
}

// claim is what one runtime says of a container.
type claim struct {
	pid      uint32 // 0 if it does not run, and may start again
	workload *findingv1.Workload
	since    time.Time
}

// keepIdle is how long a description is kept of a container that does not run: long enough to start it.
const keepIdle = 5 * time.Minute

// told is an update and whose it is.
type told struct {
	source int
	update workload.Update
}

// NewRuntimes returns a follower of containerd and CRI-O, over a connection to the gate, and of what is behind the sockets.
func NewRuntimes(cfg Config, conn *grpc.ClientConn, sockets []Socket, log *slog.Logger) (*Runtimes, error) {
	containerd, err := New(cfg, conn, log)
	if err != nil {
		return nil, err
	}
	r := &Runtimes{
		containerd: containerd, updates: make(chan workload.Update),
		claims: []map[workload.Ref]claim{{}}, withheld: map[workload.Ref]withheld{},
	}
	for _, socket := range sockets {
		r.others = append(r.others, newDockerWatcher(cfg, socket, log))
	}
	r.others = append(r.others, newCRIWatcher(cfg, conn, log))
	for range r.others {
		r.claims = append(r.claims, map[workload.Ref]claim{})
	}
	return r, nil
}

// Updates is where news arrives. It is never closed.
func (r *Runtimes) Updates() <-chan workload.Update { return r.updates }

// Ask wants lists soon. It does not block.
func (r *Runtimes) Ask() {
	r.containerd.Ask()
	for _, other := range r.others {
		other.ask()
	}
}

// Err is why containers have no names, nil if they have: no runtime is followed, or one that was is not any more. Safe for
// concurrent use.
func (r *Runtimes) Err() error {
	none := true
	var lost error
	first := r.containerd.Err()
	for _, h := range r.healths() {
		err, before := h.get()
		none = none && err != nil
		if err != nil && before && lost == nil {
			lost = fmt.Errorf("%s: %w", h.runtime, err)
		}
	}
	if none {
		return first
	}
	return lost
}

// States says of each runtime whether it is followed, in a fixed order. Safe for concurrent use.
func (r *Runtimes) States() (names, states []string) {
	for _, h := range r.healths() {
		err, before := h.get()
		state := "followed"
		switch {
		case err != nil && before:
			state = "lost"
		case err != nil:
			state = "not there"
		}
		names, states = append(names, h.runtime), append(states, state)
	}
	return names, states
}

func (r *Runtimes) healths() []*health {
	all := []*health{&r.containerd.health}
	for _, other := range r.others {
		all = append(all, other.state())
	}
	return all
}

// Run follows all of them until ctx ends.
func (r *Runtimes) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	in := make(chan told)
	follow := func(source int, run func(context.Context) error, updates <-chan workload.Update) {
		running.Go(func() { _ = run(ctx) }) // it ends with ctx only
		running.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case u := <-updates:
					select {
					case in <- told{source, u}:
					case <-ctx.Done():
						return
					}
				}
			}
		})
	}
	follow(0, r.containerd.Run, r.containerd.Updates())
	for i, other := range r.others {
		follow(i+1, other.Run, other.news())
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.due(time.Now()):
			r.tell(ctx, r.overdue(time.Now()))
		case t := <-in:
			u := r.merge(t.source, t.update, time.Now())
			r.tell(ctx, r.beforeGone(u.Gone))
			r.tell(ctx, u)
		}
	}
}

// tell passes an update on, unless it says nothing or ctx ends.
func (r *Runtimes) tell(ctx context.Context, u workload.Update) {
	if len(u.Running)+len(u.Gone) == 0 {
		return
	}
	select {
	case r.updates <- u:
	case <-ctx.Done():
	}
}

// merge takes in one source's update and returns what it changes. That names no complete list: what is missing from one
// source's is another's.
func (r *Runtimes) merge(source int, u workload.Update, now time.Time) workload.Update {
	var out workload.Update
	mine := r.claims[source]
	if u.Complete {
		named := make(map[workload.Ref]bool, len(u.Running))
		for _, t := range u.Running {
			named[t.Ref] = true
		}
		for ref, c := range mine {
			if c.pid != 0 && !named[ref] {
				r.idle(source, ref, now)
				if r.pid(ref) == 0 {
					out.Gone = append(out.Gone, ref)
				}
			} else if c.pid == 0 && now.Sub(c.since) > keepIdle {
				delete(mine, ref)
			}
		}
	}
	for _, ref := range u.Gone { // whoever notices first
		for i := range r.claims {
			r.idle(i, ref, now)
		}
		out.Gone = append(out.Gone, ref)
	}
	for _, t := range u.Running {
		c := claim{pid: t.PID, workload: t.Workload, since: now}
		if c.workload == nil {
			c.workload = mine[t.Ref].workload
		}
		mine[t.Ref] = c
		if source == 0 && r.withhold(t, now) {
			continue
		}
		if pid := r.pid(t.Ref); pid != 0 {
			delete(r.withheld, t.Ref)
			out.Running = append(out.Running, workload.Task{Ref: t.Ref, PID: pid, Workload: r.description(t.Ref)})
		}
	}
	return out
}

// idle notes that a container does not run. A description that containerd could not give is kept, for it may start again.
func (r *Runtimes) idle(source int, ref workload.Ref, now time.Time) {
	c, ok := r.claims[source][ref]
	switch {
	case !ok:
	case source == 0:
		delete(r.claims[source], ref)
	case c.pid != 0:
		r.claims[source][ref] = claim{workload: c.workload, since: now}
	}
}

// pid is a container's, in the words of the first source that has it run; 0 if none has.
func (r *Runtimes) pid(ref workload.Ref) uint32 {
	for _, claims := range r.claims {
		if c := claims[ref]; c.pid != 0 {
			return c.pid
		}
	}
	return 0
}

// description is a container's, in the words of the last source that has one: Docker's before containerd's.
func (r *Runtimes) description(ref workload.Ref) *findingv1.Workload {
	for _, claims := range slices.Backward(r.claims) {
		if c, ok := claims[ref]; ok && c.workload != nil {
			return c.workload
		}
	}
	return nil
}

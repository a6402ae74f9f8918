package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	eventtypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/typeurl/v2"

	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// topics are the events that change which containers run.
var topics = []string{
	`topic=="/containers/create"`, // no process yet, but it can be described: it may be gone a moment after its start
	`topic=="/containers/delete"`,
	`topic=="/tasks/create"`,
	`topic=="/tasks/delete"`,
	`topic=="/tasks/exit"`,
	`topic=="/tasks/start"`,
}

// Waits between two attempts to follow.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = time.Second
)

// Run follows containerd until ctx ends, again from a full list whenever the connection was lost.
func (w *Watcher) Run(ctx context.Context) error {
	return again(ctx, func(ctx context.Context) error {
		err := w.follow(ctx)
		if ctx.Err() == nil {
			w.health.set(ctx, err)
		}
		return err
	})
}

// follow subscribes, lists, and then passes on what changes. It returns when the subscription ends. Events are passed on while a
// list is made: on a busy node that takes containerd seconds, for it asks the shim of every task.
func (w *Watcher) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	news, ended := w.client.Subscribe(ctx, topics...)
	l := w.beginList(ctx)
	defer func() { // of whichever list is made by then
		cancel()
		if l.done != nil {
			<-l.done
		}
	}()
	relist := time.NewTicker(w.cfg.Relist)
	defer relist.Stop()
	var rested <-chan time.Time
	for {
		asked := w.asked
		if l.done != nil || rested != nil {
			asked = nil
		}
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			return errors.Join(errors.New("subscription ended"), err)
		case envelope := <-news:
			err = w.event(ctx, envelope, &l)
		case <-relist.C:
			w.Ask()
		case <-rested:
			rested = nil
		case <-asked:
			l = w.beginList(ctx)
		case made := <-l.done:
			err = w.endList(ctx, l, made)
			// A storm of unknown cgroups must not become a storm of lists: they take at most half of the time.
			rested = time.After(max(w.cfg.AskInterval, time.Since(l.began)))
			l = list{}
		}
		if err != nil {
			return err
		}
	}
}

// list is a list on its way.
type list struct {
	began time.Time
	done  chan listed // nil if none is
	// since is what events have said since it began, which the list may be too old to know: the task, or one without pid if it is gone.
	since map[workload.Ref]workload.Task
}

// listed is what came of a list.
type listed struct {
	tasks []workload.Task
	err   error
}

func (w *Watcher) beginList(ctx context.Context) list {
	l := list{began: time.Now(), done: make(chan listed, 1), since: map[workload.Ref]workload.Task{}}
	go func() {
		defer close(l.done)
		tasks, err := w.list(ctx)
		l.done <- listed{tasks, err}
	}()
	return l
}

// endList passes a list on, put right by the events that came meanwhile.
func (w *Watcher) endList(ctx context.Context, l list, made listed) error {
	if made.err != nil { // the events go on: what they say of containers is no less true
		w.health.set(ctx, made.err)
		w.Ask()
		return nil
	}
	update := workload.Update{Complete: true}
	for _, t := range made.tasks {
		if _, newer := l.since[t.Ref]; !newer {
			update.Running = append(update.Running, t)
		}
	}
	for _, t := range l.since {
		if t.PID != 0 {
			update.Running = append(update.Running, t)
		}
	}
	w.forgetAllBut(update.Running)
	if err := w.send(ctx, update); err != nil {
		return err
	}
	w.health.set(ctx, nil)
	return nil
}

// event passes one event on.
func (w *Watcher) event(ctx context.Context, envelope *events.Envelope, l *list) error {
	decoded, err := typeurl.UnmarshalAny(envelope.Event)
	if err != nil {
		return fmt.Errorf("decode event %s: %w", envelope.Topic, err)
	}
	ref := workload.Ref{Namespace: envelope.Namespace}
	switch e := decoded.(type) {
	case *eventtypes.TaskCreate:
		ref.ID = e.GetContainerID()
		return w.running(ctx, ref, e.GetPid(), l)
	case *eventtypes.TaskStart:
		ref.ID = e.GetContainerID()
		return w.running(ctx, ref, e.GetPid(), l)
	case *eventtypes.TaskExit:
		ref.ID = e.GetContainerID()
		if e.GetID() != e.GetContainerID() {
			return nil // of a process that was executed in it
		}
		return w.gone(ctx, ref, l)
	case *eventtypes.TaskDelete:
		ref.ID = e.GetContainerID()
		if id := e.GetID(); id != "" && id != ref.ID {
			return nil
		}
		return w.gone(ctx, ref, l)
	case *eventtypes.ContainerCreate:
		ref.ID = e.GetID()
		call, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, ref.Namespace), w.cfg.Timeout)
		defer cancel()
		_, err := w.describe(call, ref, e.GetImage())
		return err
	case *eventtypes.ContainerDelete:
		w.forget(workload.Ref{Namespace: envelope.Namespace, ID: e.GetID()})
	}
	return nil
}

// running passes on that a task's first process exists.
func (w *Watcher) running(ctx context.Context, ref workload.Ref, pid uint32, l *list) error {
	call, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, ref.Namespace), w.cfg.Timeout)
	defer cancel()
	description, err := w.describe(call, ref, "")
	if err != nil {
		return err
	}
	t := workload.Task{Ref: ref, PID: pid, Workload: description}
	if l.since != nil {
		l.since[ref] = t
	}
	return w.send(ctx, workload.Update{Running: []workload.Task{t}})
}

// gone passes on that a task's first process is over.
func (w *Watcher) gone(ctx context.Context, ref workload.Ref, l *list) error {
	if l.since != nil {
		l.since[ref] = workload.Task{Ref: ref}
	}
	return w.send(ctx, workload.Update{Gone: []workload.Ref{ref}})
}

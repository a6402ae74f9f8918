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

// follow subscribes, lists, and then passes on what changes. It returns when the subscription ends.
func (w *Watcher) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	news, ended := w.client.Subscribe(ctx, topics...)
	if err := w.list(ctx); err != nil {
		return err
	}
	w.health.set(ctx, nil)
	relist := time.NewTicker(w.cfg.Relist)
	defer relist.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			return errors.Join(errors.New("subscription ended"), err)
		case envelope := <-news:
			err = w.event(ctx, envelope)
		case <-relist.C:
			err = w.list(ctx)
		case <-w.asked:
			if err = w.list(ctx); err == nil {
				err = w.rest(ctx, news, ended)
			}
		}
		if err != nil {
			return err
		}
	}
}

// rest passes on events, but answers no further ask for AskInterval: a storm of unknown cgroups must not become a
// storm of lists.
func (w *Watcher) rest(ctx context.Context, news <-chan *events.Envelope, ended <-chan error) error {
	over := time.NewTimer(w.cfg.AskInterval)
	defer over.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over.C:
			return nil
		case err := <-ended:
			return errors.Join(errors.New("subscription ended"), err)
		case envelope := <-news:
			if err := w.event(ctx, envelope); err != nil {
				return err
			}
		}
	}
}

// event passes one event on.
func (w *Watcher) event(ctx context.Context, envelope *events.Envelope) error {
	decoded, err := typeurl.UnmarshalAny(envelope.Event)
	if err != nil {
		return fmt.Errorf("decode event %s: %w", envelope.Topic, err)
	}
	ref := workload.Ref{Namespace: envelope.Namespace}
	switch e := decoded.(type) {
	case *eventtypes.TaskCreate:
		ref.ID = e.GetContainerID()
		return w.running(ctx, ref, e.GetPid())
	case *eventtypes.TaskStart:
		ref.ID = e.GetContainerID()
		return w.running(ctx, ref, e.GetPid())
	case *eventtypes.TaskExit:
		ref.ID = e.GetContainerID()
		if e.GetID() != e.GetContainerID() {
			return nil // of a process that was executed in it
		}
		return w.send(ctx, workload.Update{Gone: []workload.Ref{ref}})
	case *eventtypes.TaskDelete:
		ref.ID = e.GetContainerID()
		if id := e.GetID(); id != "" && id != ref.ID {
			return nil
		}
		return w.send(ctx, workload.Update{Gone: []workload.Ref{ref}})
	case *eventtypes.ContainerCreate:
		ref.ID = e.GetID()
		call, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, ref.Namespace), w.cfg.Timeout)
		defer cancel()
		_, err := w.describe(call, ref, e.GetImage())
		return err
	case *eventtypes.ContainerDelete:
		delete(w.known, workload.Ref{Namespace: envelope.Namespace, ID: e.GetID()})
	}
	return nil
}

// running passes on that a task's first process exists.
func (w *Watcher) running(ctx context.Context, ref workload.Ref, pid uint32) error {
	call, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, ref.Namespace), w.cfg.Timeout)
	defer cancel()
	description, err := w.describe(call, ref, "")
	if err != nil {
		return err
	}
	return w.send(ctx, workload.Update{Running: []workload.Task{{Ref: ref, PID: pid, Workload: description}}})
}

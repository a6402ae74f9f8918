package container

import (
	"context"
	"fmt"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// Run follows the runtime until ctx ends, again from a full list whenever the connection was lost.
func (c *criWatcher) Run(ctx context.Context) error {
	return again(ctx, func(ctx context.Context) error {
		err := c.follow(ctx)
		if ctx.Err() == nil {
			c.health.set(ctx, err)
		}
		return err
	})
}

// criEvents are a runtime's events. A runtime that has none, as CRI-O unless it is configured to, is listed every so often instead.
type criEvents struct {
	opened time.Time
	news   chan *runtimeapi.ContainerEventResponse
	ended  chan error // nil once it has ended
	// reopen says that they ended, but there were some: a runtime that refuses does so each time, until it is started anew.
	reopen bool
}

// follow opens the stream of events, lists, and then passes on what changes. It returns when the connection is lost.
func (c *criWatcher) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	events := c.open(ctx)
	defer func() { // the reader ends with the call
		cancel()
		if events.ended != nil {
			for range events.ended { // why it ends is known: we end it
			}
		}
	}()
	c.known, c.pods = map[string]criKnown{}, map[string]*runtimeapi.PodSandboxStatus{}
	if err := c.list(ctx); err != nil {
		return err
	}
	c.health.set(ctx, nil)
	// The call may have reached the runtime after the list was made, so the first list after it is due soon.
	next := time.NewTimer(c.cfg.Poll)
	defer next.Stop()
	for {
		if err := c.once(ctx, &events, next); err != nil {
			return err
		}
	}
}

// once waits for one thing and sees to it.
func (c *criWatcher) once(ctx context.Context, events *criEvents, next *time.Timer) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-events.ended:
		events.ended = nil
		if lost(err) {
			return fmt.Errorf("follow events: %w", err)
		}
		events.reopen = time.Since(events.opened) > c.cfg.Poll
		next.Reset(c.cfg.Poll)
	case event := <-events.news:
		return c.event(ctx, event)
	case <-next.C:
		wait := c.cfg.Relist
		if events.ended == nil {
			wait = c.cfg.Poll
		}
		if events.reopen {
			*events = c.open(ctx)
		}
		if err := c.list(ctx); err != nil {
			return err
		}
		next.Reset(wait)
	case <-c.asked:
		if err := c.list(ctx); err != nil {
			return err
		}
		if !rest(ctx, c.cfg.AskInterval) { // a storm of unknown cgroups must not become a storm of lists
			return ctx.Err()
		}
	}
	return nil
}

// rest waits. It returns false if ctx ended.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// open asks for events and reads them until the call ends.
func (c *criWatcher) open(ctx context.Context) criEvents {
	e := criEvents{opened: time.Now(), news: make(chan *runtimeapi.ContainerEventResponse), ended: make(chan error, 1)}
	go func() {
		defer close(e.ended)
		e.ended <- c.read(ctx, e.news)
	}()
	return e
}

func (c *criWatcher) read(ctx context.Context, news chan<- *runtimeapi.ContainerEventResponse) error {
	stream, err := c.client.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			return err
		}
		select {
		case news <- event:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// event passes one event on. It carries no pid, so the runtime is asked for it.
func (c *criWatcher) event(ctx context.Context, event *runtimeapi.ContainerEventResponse) error {
	id := event.GetContainerId()
	switch event.GetContainerEventType() {
	case runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT:
		describe := c.describe
		if id == event.GetPodSandboxStatus().GetId() {
			describe = c.describePod
		}
		if err := c.tolerate(ctx, id, describe(ctx, id)); err != nil {
			return err
		}
		if known := c.known[id]; known.task.PID != 0 {
			return c.send(ctx, workload.Update{Running: []workload.Task{known.task}})
		}
	case runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT:
		c.forget(id)
		return c.send(ctx, workload.Update{Gone: []workload.Ref{{Namespace: crio, ID: id}}})
	}
	return nil
}

func (c *criWatcher) send(ctx context.Context, u workload.Update) error {
	select {
	case c.updates <- u:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask wants a list soon. It does not block.
func (c *criWatcher) ask() {
	select {
	case c.asked <- struct{}{}:
	default:
	}
}

func (c *criWatcher) news() <-chan workload.Update { return c.updates }
func (c *criWatcher) state() *health               { return &c.health }
func (c *criWatcher) namespace() string            { return crio }

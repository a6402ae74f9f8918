package container

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// eventsTarget is the one question about events that the gate lets through: those of containers.
const eventsTarget = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D"

// maxEventBytes bounds one event, labels included.
const maxEventBytes = 1 << 20

// dockerEvent is what is read of one.
type dockerEvent struct {
	Action string
	Actor  struct{ ID string }
	// Podman 4 and old Dockers say it here.
	Status string `json:"status"`
	ID     string `json:"id"`
}

// Run follows the runtime until ctx ends, again from a full list whenever the connection was lost.
func (d *dockerWatcher) Run(ctx context.Context) error {
	return again(ctx, func(ctx context.Context) error {
		err := d.follow(ctx)
		if ctx.Err() == nil {
			d.health.set(ctx, err)
		}
		return err
	})
}

// again calls follow until ctx ends, with growing waits while it fails at once.
func again(ctx context.Context, follow func(context.Context) error) error {
	retry := firstRetry
	for ctx.Err() == nil {
		started := time.Now()
		_ = follow(ctx) // it has told
		if time.Since(started) > lastRetry {
			retry = firstRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, lastRetry)
	}
	return ctx.Err()
}

// follow opens the stream of events, lists, and then passes on what changes. It returns when the stream ends.
func (d *dockerWatcher) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	body, err := d.get(ctx, eventsTarget)
	if err != nil {
		cancel()
		return fmt.Errorf("follow events: %w", err)
	}
	news, ended := make(chan dockerEvent), make(chan error, 1)
	go func() { ended <- readEvents(ctx, body, news) }()
	defer func() { // the reader ends with the body
		cancel()
		_ = body.Close()
	}()
	d.running = map[string]uint32{}
	if err := d.list(ctx); err != nil {
		return err
	}
	d.health.set(ctx, nil)
	relist := time.NewTicker(d.cfg.Relist)
	defer relist.Stop()
	d.rested = nil
	for {
		if err := d.once(ctx, news, ended, relist.C); err != nil {
			return err
		}
	}
}

// once waits for one thing and sees to it. A storm of unknown cgroups must not become a storm of lists: after one, asks have to wait,
// but events do not, for a container that was just created is about to run.
func (d *dockerWatcher) once(ctx context.Context, news <-chan dockerEvent, ended <-chan error, relist <-chan time.Time) error {
	asked := d.asked
	if d.rested != nil {
		asked = nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-ended:
		return errors.Join(errors.New("events ended"), err)
	case event := <-news:
		return d.event(ctx, event)
	case <-relist:
		d.running = map[string]uint32{}
		return d.list(ctx)
	case <-d.rested:
		d.rested = nil
		return nil
	case <-asked:
		err := d.list(ctx)
		d.rested = time.After(d.cfg.AskInterval)
		return err
	}
}

// readEvents decodes events until the body ends.
func readEvents(ctx context.Context, body io.Reader, news chan<- dockerEvent) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 64<<10), maxEventBytes)
	for lines.Scan() {
		var event dockerEvent
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return fmt.Errorf("decode event: %w", err)
		}
		select {
		case news <- event:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return lines.Err()
}

// event passes one event on.
func (d *dockerWatcher) event(ctx context.Context, event dockerEvent) error {
	id, action := event.Actor.ID, event.Action
	if id == "" {
		id = event.ID
	}
	if action == "" {
		action = event.Status
	}
	switch action {
	case "create", "start", "rename", "restart":
		task, err := d.inspect(ctx, id)
		if errors.Is(err, errGone) {
			return nil // over before it could be asked for
		}
		if err != nil {
			return err
		}
		if task.PID != 0 {
			d.running[id] = task.PID
		}
		return d.send(ctx, workload.Update{Running: []workload.Task{task}})
	case "die", "died", "destroy", "remove":
		delete(d.running, id)
		return d.send(ctx, workload.Update{Gone: []workload.Ref{{Namespace: d.socket.Namespace, ID: id}}})
	}
	return nil
}

// list asks for all that run and describes those that are new.
func (d *dockerWatcher) list(ctx context.Context) error {
	var all []struct {
		ID string `json:"Id"`
	}
	if err := d.read(ctx, "/containers/json", &all); err != nil {
		return err
	}
	var known, fresh []workload.Task
	for _, c := range all {
		if pid, ok := d.running[c.ID]; ok { // described before
			known = append(known, workload.Task{Ref: workload.Ref{Namespace: d.socket.Namespace, ID: c.ID}, PID: pid})
			continue
		}
		task, err := d.inspect(ctx, c.ID)
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil {
			return err
		}
		if task.PID != 0 {
			d.running[c.ID] = task.PID
			fresh = append(fresh, task)
		}
	}
	return d.send(ctx, workload.Update{Complete: true, Running: append(known, fresh...)})
}

func (d *dockerWatcher) send(ctx context.Context, u workload.Update) error {
	select {
	case d.updates <- u:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask wants a list soon. It does not block.
func (d *dockerWatcher) ask() {
	select {
	case d.asked <- struct{}{}:
	default:
	}
}

func (d *dockerWatcher) news() <-chan workload.Update { return d.updates }
func (d *dockerWatcher) state() *health               { return &d.health }
func (d *dockerWatcher) namespace() string            { return d.socket.Namespace }

// Package eventlog asks the correlator's flight recorder for a workload's events. Data in: what a person asked for, in words; data out:
// answers, in order, to a printer.
package eventlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/cli/internal/show"
)

// Query is what a person asked for.
type Query struct {
	// Workload is as in correlator.v1.ReadEventsRequest, Incident too.
	Workload, Incident string
	// Since and Until are times, or how long ago; empty is no bound.
	Since, Until string
	Kinds        []string
	Limit        uint32
}

// Request is the query at a time.
func (q Query) Request(now time.Time) (*correlatorv1.ReadEventsRequest, error) {
	r := &correlatorv1.ReadEventsRequest{Workload: q.Workload, Incident: q.Incident, Kinds: q.Kinds, Limit: q.Limit}
	var err error
	if r.Since, err = moment(q.Since, now); err != nil {
		return nil, fmt.Errorf("--since: %w", err)
	}
	if r.Until, err = moment(q.Until, now); err != nil {
		return nil, fmt.Errorf("--until: %w", err)
	}
	if r.GetUntil() != nil && r.GetUntil().AsTime().Before(r.GetSince().AsTime()) {
		return nil, errors.New("--until: it is before --since")
	}
	return r, nil
}

// moment reads "5m", which is so long before now, or a time.
func moment(text string, now time.Time) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // no bound
	}
	if ago, err := time.ParseDuration(text); err == nil {
		if ago < 0 {
			return nil, fmt.Errorf("%s is negative: it is how long ago", text)
		}
		return timestamppb.New(now.Add(-ago)), nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return nil, fmt.Errorf("%q is neither how long ago (5m) nor a time (2026-01-02T15:04:05Z)", text)
	}
	return timestamppb.New(at), nil
}

// Printer writes answers.
type Printer struct {
	Out io.Writer
	// Notes is for what is said beside them; nil for nobody.
	Notes io.Writer
	JSON  bool
	Paint show.Painter
}

// Print writes one.
func (p Printer) Print(answer *correlatorv1.ReadEventsResponse) error {
	if p.JSON {
		return show.JSONLine(p.Out, answer)
	}
	switch kind := answer.GetAnswer().(type) {
	case *correlatorv1.ReadEventsResponse_Event:
		return show.Event(p.Out, kind.Event, p.Paint)
	case *correlatorv1.ReadEventsResponse_Gap:
		return show.Gap(p.Out, kind.Gap, p.Paint)
	case *correlatorv1.ReadEventsResponse_End:
		if kind.End.GetMore() && p.Notes != nil {
			fmt.Fprintf(p.Notes, "There is more: go on with --since %s, or ask for more with --limit.\n", kind.End.GetLast().AsTime().Format(time.RFC3339Nano))
		}
	}
	return nil
}

// Read hands over every answer to a request.
func Read(ctx context.Context, conn grpc.ClientConnInterface, request *correlatorv1.ReadEventsRequest, take func(*correlatorv1.ReadEventsResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := correlatorv1.NewFlightRecorderServiceClient(conn).ReadEvents(ctx, request)
	if err != nil {
		return err
	}
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := take(answer); err != nil {
			return err
		}
	}
}

const (
	// askAgain is how often is asked for what is new.
	askAgain = time.Second
	// overlap is how far back is asked each time: events are on disk somewhat later than they happened, and not in order.
	overlap = 5 * time.Second
)

// Follow is Read, and then hands over what comes, until ctx ends; the request's limit is not looked at. A correlator that is away is
// waited for.
func Follow(ctx context.Context, conn grpc.ClientConnInterface, request *correlatorv1.ReadEventsRequest, take func(*correlatorv1.ReadEventsResponse) error) error {
	const most = 100_000
	request.Limit = most
	f := follower{before: map[string]bool{}, take: take}
	for first := true; ; first = false {
		f.now, f.last, f.more = map[string]bool{}, request.GetSince().AsTime(), false
		f.first = first
		err := Read(ctx, conn, request, f.see)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && (first || status.Code(err) != codes.Unavailable):
			return err
		case err != nil || f.more: // only a part was seen
			maps.Copy(f.before, f.now)
		default:
			f.before = f.now
		}
		request.Since = timestamppb.New(f.next(request.GetSince().AsTime()))
		if f.more {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(askAgain):
		}
	}
}

// next is from when on is asked after an answer to a question from since on.
func (f *follower) next(since time.Time) time.Time {
	switch again := f.last.Add(-overlap); {
	case again.After(since):
		return again
	case !f.more:
		return since
	case f.last.After(since): // the overlap alone is more than the limit
		return f.last
	}
	return since.Add(1) // or it would be asked the same for ever
}

// follower passes over what it has seen in the answer before.
type follower struct {
	before, now map[string]bool
	last        time.Time
	first, more bool
	take        func(*correlatorv1.ReadEventsResponse) error
}

func (f *follower) see(answer *correlatorv1.ReadEventsResponse) error {
	id := ""
	switch kind := answer.GetAnswer().(type) {
	case *correlatorv1.ReadEventsResponse_Event:
		id = idOf(kind.Event)
		if at := kind.Event.GetTime().AsTime(); at.After(f.last) {
			f.last = at
		}
	case *correlatorv1.ReadEventsResponse_Gap:
		id = fmt.Sprint("gap ", kind.Gap.GetReason(), kind.Gap.GetTime().AsTime())
	case *correlatorv1.ReadEventsResponse_Workload:
		if !f.first {
			return nil
		}
	case *correlatorv1.ReadEventsResponse_End:
		f.more = kind.End.GetMore()
		return nil // there is none
	}
	if id != "" {
		f.now[id] = true
		if f.before[id] {
			return nil
		}
	}
	return f.take(answer)
}

func idOf(e *eventv1.Event) string {
	return fmt.Sprint(e.GetRing(), e.GetPosition(), e.GetBoottimeNs(), e.GetTid(), show.Class(e))
}

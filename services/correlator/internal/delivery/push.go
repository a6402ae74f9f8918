package delivery

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	uplinkv1 "github.com/palisade-sec/palisade/api/palisade/uplink/v1"
)

// Waits between two attempts to push.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = time.Second
)

const (
	// maxPushBytes bounds one call, far below the 32 MiB that gRPC takes: a batch that it does not take would come
	// again for ever, and nothing after it.
	maxPushBytes = 4 << 20
	// maxFindingBytes is what the uplink takes of one finding.
	maxFindingBytes = 1 << 20
	// maxExhausted is how often a single finding is tried that the uplink has no room for. It answers the same to one
	// that is too large and to one that comes too soon, and the second passes: this is some twenty seconds.
	maxExhausted = 24
	// maxExhaustedBatch is the same for several, which are then tried in smaller parts.
	maxExhaustedBatch = 3
)

// RunPushes hands findings to the uplink until ctx ends. What has not been taken by then comes again with the events
// it was made of.
func (d *Delivery) RunPushes(ctx context.Context) error {
	var items, next []Item
	for {
		var err error
		if items, next, err = d.gather(ctx, next); err != nil {
			return err
		}
		if err := d.deliver(ctx, items); err != nil {
			return err
		}
	}
}

// gather waits for one finding, unless it is given one, and then a little for others. What would make the call too
// large is returned as next.
func (d *Delivery) gather(ctx context.Context, items []Item) (batch, next []Item, err error) {
	if len(items) == 0 {
		select {
		case item := <-d.pushes:
			items = append(items, item)
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	size := proto.Size(items[0].Finding)
	linger := time.NewTimer(d.uplinkConfig.Linger)
	defer linger.Stop()
	for len(items) < d.uplinkConfig.Batch {
		select {
		case item := <-d.pushes:
			if size += proto.Size(item.Finding); size > maxPushBytes {
				return items, []Item{item}, nil
			}
			items = append(items, item)
		case <-linger.C:
			return items, nil, nil
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	return items, nil, nil
}

// deliver pushes until the uplink has taken every item, or will never take it.
func (d *Delivery) deliver(ctx context.Context, items []Item) error {
	retry := firstRetry
	for attempt := 1; ; attempt++ {
		err := d.push(ctx, items)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.note(ctx, &d.uplinkErr, err, "uplink")
		switch {
		case err == nil:
			d.done(items, outcomeStored)
			return nil
		case hopeless(err, items), exhausted(err, items, attempt):
			return d.separate(ctx, items, err)
		}
		d.metrics.pushes.WithLabelValues(outcomeRetried).Inc()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retry):
		}
		retry = min(2*retry, lastRetry)
	}
}

// separate delivers in halves, and so in the end one by one, what cannot be delivered together. A single finding that
// the uplink will never take is counted and given up, so that it does not hold up all others for ever.
func (d *Delivery) separate(ctx context.Context, items []Item, err error) error {
	if len(items) == 1 {
		d.log.ErrorContext(ctx, "Gave up a finding", "finding", items[0].Finding.GetId(), "rule", items[0].Finding.GetRule(),
			"bytes", proto.Size(items[0].Finding), "err", err)
		d.done(items, outcomeGivenUp)
		return nil
	}
	half := len(items) / 2
	if err := d.deliver(ctx, items[:half]); err != nil {
		return err
	}
	return d.deliver(ctx, items[half:])
}

func (d *Delivery) push(ctx context.Context, items []Item) error {
	request := &uplinkv1.PushFindingsRequest{Findings: make([]*findingv1.Finding, len(items))}
	for i, item := range items {
		request.Findings[i] = item.Finding
	}
	ctx, cancel := within(ctx, items[0].Span, d.uplinkConfig.Timeout)
	defer cancel()
	_, err := d.uplink.PushFindings(ctx, request)
	return err
}

// hopeless says whether trying again is of no use: the uplink refuses the content, or it cannot even be written.
func hopeless(err error, items []Item) bool {
	code := status.Code(err)
	if code == codes.InvalidArgument {
		return true
	}
	return code == codes.Internal && slices.ContainsFunc(items, func(item Item) bool {
		_, err := proto.Marshal(item.Finding)
		return err != nil
	})
}

// exhausted says whether to stop trying the same call because the uplink has no room for it: several findings may pass
// in parts, one that is too large never will, and any other is not worth holding up all that wait behind it for ever.
func exhausted(err error, items []Item, attempt int) bool {
	if status.Code(err) != codes.ResourceExhausted {
		return false
	}
	if len(items) > 1 {
		return attempt >= maxExhaustedBatch
	}
	return attempt >= maxExhausted || proto.Size(items[0].Finding) > maxFindingBytes
}

func (d *Delivery) done(items []Item, outcome string) {
	d.metrics.pushes.WithLabelValues(outcome).Inc()
	d.metrics.findings.WithLabelValues(outcome).Add(float64(len(items)))
	for _, item := range items {
		item.Done()
	}
}

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

// RunPushes hands findings to the uplink until ctx ends. What has not been taken by then comes again with the events
// it was made of.
func (d *Delivery) RunPushes(ctx context.Context) error {
	for {
		items, err := d.gather(ctx)
		if err != nil {
			return err
		}
		if err := d.deliver(ctx, items); err != nil {
			return err
		}
	}
}

// gather waits for one finding, and then a little for others.
func (d *Delivery) gather(ctx context.Context) ([]Item, error) {
	var items []Item
	select {
	case item := <-d.pushes:
		items = append(items, item)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	linger := time.NewTimer(d.uplinkConfig.Linger)
	defer linger.Stop()
	for len(items) < d.uplinkConfig.Batch {
		select {
		case item := <-d.pushes:
			items = append(items, item)
		case <-linger.C:
			return items, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return items, nil
}

// deliver pushes until the uplink has taken every item, or will never take it.
func (d *Delivery) deliver(ctx context.Context, items []Item) error {
	retry := firstRetry
	for {
		err := d.push(ctx, items)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.note(ctx, &d.uplinkErr, err, "uplink")
		switch {
		case err == nil:
			d.done(items, outcomeStored)
			return nil
		case hopeless(err, items):
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

// separate delivers one by one what cannot be delivered together. A single finding that the uplink will never take is
// counted and given up, so that it does not hold up all others for ever.
func (d *Delivery) separate(ctx context.Context, items []Item, err error) error {
	if len(items) == 1 {
		d.log.ErrorContext(ctx, "Gave up a finding", "finding", items[0].Finding.GetId(), "rule", items[0].Finding.GetRule(), "err", err)
		d.done(items, outcomeGivenUp)
		return nil
	}
	for i := range items {
		if err := d.deliver(ctx, items[i:i+1]); err != nil {
			return err
		}
	}
	return nil
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

func (d *Delivery) done(items []Item, outcome string) {
	d.metrics.pushes.WithLabelValues(outcome).Inc()
	d.metrics.findings.WithLabelValues(outcome).Add(float64(len(items)))
	for _, item := range items {
		item.Done()
	}
}

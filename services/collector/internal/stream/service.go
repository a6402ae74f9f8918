package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
)

// snapshotBatch is how many processes go into one batch of the snapshot. With 32 KiB of arguments each they stay below
// the 4 MiB that gRPC clients take by default.
const snapshotBatch = 64

type conversation = grpc.BidiStreamingServer[collectorv1.StreamEventsRequest, collectorv1.StreamEventsResponse]

// StreamEvents implements EventService. It returns when the subscriber leaves.
func (s *Stream) StreamEvents(peer conversation) error {
	release, err := s.subscribe()
	if err != nil {
		return toStatus(err)
	}
	defer release()
	opening, err := peer.Recv()
	if err != nil {
		return err
	}
	if err := s.take(opening); err != nil {
		return toStatus(err)
	}
	ctx, cancel := context.WithCancelCause(peer.Context())
	defer cancel(nil)
	// Recv returns when the handler does, because gRPC then ends the stream's context.
	go func() { cancel(s.receive(peer)) }()
	err = s.send(ctx, peer)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return toStatus(err)
}

// receive takes acknowledgements until the subscriber closes its side.
func (s *Stream) receive(peer conversation) error {
	for {
		request, err := peer.Recv()
		if err != nil {
			return err
		}
		if err := s.take(request); err != nil {
			return err
		}
	}
}

// take does what a request asks for.
func (s *Stream) take(request *collectorv1.StreamEventsRequest) error {
	if interest := request.GetInterest(); interest != nil && s.kernel.Want != nil {
		if err := s.kernel.Want(interest); err != nil {
			return fmt.Errorf("%w: %w", ErrInterest, err)
		}
	}
	return s.acknowledge(request.GetAcknowledgedBatch())
}

// send delivers what existed before, then what is unacknowledged, then what comes.
func (s *Stream) send(ctx context.Context, peer conversation) error {
	existing, err := s.kernel.Snapshot(ctx)
	if err != nil {
		return err
	}
	for events := range slices.Chunk(existing, snapshotBatch) {
		batch := &collectorv1.StreamEventsResponse{BootId: s.identity.BootID, Instance: s.identity.Instance, Epoch: s.identity.Epoch, Events: events}
		if err := peer.Send(batch); err != nil {
			return err
		}
	}
	var sent uint64
	for {
		batch, err := s.next(ctx, sent)
		if err != nil {
			return err
		}
		if err := peer.Send(batch); err != nil {
			return err
		}
		sent = batch.GetBatch()
	}
}

// toStatus maps this package's errors to what the subscriber is told.
func toStatus(err error) error {
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, ErrSubscribed):
		return status.Error(codes.ResourceExhausted, "the event stream has a subscriber")
	case errors.Is(err, ErrNotSent):
		return status.Error(codes.InvalidArgument, "acknowledged a batch that was never sent")
	case errors.Is(err, ErrInterest):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "canceled")
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Internal, "internal error")
}

// Package server answers the uplink's unix socket: findings come in from the correlator, and the operator reads them.
// It checks what comes in and leaves the rest to the queue.
package server

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	uplinkv1 "github.com/palisade-sec/palisade/api/palisade/uplink/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/services/uplink/internal/queue"
)

const (
	maxFindings     = 1000
	maxFindingBytes = 1 << 20
	defaultList     = 1000
	maxList         = 10_000
	// maxListBytes keeps an answer below the 32 MiB that a caller takes.
	maxListBytes = 16 << 20
	// watchFindings and watchBytes are how far a watcher may be behind. The findings are whole, and in memory.
	watchFindings = 4096
	watchBytes    = 8 << 20
)

// Callers says who may call what. A method without a line is refused.
func Callers() rpc.Callers {
	return rpc.Callers{
		uplinkv1.FindingService_ListFindings_FullMethodName:  {rpc.Operator},             // palisade findings
		uplinkv1.FindingService_WatchFindings_FullMethodName: {rpc.Operator},             // palisade findings -f
		uplinkv1.QueueService_PushFindings_FullMethodName:    {"correlator", "enforcer"}, // who finds, and who refuses containers
	}
}

// Queue keeps findings; *queue.Queue does.
type Queue interface {
	Put(ctx context.Context, findings []*findingv1.Finding) (stored int, err error)
	List(ctx context.Context, bounds queue.Bounds, since time.Time) ([]queue.Stored, error)
	Watch(bounds queue.Bounds) *queue.Watcher
}

// Server implements QueueService and FindingService.
type Server struct {
	uplinkv1.UnimplementedQueueServiceServer
	uplinkv1.UnimplementedFindingServiceServer
	queue Queue
	log   *slog.Logger
}

// New returns a server in front of queue.
func New(queue Queue, log *slog.Logger) *Server { return &Server{queue: queue, log: log} }

// Register adds both services.
func (s *Server) Register(registrar grpc.ServiceRegistrar) {
	uplinkv1.RegisterQueueServiceServer(registrar, s)
	uplinkv1.RegisterFindingServiceServer(registrar, s)
}

// PushFindings stores findings durably.
func (s *Server) PushFindings(
	ctx context.Context, req *uplinkv1.PushFindingsRequest,
) (*uplinkv1.PushFindingsResponse, error) {
	if n := len(req.GetFindings()); n > maxFindings {
		return nil, status.Errorf(codes.InvalidArgument, "findings: %d are more than %d", n, maxFindings)
	}
	for i, finding := range req.GetFindings() {
		if size := proto.Size(finding); size > maxFindingBytes {
			return nil, status.Errorf(codes.InvalidArgument, "findings[%d]: %d bytes are more than %d", i, size, maxFindingBytes)
		}
	}
	stored, err := s.queue.Put(ctx, req.GetFindings())
	if err != nil {
		return nil, s.fault(ctx, err)
	}
	return &uplinkv1.PushFindingsResponse{Stored: uint32(stored)}, nil //nolint:gosec // at most maxFindings
}

// ListFindings returns the newest findings, oldest first.
func (s *Server) ListFindings(
	ctx context.Context, req *uplinkv1.ListFindingsRequest,
) (*uplinkv1.ListFindingsResponse, error) {
	limit := int(req.GetLimit())
	if limit > maxList {
		return nil, status.Errorf(codes.InvalidArgument, "limit: %d is more than %d", limit, maxList)
	}
	if limit == 0 {
		limit = defaultList
	}
	var since time.Time
	if req.GetSince() != nil {
		if err := req.GetSince().CheckValid(); err != nil {
			return nil, status.Error(codes.InvalidArgument, "since: not a time")
		}
		since = req.GetSince().AsTime()
	}
	found, err := s.queue.List(ctx, queue.Bounds{Findings: limit, Bytes: maxListBytes}, since)
	if err != nil {
		return nil, s.fault(ctx, err)
	}
	answer := &uplinkv1.ListFindingsResponse{Findings: make([]*uplinkv1.StoredFinding, 0, len(found))}
	for _, stored := range found {
		answer.Findings = append(answer.Findings, toWire(stored))
	}
	return answer, nil
}

// WatchFindings sends the last findings and then each one as it is stored.
func (s *Server) WatchFindings(
	req *uplinkv1.WatchFindingsRequest, stream grpc.ServerStreamingServer[uplinkv1.WatchFindingsResponse],
) error {
	if req.GetBacklog() > maxList {
		return status.Errorf(codes.InvalidArgument, "backlog: %d is more than %d", req.GetBacklog(), maxList)
	}
	ctx := stream.Context()
	// Watch first, so that nothing falls between the backlog and what comes after it.
	watcher := s.queue.Watch(queue.Bounds{Findings: watchFindings, Bytes: watchBytes})
	defer watcher.Stop()
	// The caller may wait for this before it makes something happen.
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	var sent uint64
	if req.GetBacklog() > 0 {
		backlog, err := s.queue.List(ctx, queue.Bounds{Findings: int(req.GetBacklog()), Bytes: maxListBytes}, time.Time{})
		if err != nil {
			return s.fault(ctx, err)
		}
		for _, stored := range backlog {
			if err := stream.Send(&uplinkv1.WatchFindingsResponse{Finding: toWire(stored)}); err != nil {
				return err
			}
			sent = stored.Sequence
		}
	}
	return follow(stream, watcher, sent)
}

// follow sends what comes after the finding with sequence sent. A caller that reads nothing holds up only this call:
// the watcher is cut, and the caller learns it when it reads again.
func follow(
	stream grpc.ServerStreamingServer[uplinkv1.WatchFindingsResponse], watcher *queue.Watcher, sent uint64,
) error {
	for {
		stored, err := watcher.Next(stream.Context())
		if errors.Is(err, queue.ErrSlow) {
			return status.Error(codes.ResourceExhausted, "too slow: findings were skipped, call again")
		}
		if err != nil {
			return status.FromContextError(err).Err()
		}
		if stored.Sequence <= sent {
			continue
		}
		if err := stream.Send(&uplinkv1.WatchFindingsResponse{Finding: toWire(stored)}); err != nil {
			return err
		}
	}
}

func toWire(stored queue.Stored) *uplinkv1.StoredFinding {
	return &uplinkv1.StoredFinding{Finding: stored.Finding, Delivered: stored.Delivered}
}

// fault maps the queue's errors to codes. Callers learn no paths.
func (s *Server) fault(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, queue.ErrID):
		return status.Error(codes.InvalidArgument, "findings: "+queue.ErrID.Error())
	case errors.Is(err, queue.ErrNoSpace): // logged by the queue, once
		// Not ResourceExhausted: that is gRPC's word for a call that will always be too large, this one passes.
		return status.Error(codes.Unavailable, "disk is nearly full: findings are refused until there is room")
	case errors.Is(err, queue.ErrClosed):
		return status.Error(codes.Unavailable, "shutting down")
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	}
	s.log.ErrorContext(ctx, "Could not use the queue", "err", err)
	return status.Error(codes.Unavailable, "queue cannot be used")
}

package guard

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
)

// Service implements collector.v1.GuardService.
type Service struct {
	collectorv1.UnimplementedGuardServiceServer
	table   *Table
	canDeny bool
	log     *slog.Logger
}

// NewService serves a table. canDeny is false in the tier that kills instead.
func NewService(table *Table, canDeny bool, log *slog.Logger) *Service {
	return &Service{table: table, canDeny: canDeny, log: log}
}

// ApplyGuards answers InvalidArgument, naming every faulty guard, or ResourceExhausted if there are more than fit.
func (s *Service) ApplyGuards(ctx context.Context, req *collectorv1.ApplyGuardsRequest) (*collectorv1.ApplyGuardsResponse, error) {
	generation, err := s.table.Apply(req.GetGuards())
	switch {
	case errors.Is(err, ErrInvalid):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case err != nil:
		s.log.ErrorContext(ctx, "Could not apply guards", "err", err)
		return nil, status.Error(codes.ResourceExhausted, "the guards do not fit; those from before are in force")
	}
	s.log.InfoContext(ctx, "Applied guards", "count", len(req.GetGuards()))
	return &collectorv1.ApplyGuardsResponse{Generation: generation, CanDeny: s.canDeny}, nil
}

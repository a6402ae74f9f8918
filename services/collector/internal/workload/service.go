package workload

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
)

// Service implements collector.v1.WorkloadService.
type Service struct {
	collectorv1.UnimplementedWorkloadServiceServer
	table *Table
	log   *slog.Logger
}

// NewService serves a table.
func NewService(table *Table, log *slog.Logger) *Service { return &Service{table: table, log: log} }

// RegisterWorkloads answers InvalidArgument, naming the first faulty one, or ResourceExhausted if there are more than fit.
func (s *Service) RegisterWorkloads(ctx context.Context, req *collectorv1.RegisterWorkloadsRequest) (*collectorv1.RegisterWorkloadsResponse, error) {
	err := s.table.Register(req.GetCgroupIds())
	switch {
	case errors.Is(err, ErrInvalid):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case err != nil:
		s.log.ErrorContext(ctx, "Could not register workloads", "err", err)
		return nil, status.Error(codes.ResourceExhausted, "the workloads do not fit; none of these is registered")
	}
	return &collectorv1.RegisterWorkloadsResponse{}, nil
}

// ForgetWorkloads answers Internal if the kernel refuses.
func (s *Service) ForgetWorkloads(ctx context.Context, req *collectorv1.ForgetWorkloadsRequest) (*collectorv1.ForgetWorkloadsResponse, error) {
	if err := s.table.Forget(req.GetCgroupIds()); err != nil {
		s.log.ErrorContext(ctx, "Could not forget workloads", "err", err)
		return nil, status.Error(codes.Internal, "the kernel refused to forget a workload")
	}
	return &collectorv1.ForgetWorkloadsResponse{}, nil
}

package server

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/model"
)

// Models is ModelService and ModelControlService.
type Models struct {
	correlatorv1.UnimplementedModelServiceServer
	correlatorv1.UnimplementedModelControlServiceServer
	learner *model.Learner
}

// NewModels returns a server over a learner, nil if nothing is learned.
func NewModels(learner *model.Learner) *Models { return &Models{learner: learner} }

// Register adds the services to a server.
func (s *Models) Register(registrar grpc.ServiceRegistrar) {
	correlatorv1.RegisterModelServiceServer(registrar, s)
	correlatorv1.RegisterModelControlServiceServer(registrar, s)
}

var errModelsOff = status.Error(codes.FailedPrecondition, "models are off: set models.enabled in the correlator's configuration, or start the node with --models")

// ListModels returns a summary of every model.
func (s *Models) ListModels(context.Context, *correlatorv1.ListModelsRequest) (*correlatorv1.ListModelsResponse, error) {
	if s.learner == nil {
		return nil, errModelsOff
	}
	answer := &correlatorv1.ListModelsResponse{}
	for _, m := range s.learner.List() {
		answer.Models = append(answer.Models, message(m))
	}
	return answer, nil
}

// ExportModel returns one model, whole.
func (s *Models) ExportModel(_ context.Context, r *correlatorv1.ExportModelRequest) (*correlatorv1.ExportModelResponse, error) {
	if s.learner == nil {
		return nil, errModelsOff
	}
	m, yaml, noted, err := s.learner.Export(r.GetImageDigest())
	if err != nil {
		return nil, statusOf(err)
	}
	answer := &correlatorv1.ExportModelResponse{Model: message(m), Yaml: yaml}
	for _, n := range noted {
		answer.Anomalies = append(answer.Anomalies, &correlatorv1.ModelAnomaly{
			Family: n.Family, Fact: n.Fact, Count: n.Count, First: timestamppb.New(time.Unix(n.First, 0)), Last: timestamppb.New(time.Unix(n.Last, 0)),
		})
	}
	return answer, nil
}

// ImportModel puts a model in the place of the one of the same image.
func (s *Models) ImportModel(_ context.Context, r *correlatorv1.ImportModelRequest) (*correlatorv1.ImportModelResponse, error) {
	if s.learner == nil {
		return nil, errModelsOff
	}
	m, err := s.learner.Import(r.GetYaml())
	if err != nil {
		return nil, statusOf(err)
	}
	return &correlatorv1.ImportModelResponse{Model: message(m)}, nil
}

// RelearnModel lets a model learn again.
func (s *Models) RelearnModel(_ context.Context, r *correlatorv1.RelearnModelRequest) (*correlatorv1.RelearnModelResponse, error) {
	if s.learner == nil {
		return nil, errModelsOff
	}
	m, err := s.learner.Relearn(r.GetImageDigest(), r.GetKeep())
	if err != nil {
		return nil, statusOf(err)
	}
	return &correlatorv1.RelearnModelResponse{Model: message(m)}, nil
}

// FreezeModel makes a model active for good.
func (s *Models) FreezeModel(_ context.Context, r *correlatorv1.FreezeModelRequest) (*correlatorv1.FreezeModelResponse, error) {
	if s.learner == nil {
		return nil, errModelsOff
	}
	m, err := s.learner.Freeze(r.GetImageDigest(), r.GetThaw())
	if err != nil {
		return nil, statusOf(err)
	}
	return &correlatorv1.FreezeModelResponse{Model: message(m)}, nil
}

// statusOf is a learner's error for the caller.
func statusOf(err error) error {
	code := codes.Internal
	switch {
	case errors.Is(err, model.ErrUnknown):
		code = codes.NotFound
	case errors.Is(err, model.ErrFrozen):
		code = codes.FailedPrecondition
	case errors.Is(err, model.ErrFull):
		code = codes.ResourceExhausted
	case errors.Is(err, model.ErrMalformed):
		code = codes.InvalidArgument
	}
	return status.Error(code, err.Error())
}

func message(m model.Summary) *correlatorv1.Model {
	answer := &correlatorv1.Model{
		ImageDigest: m.Digest, Image: m.Image, State: m.State, Frozen: m.Frozen, Observed: durationpb.New(m.Observed), Needed: durationpb.New(m.Needed),
		Starts: m.Starts, Containers: m.Containers, Suspected: m.Suspected, Skipped: m.Skipped, Lost: m.Lost, Extended: durationpb.New(m.Extended),
	}
	for _, f := range m.Families {
		answer.Families = append(answer.Families, &correlatorv1.ModelFamily{
			Name: f.Name, Facts: f.Facts, Overflowed: f.Overflowed, Anomalies: f.Anomalies,
		})
	}
	return answer
}

// Package server answers what people ask the correlator: which rules are in force, how often each matched, what the pipeline takes in,
// what it took in before, and what images were learned to do. Data in: the compiled rules and their counts, a tap, the flight recorder,
// a learner; data out: RuleService, RecordingService, FlightRecorderService, ModelService, ModelControlService.
package server

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/tap"
)

// Callers says who may call what. A method without a line is refused.
func Callers() rpc.Callers {
	return rpc.Callers{
		correlatorv1.FlightRecorderService_ListRecorded_FullMethodName:    {rpc.Operator}, // palisade events
		correlatorv1.FlightRecorderService_ReadEvents_FullMethodName:      {rpc.Operator}, // palisade events --workload, palisade incidents --events
		correlatorv1.ModelControlService_FreezeModel_FullMethodName:       {rpc.Operator}, // palisade models freeze
		correlatorv1.ModelControlService_ImportModel_FullMethodName:       {rpc.Operator}, // palisade models import
		correlatorv1.ModelControlService_RelearnModel_FullMethodName:      {rpc.Operator}, // palisade models relearn
		correlatorv1.ModelService_ExportModel_FullMethodName:              {rpc.Operator}, // palisade models show, export
		correlatorv1.ModelService_ListModels_FullMethodName:               {rpc.Operator}, // palisade models list
		correlatorv1.RecordingService_Record_FullMethodName:               {rpc.Operator}, // palisade record
		correlatorv1.RegistrationService_RegisterContainer_FullMethodName: {"enforcer"},   // which the shim asked
		correlatorv1.RegistrationService_ReportShim_FullMethodName:        {"enforcer"},
		correlatorv1.RuleService_ListRules_FullMethodName:                 {rpc.Operator}, // palisade rules
	}
}

// Rules are those in force, and how often each matched. They must be safe for concurrent use.
type Rules interface {
	Set() *rule.Set
	Of(r *rule.Rule) uint64
}

// Server is RuleService and RecordingService.
type Server struct {
	correlatorv1.UnimplementedRuleServiceServer
	correlatorv1.UnimplementedRecordingServiceServer
	rules Rules
	tap   *tap.Tap
}

// New returns a server of the rules in force and a tap of the pipeline.
func New(rules Rules, tap *tap.Tap) *Server { return &Server{rules: rules, tap: tap} }

// Register adds the services to a server.
func (s *Server) Register(registrar grpc.ServiceRegistrar) {
	correlatorv1.RegisterRuleServiceServer(registrar, s)
	correlatorv1.RegisterRecordingServiceServer(registrar, s)
}

// Record streams what the pipeline takes in until the caller has enough.
func (s *Server) Record(_ *correlatorv1.RecordRequest, stream correlatorv1.RecordingService_RecordServer) error {
	reader, err := s.tap.Open()
	if err != nil {
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	defer reader.Close()
	for {
		entry, err := reader.Next(stream.Context())
		if err != nil {
			return status.FromContextError(err).Err()
		}
		if err := stream.Send(&correlatorv1.RecordResponse{Entry: entry}); err != nil {
			return err
		}
	}
}

// ListRules returns every rule, in the order of the files. One that is switched off has the effect disable.
func (s *Server) ListRules(context.Context, *correlatorv1.ListRulesRequest) (*correlatorv1.ListRulesResponse, error) {
	answer := &correlatorv1.ListRulesResponse{}
	for _, r := range s.rules.Set().Rules() {
		effect := word(r.Effect.String(), "EFFECT_")
		if !r.Enabled {
			effect = "disable"
		}
		answer.Rules = append(answer.Rules, &correlatorv1.Rule{
			Name: r.Name, Description: r.Description, Condition: r.Condition, Priority: word(r.Priority.String(), "PRIORITY_"), Effect: effect,
			Tags: r.Tags, Matches: s.rules.Of(r),
		})
	}
	return answer, nil
}

// word is "alert" for EFFECT_ALERT.
func word(enum, prefix string) string { return strings.ToLower(strings.TrimPrefix(enum, prefix)) }

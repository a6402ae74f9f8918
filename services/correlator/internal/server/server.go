// Package server answers what people ask the correlator: which rules are in force, and how often each matched. Data in:
// the compiled rules and their counts; data out: RuleService.
package server

import (
	"context"
	"strings"

	"google.golang.org/grpc"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	"github.com/palisade-sec/palisade/internal/rpc"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
)

// Callers says who may call what. A method without a line is refused.
func Callers() rpc.Callers {
	return rpc.Callers{
		correlatorv1.RuleService_ListRules_FullMethodName: {rpc.Operator}, // palisade rules
	}
}

// Rules are those in force, and how often each matched. They must be safe for concurrent use.
type Rules interface {
	Set() *rule.Set
	Of(r *rule.Rule) uint64
}

// Server is RuleService.
type Server struct {
	correlatorv1.UnimplementedRuleServiceServer
	rules Rules
}

// New returns a server of the rules in force.
func New(rules Rules) *Server { return &Server{rules: rules} }

// Register adds the service to a server.
func (s *Server) Register(registrar grpc.ServiceRegistrar) {
	correlatorv1.RegisterRuleServiceServer(registrar, s)
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

// Package action serves the enforcer's contract: it turns calls into acts, and counts what became of them.
//
// In: requests of callers the kernel has named. Out: actions. It decides nothing; package kill does.
package action

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/internal/unixsock"
	"github.com/palisade-sec/palisade/services/enforcer/internal/kill"
)

// Killer judges and kills.
type Killer interface {
	Kill(kill.Request) kill.Result
}

// Service implements enforcer.v1.ActionService.
type Service struct {
	enforcerv1.UnimplementedActionServiceServer
	killer  Killer
	metrics *metrics
}

// New returns a service whose figures are in registry.
func New(killer Killer, registry prometheus.Registerer) (*Service, error) {
	m, err := newMetrics(registry)
	if err != nil {
		return nil, err
	}
	return &Service{killer: killer, metrics: m}, nil
}

// outcomes maps kill's words to the contract's.
var outcomes = map[kill.Outcome]findingv1.ActionOutcome{
	kill.Done:    findingv1.ActionOutcome_ACTION_OUTCOME_DONE,
	kill.Failed:  findingv1.ActionOutcome_ACTION_OUTCOME_FAILED,
	kill.Gone:    findingv1.ActionOutcome_ACTION_OUTCOME_GONE,
	kill.Refused: findingv1.ActionOutcome_ACTION_OUTCOME_REFUSED,
}

// Kill answers every request that names a process; what was not done, and why, is in the answer.
func (s *Service) Kill(ctx context.Context, req *enforcerv1.KillRequest) (*enforcerv1.KillResponse, error) {
	caller, ok := callerOf(ctx)
	if !ok {
		return nil, status.Error(codes.PermissionDenied, "not allowed")
	}
	if req.GetProcess() == nil {
		return nil, status.Error(codes.InvalidArgument, "process is missing")
	}
	began := time.Now()
	result := s.killer.Kill(kill.Request{
		BootID:          req.GetBootId(),
		PID:             req.GetProcess().GetPid(),
		StartBoottimeNs: req.GetProcess().GetStartBoottimeNs(),
		Rule:            req.GetRule(),
		Effect:          req.GetEffect(),
		FindingID:       req.GetFindingId(),
		ContainerID:     req.GetContainerId(),
		PeerUID:         caller.UID,
		PeerPID:         caller.PID,
	})
	s.metrics.observe(result, time.Since(began))
	return &enforcerv1.KillResponse{Action: &findingv1.Action{
		Kind:    findingv1.ActionKind_ACTION_KIND_KILL,
		Outcome: outcomes[result.Outcome],
		Detail:  result.Detail,
		Time:    timestamppb.New(result.Time),
	}}, nil
}

// Status describes the enforcer to people.
func (s *Service) Status(context.Context) *processv1.GetStatusResponse {
	answer := &processv1.GetStatusResponse{Healthy: true}
	counts := s.metrics.counts()
	for _, outcome := range []kill.Outcome{kill.Done, kill.Refused, kill.Gone, kill.Failed} {
		fact := &processv1.Fact{Name: "kills " + string(outcome), Value: strconv.FormatUint(counts[outcome], 10)}
		answer.Facts = append(answer.Facts, fact)
	}
	if s.metrics.unaudited.Load() {
		answer.Healthy = false
		answer.Warnings = append(answer.Warnings, "the audit log cannot be written, so nothing is killed: make room for it")
	}
	return answer
}

func callerOf(ctx context.Context) (unixsock.Peer, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return unixsock.Peer{}, false
	}
	caller, ok := p.AuthInfo.(unixsock.Peer)
	return caller, ok
}

package action

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/unixsock"
	"github.com/palisade-sec/palisade/services/enforcer/internal/kill"
)

// verdicts answers with the next of its results and keeps what it was asked.
type verdicts struct {
	results []kill.Result
	asked   []kill.Request
}

func (v *verdicts) Kill(req kill.Request) kill.Result {
	v.asked = append(v.asked, req)
	next := v.results[0]
	v.results = v.results[1:]
	return next
}

func newService(t *testing.T, results ...kill.Result) (*Service, *verdicts) {
	t.Helper()
	v := &verdicts{results: results}
	s, err := New(v, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

func fromCorrelator(t *testing.T) context.Context {
	t.Helper()
	return peer.NewContext(t.Context(), &peer.Peer{AuthInfo: unixsock.Peer{PID: 77, UID: 10002}})
}

func request() *enforcerv1.KillRequest {
	return &enforcerv1.KillRequest{
		BootId: "b", Process: &eventv1.ProcessKey{Pid: 5, StartBoottimeNs: 6}, Rule: "r", FindingId: "f", ContainerId: "c", Effect: "prevent",
	}
}

func TestKillPassesEverythingOn(t *testing.T) {
	s, v := newService(t, kill.Result{Outcome: kill.Done, Detail: "killed"})
	answer, err := s.Kill(fromCorrelator(t), request())
	if err != nil {
		t.Fatal(err)
	}
	got := answer.GetAction()
	if got.GetKind() != findingv1.ActionKind_ACTION_KIND_KILL || got.GetOutcome() != findingv1.ActionOutcome_ACTION_OUTCOME_DONE || got.GetDetail() != "killed" {
		t.Errorf("Kill = %v, want a kill that is done", got)
	}
	want := []kill.Request{{BootID: "b", PID: 5, StartBoottimeNs: 6, Rule: "r", FindingID: "f", ContainerID: "c", Effect: "prevent", PeerUID: 10002, PeerPID: 77}}
	if diff := cmp.Diff(want, v.asked); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestKillNeedsAProcessAndACaller(t *testing.T) {
	s, _ := newService(t)
	if _, err := s.Kill(fromCorrelator(t), &enforcerv1.KillRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("Kill of no process = %v, want InvalidArgument", err)
	}
	if _, err := s.Kill(t.Context(), request()); status.Code(err) != codes.PermissionDenied {
		t.Errorf("Kill by nobody = %v, want PermissionDenied", err)
	}
}

func TestEveryOutcomeHasAWord(t *testing.T) {
	for _, outcome := range []kill.Outcome{kill.Done, kill.Refused, kill.Gone, kill.Failed} {
		if outcomes[outcome] == findingv1.ActionOutcome_ACTION_OUTCOME_UNSPECIFIED {
			t.Errorf("outcome %s has no value in the contract", outcome)
		}
	}
}

func TestStatusSaysThatNothingCanBeRecorded(t *testing.T) {
	s, _ := newService(t,
		kill.Result{Outcome: kill.Failed, Reason: kill.ReasonAudit},
		kill.Result{Outcome: kill.Refused, Reason: kill.ReasonBudget},
		kill.Result{Outcome: kill.Done},
	)
	for i, want := range []bool{false, false, true} {
		if _, err := s.Kill(fromCorrelator(t), request()); err != nil {
			t.Fatal(err)
		}
		if got := s.Status(t.Context()); got.GetHealthy() != want || (len(got.GetWarnings()) == 0) != want {
			t.Errorf("after call %d: status = %v, want healthy %v", i, got, want)
		}
	}
}

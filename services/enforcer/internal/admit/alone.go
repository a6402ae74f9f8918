package admit

import (
	"context"
	"log/slog"
	"sync/atomic"

	"google.golang.org/protobuf/types/known/timestamppb"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/admission"
	"github.com/palisade-sec/palisade/internal/admission/kept"
	"github.com/palisade-sec/palisade/services/enforcer/internal/identity"
)

// alone passes on what was decided in the enforcer's place.
type alone struct {
	store  *kept.Store
	outbox outbox
	log    *slog.Logger
	count  atomic.Uint64
}

// look takes the lines that were left.
func (a *alone) look(ctx context.Context) {
	lines, err := a.store.Take()
	if err != nil {
		a.log.ErrorContext(ctx, "What was decided without the enforcer cannot all be read", "err", err)
	}
	for _, line := range lines {
		a.count.Add(1)
		a.outbox.Register(&correlatorv1.RegisterContainerRequest{
			ContainerId: line.Container, Event: enforcerv1.AdmissionEvent_ADMISSION_EVENT_CREATE, Verdict: verdictOf(line.Denied), Rule: line.Rule,
			RegisteredAt: timestamppb.New(line.Time),
		})
		if f := told(line); f != nil {
			a.outbox.Tell(f)
		}
	}
}

func verdictOf(denied bool) enforcerv1.AdmissionVerdict {
	if denied {
		return enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_DENY
	}
	return enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_ALLOW
}

// told is a line as a finding, nil if there is nothing to tell.
func told(line kept.Line) *findingv1.Finding {
	if line.Effect == string(admission.Ignore) {
		return nil
	}
	v := verdict{
		ID: verdictID(line.Container, line.Time), Time: line.Time, Text: line.Text,
		Container: identity.Container{Image: line.Image, Digest: line.Digest}, Question: &admission.Question{Container: line.Container},
		Decision: admission.Decision{Rule: line.Rule, Effect: admission.Effect(line.Effect), Denied: line.Denied, DryRun: line.DryRun},
		Alone:    "the enforcer did not answer the runC shim in time",
	}
	if line.Fault != "" {
		v.Alone += ", and what it had kept could not be used: " + line.Fault
	}
	if v.Decision.Rule == "" {
		v.Decision.Rule = noRule
	}
	if v.Text == "" {
		v.Text = "A container was created that no rule was held against"
	}
	return v.finding()
}

// noRule is the rule of a finding that none of the policy's is behind.
const noRule = "Admission without a policy"

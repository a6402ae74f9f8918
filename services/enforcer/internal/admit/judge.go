package admit

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/admission"
	"github.com/palisade-sec/palisade/internal/unixsock"
	"github.com/palisade-sec/palisade/services/enforcer/internal/audit"
	"github.com/palisade-sec/palisade/services/enforcer/internal/identity"
)

// finder finds out whose a container is.
type finder interface {
	Find(ctx context.Context, bundle, id string) (identity.Container, error)
}

// outbox carries word to the other processes.
type outbox interface {
	// Register is for those that may wait, RegisterNow for one that must be known before it goes on, if the correlator answers in time.
	Register(registration *correlatorv1.RegisterContainerRequest)
	RegisterNow(ctx context.Context, registration *correlatorv1.RegisterContainerRequest)
	Tell(finding *findingv1.Finding)
	ReportShim(inForce bool, places []*correlatorv1.ShimPlace)
}

// auditor keeps records. Append returns once the record is on disk.
type auditor interface {
	Append(record audit.Record) error
}

// judge answers questions.
type judge struct {
	host    string
	finder  finder
	policy  func() *admission.Policy
	images  *images
	audit   auditor
	outbox  outbox
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time
}

// verdict is what was decided about a container.
type verdict struct {
	// ID is the finding's: 32 hex digits.
	ID        string
	Container identity.Container
	Question  *admission.Question
	Decision  admission.Decision
	Text      string
	Time      time.Time
	// Undelivered says why the shim did not hear of it, nil if it did.
	Undelivered error
	// Alone says that the enforcer was not asked, or not in time, and why: another decided, by what is kept on disk.
	Alone string
}

// answer decides about a create. A start is only passed on.
func (j *judge) answer(ctx context.Context, q *enforcerv1.AdmissionRequest, shim unixsock.Peer) (*enforcerv1.AdmissionResponse, func(error)) {
	began := j.now()
	defer func() { j.metrics.seconds.Observe(j.now().Sub(began).Seconds()) }()
	registration := &correlatorv1.RegisterContainerRequest{
		ContainerId: q.GetContainerId(), Event: q.GetEvent(), CgroupId: q.GetCgroupId(), RegisteredAt: timestamppb.New(began),
	}
	allow := &enforcerv1.AdmissionResponse{Verdict: enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_ALLOW}
	switch q.GetEvent() {
	case enforcerv1.AdmissionEvent_ADMISSION_EVENT_CREATE:
		return j.create(ctx, q, shim, registration)
	case enforcerv1.AdmissionEvent_ADMISSION_EVENT_START:
		j.outbox.RegisterNow(ctx, registration)
	case enforcerv1.AdmissionEvent_ADMISSION_EVENT_UNSPECIFIED:
		// A newer shim asks what this enforcer does not know: that must not hold a container up.
	}
	j.metrics.answer(answerPassed)
	return allow, func(error) {}
}

// create decides, and sees to it that who has to know does.
func (j *judge) create(ctx context.Context, q *enforcerv1.AdmissionRequest, shim unixsock.Peer, registration *correlatorv1.RegisterContainerRequest) (
	*enforcerv1.AdmissionResponse, func(error),
) {
	response := &enforcerv1.AdmissionResponse{Verdict: enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_ALLOW}
	v, known := verdict{Time: j.now(), Decision: admission.Decision{Effect: admission.Ignore}}, false
	if policy := j.policy(); policy != nil {
		v, known = j.decide(ctx, policy, q), true
	}
	if v.Decision.Denied {
		response.Verdict, response.Message = enforcerv1.AdmissionVerdict_ADMISSION_VERDICT_DENY, v.Text
		j.record(v, audit.PhaseBefore, "", shim)
	}
	registration.Verdict, registration.Rule = response.GetVerdict(), v.Decision.Rule
	j.outbox.Register(registration)
	j.metrics.decided(v.Decision)
	return response, func(undelivered error) {
		v.Undelivered = undelivered
		if v.Decision.Denied {
			j.record(v, audit.PhaseAfter, outcome(undelivered), shim)
		}
		if v.Decision.Effect != admission.Ignore {
			j.outbox.Tell(v.finding())
		}
		if known {
			j.images.seen(v.Container, q.GetLayers(), v.Question.Report)
		}
	}
}

// decide asks who knows, and then the policy.
func (j *judge) decide(ctx context.Context, policy *admission.Policy, q *enforcerv1.AdmissionRequest) verdict {
	question := &admission.Question{Container: q.GetContainerId(), Spec: q.GetSpec(), Host: j.host}
	container, err := j.finder.Find(ctx, q.GetBundle(), q.GetContainerId())
	if err != nil {
		j.metrics.unknown.Inc()
		if !errors.Is(err, identity.ErrUnknown) {
			j.log.WarnContext(ctx, "A container's runtime does not tell of it", "container", q.GetContainerId(), "err", err)
		}
	}
	question.Image, question.Digest, question.Layers = container.Image, container.Digest, container.DiffIDs
	question.Namespace, question.Labels = container.Namespace, container.Labels
	question.Unsure = unsure(container, err)
	question.Report, question.NoReport = j.images.report(ctx, container, q.GetLayers())
	now := j.now()
	decision := policy.Decide(question, now)
	return verdict{
		ID: verdictID(q.GetContainerId(), now), Container: container, Question: question, Decision: decision,
		Text: decision.Text(question), Time: now,
	}
}

// unsure are the parts that may be other than they look. Found is what is known even with an error.
func unsure(found identity.Container, err error) []admission.Part {
	if err == nil && found.Image != "" {
		return nil
	}
	parts := []admission.Part{admission.PartImage}
	if err != nil && found.Runtime != "" {
		return append(parts, admission.PartLabels) // the image or the pod could not be asked for
	}
	if err != nil {
		parts = append(parts, admission.PartNamespace, admission.PartLabels)
	}
	return parts
}

// record keeps a refusal. One that cannot be kept is one nevertheless: not to refuse would be an attacker's way in. The status tells.
func (j *judge) record(v verdict, phase audit.Phase, outcome string, shim unixsock.Peer) {
	err := j.audit.Append(audit.Record{
		Time: j.now(), Phase: phase, Act: "refuse container", Outcome: outcome, Detail: lines(v.Text)[0], PID: shim.PID, Comm: "runc shim",
		Rule: v.Decision.Rule, Effect: string(v.Decision.Effect), FindingID: v.ID, ContainerID: v.Question.Container, PeerUID: shim.UID, PeerPID: shim.PID,
	})
	j.metrics.audited(err)
	if err != nil {
		j.log.Error("A refusal could not be recorded", "container", v.Question.Container, "err", err)
	}
}

func outcome(undelivered error) string {
	if undelivered != nil {
		return "failed"
	}
	return "done"
}

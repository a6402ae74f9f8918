package admit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/admission"
)

// verdictID is 32 hex digits. A container may be tried again under the same id, which is another verdict.
func verdictID(container string, at time.Time) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "admission\x00%s\x00%d", container, at.UnixNano()))
	return hex.EncodeToString(sum[:16])
}

// effects of a decision, in a finding's words.
var effects = map[admission.Effect]findingv1.Effect{
	admission.Alert: findingv1.Effect_EFFECT_ALERT,
	admission.Block: findingv1.Effect_EFFECT_BLOCK,
}

// maxLabels bounds the bytes of labels in a finding.
const maxLabels = 32 << 10

// finding is the verdict for people.
func (v verdict) finding() *findingv1.Finding {
	f := &findingv1.Finding{
		Id: v.ID, Time: timestamppb.New(v.Time), Rule: v.Decision.Rule, Priority: findingv1.Priority_PRIORITY_NOTICE,
		Effect: effects[v.Decision.Effect], Output: strings.Join(lines(v.Text), "; "), Tags: []string{"admission"},
		Workload: &findingv1.Workload{
			ContainerId: v.Question.Container, ContainerName: v.Container.Name, Image: v.Container.Image, ImageDigest: v.Container.Digest,
			Runtime: v.Container.Runtime, PodNamespace: v.Container.Namespace, Metadata: findingv1.MetadataState_METADATA_STATE_KNOWN,
			Labels: bounded(v.Container.Labels),
		},
	}
	if v.Container.Runtime == "" {
		f.Workload.Metadata = findingv1.MetadataState_METADATA_STATE_PENDING
	}
	if v.Decision.Effect == admission.Block {
		f.Priority = findingv1.Priority_PRIORITY_WARNING
		f.Action = v.action()
	}
	if v.Alone != "" {
		f.Output += "; decided in the enforcer's place: " + v.Alone
	}
	return f
}

// action is what became of a Block.
func (v verdict) action() *findingv1.Action {
	a := &findingv1.Action{Kind: findingv1.ActionKind_ACTION_KIND_REFUSE, Time: timestamppb.New(v.Time)}
	switch {
	case !v.Decision.Denied:
		a.Outcome, a.Detail = findingv1.ActionOutcome_ACTION_OUTCOME_REFUSED, "block: not refused (dry run)"
	case v.Undelivered != nil:
		a.Outcome = findingv1.ActionOutcome_ACTION_OUTCOME_FAILED
		a.Detail = "block: the shim did not wait for the answer, so another decided; the container may have been created"
	default:
		a.Outcome, a.Detail = findingv1.ActionOutcome_ACTION_OUTCOME_DONE, "block: the container was not created"
	}
	return a
}

// bounded is nil for labels that are too long for a finding.
func bounded(labels map[string]string) map[string]string {
	if raw, err := json.Marshal(labels); err != nil || len(raw) > maxLabels {
		return nil
	}
	return labels
}

// lines of a text without their indent.
func lines(text string) []string {
	all := strings.Split(text, "\n")
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	return all
}

package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/subscription"
)

const (
	// maxAncestors is how many ancestors a finding shows.
	maxAncestors = 32
	// maxArgv bounds the bytes of the process's own arguments; the event of an exec carries them whole.
	maxArgv = 8192
	// maxAncestorArgv bounds the bytes of each ancestor's.
	maxAncestorArgv = 512
)

// finding is the subject under judgement as a finding of a rule.
func (e *Engine) finding(r *rule.Rule) *findingv1.Finding {
	j := &e.judged
	return &findingv1.Finding{
		Id:          findingID(j.batch, j.event, r.Name),
		Time:        j.event.GetTime(),
		Rule:        r.Name,
		Priority:    r.Priority,
		Effect:      r.Effect,
		Output:      strings.ToValidUTF8(r.Output(&j.context), "\uFFFD"),
		Tags:        r.Tags,
		Workload:    j.context.Workload,
		Process:     describe(j.image, maxArgv),
		Ancestry:    ancestry(j.image),
		Event:       j.event,
		Traceparent: j.batch.GetTraceparent(),
	}
}

// findingID is the same whenever the same event meets the same rule: redelivery makes no second finding.
func findingID(b *subscription.Batch, event *eventv1.Event, rule string) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{
		b.GetBootId(), b.GetInstance(), strconv.FormatUint(event.GetSequence(), 10), rule,
	}, "\x00")))
	return hex.EncodeToString(sum[:])[:32]
}

// ancestry is a process's ancestors, its parent first.
func ancestry(p *field.Process) []*findingv1.Process {
	var out []*findingv1.Process
	for p = p.Parent; p != nil && len(out) < maxAncestors; p = p.Parent {
		out = append(out, describe(p, maxAncestorArgv))
	}
	return out
}

// describe is a process for people, with at most so many bytes of arguments.
func describe(p *field.Process, maxArgv int) *findingv1.Process {
	return &findingv1.Process{
		Key:  &eventv1.ProcessKey{Pid: p.Key.PID, StartBoottimeNs: p.Key.StartBoottimeNs},
		Name: p.Name, Exe: p.Exe, Argv: head(p.Argv, maxArgv), Uid: p.UID,
	}
}

// head is the first arguments, as many as fit whole into limit bytes.
func head(argv []string, limit int) []string {
	for i, arg := range argv {
		if limit -= len(arg) + 1; limit < 0 {
			return argv[:i]
		}
	}
	return argv
}

package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/process"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/subscription"
)

// finding is the subject under judgement as a finding of a rule.
func (e *Engine) finding(r *rule.Rule) *findingv1.Finding {
	f := e.describe(r.Name, r.Output(&e.judged.context))
	f.Priority, f.Effect, f.Tags = r.Priority, r.Effect, r.Tags
	if f.Incident != nil {
		f.Incident.Kind = r.Incident
	}
	return f
}

// describe is the subject under judgement as a finding of that name.
func (e *Engine) describe(rule, output string) *findingv1.Finding {
	j := &e.judged
	above, more := ancestry(j.image)
	return &findingv1.Finding{
		Id:          findingID(j.batch, j.event, rule),
		Time:        j.event.GetTime(),
		Rule:        rule,
		Output:      shorten(strings.ToValidUTF8(output, "\uFFFD"), maxOutput),
		Workload:    lightWorkload(j.context.Workload),
		Process:     program(j.image, maxExe, maxArgv),
		Ancestry:    above,
		AncestryCut: more,
		Event:       lightEvent(j.event),
		Traceparent: j.batch.GetTraceparent(),
		Incident:    e.incident(j.entry, j.image),
	}
}

// findingID is the same whenever the same event meets the same rule: redelivery makes no second finding. A record's event
// is known by its place on its ring, which outlives the collector. One that no record stands for is known by its number. A
// snapshot's events have no number either: there it is what the event is about, so that the next snapshot makes no second
// finding.
func findingID(b *subscription.Batch, event *eventv1.Event, rule string) string {
	parts := []string{b.GetBootId(), b.GetInstance(), decimal(event.GetSequence()), rule}
	switch {
	case event.GetRing() != 0 && b.GetEpoch() != "":
		parts = []string{b.GetBootId(), b.GetEpoch(), decimal(uint64(event.GetRing())), decimal(event.GetPosition()), rule}
	case event.GetSequence() == 0:
		process := event.GetProcess()
		parts = append(parts, decimal(uint64(process.GetPid())), decimal(process.GetStartBoottimeNs()), field.KindOf(event).String(),
			event.GetExisting().GetExe().GetPath()) // the process may run another program by the next snapshot
	}
	return shortSum(parts...)
}

// shortSum is a digest of texts, 32 hex digits.
func shortSum(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])[:32]
}

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }

// ancestry is a process's ancestors, first who started it, whether they live or not; and whether there were more.
func ancestry(p *field.Process) (out []*findingv1.Process, more bool) {
	for p.StartedBy() != nil {
		p = p.StartedBy()
		if len(out) == maxAncestors {
			return out, true
		}
		out = append(out, program(p, maxAncestorExe, maxAncestorArgv))
	}
	return out, p.AncestorsCut
}

// program is a process for people, with at most so many bytes of path and arguments.
func program(p *field.Process, maxExe, maxArgv int) *findingv1.Process {
	argv := head(p.Argv, maxArgv)
	if p.ArgvCut && (len(argv) == 0 || argv[len(argv)-1] != cutMark) {
		argv = append(slices.Clip(argv), cutMark)
	}
	return &findingv1.Process{
		Key:  &eventv1.ProcessKey{Pid: p.Key.PID, StartBoottimeNs: p.Key.StartBoottimeNs},
		Name: shorten(p.Name, maxName), Exe: shorten(p.Exe, maxExe), Argv: argv, Uid: p.UID,
	}
}

// incident is what a finding about the process belongs to, nil if the process is not known. It is derived and not remembered: a
// correlator that was restarted goes on with the same incident.
func (e *Engine) incident(entry *process.Entry, image *field.Process) *findingv1.Incident {
	if entry == nil {
		return nil
	}
	origin := image
	for range maxAncestors {
		above := e.tree.Parent(entry)
		if above == nil || !together(entry, above) {
			break
		}
		entry, origin = above, above.Image
	}
	sum := sha256.New()
	fmt.Fprintln(sum, e.judged.batch.GetBootId(), entry.Key.PID, entry.Key.StartBoottimeNs)
	return &findingv1.Incident{Id: hex.EncodeToString(sum.Sum(nil)[:16]), Origin: program(origin, maxAncestorExe, maxAncestorArgv)}
}

// together says whether a process and its parent are of one container; where neither is of one that is known, of one session in
// the same namespaces.
func together(entry, above *process.Entry) bool {
	if entry.Home != 0 || above.Home != 0 {
		return entry.Home == above.Home
	}
	return entry.PIDNS == above.PIDNS && entry.MntNS == above.MntNS && entry.Image.Session == above.Image.Session
}

// late makes a finding of the subject under judgement anew when somebody has claimed its cgroup, nil if somebody has already. It
// holds on to the event and the process, and not to their batch.
func (e *Engine) late(r *rule.Rule) func() *findingv1.Finding {
	if e.deps.Amendments == nil || !isPending(e.judged.context.Workload) {
		return nil
	}
	s := e.judged.subject
	s.event = proto.CloneOf(s.event)
	s.batch = &subscription.Batch{StreamEventsResponse: &collectorv1.StreamEventsResponse{
		BootId: s.batch.GetBootId(), Instance: s.batch.GetInstance(), Epoch: s.batch.GetEpoch(), Traceparent: s.batch.GetTraceparent(),
	}}
	return func() *findingv1.Finding {
		w, settled := e.index.Resolve(s.entry, s.place)
		if !settled || isPending(w) {
			return nil
		}
		e.consider(s, w)
		return e.finding(r)
	}
}

func isPending(w *findingv1.Workload) bool {
	return w.GetMetadata() == findingv1.MetadataState_METADATA_STATE_PENDING
}

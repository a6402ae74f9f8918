package model

import (
	"fmt"
	"math/bits"
	"strings"
	"time"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/interest"
)

// Anomaly is what a container did that its image was not learned to do: a finding in the making.
type Anomaly struct {
	Rule     string
	Priority findingv1.Priority
	Effect   findingv1.Effect
	Tags     []string
	// Output says what it was, and what was learned of that family.
	Output string
}

// Observe learns from an event, or says what is unusual about it. The answer is valid until the next call. An event that tells
// nothing new costs two look-ups and no memory.
func (l *Learner) Observe(s Sighting) []Anomaly {
	kind := field.KindOf(s.Event)
	if !Kinds.Has(kind) && s.Event.GetSyscallsUsed() == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tenantOf(s.Workload)
	if t == nil || t.model == nil {
		return nil
	}
	l.found = l.found[:0]
	if !t.known && (kind == field.KindExec || kind == field.KindExisting) {
		t.known = true
		if kind == field.KindExec && s.Started && t.model.state == Learning && !t.suspected {
			t.model.starts++
			t.model.dirty = true
		}
	}
	o := observation{l: l, t: t, s: s, at: secondsOf(s.Event, l.ticked)}
	o.event(kind)
	return l.found
}

func secondsOf(e *eventv1.Event, otherwise time.Time) int64 {
	if at := e.GetTime(); at != nil {
		return at.GetSeconds()
	}
	return otherwise.Unix()
}

// observation is one event under judgement.
type observation struct {
	l  *Learner
	t  *tenant
	s  Sighting
	at int64
}

func (o *observation) event(kind field.Kinds) {
	e := o.s.Event
	switch kind {
	case field.KindExec, field.KindExisting:
		o.program(kind == field.KindExisting)
		o.capabilities(e.GetCredentials().GetEffectiveCapabilities())
	case field.KindFileOpen:
		if access := interest.AccessOf(e.GetFileOpen().GetFlags()); access == interest.WriteOnly || access == interest.ReadWrite {
			o.directory(e.GetFileOpen().GetFile().GetPath())
		}
	case field.KindRename, field.KindLink:
		o.directory(e.GetFileChange().GetTarget().GetPath())
	case field.KindSymlink, field.KindMkdir, field.KindMknod, field.KindTruncate:
		o.directory(e.GetFileChange().GetFile().GetPath())
	case field.KindListen, field.KindBind:
		o.listens(kind, e.GetSocket())
	case field.KindConnect:
		c := e.GetConnect()
		o.outbound(c.GetFamily(), c.GetProtocol(), c.GetRemote().GetPort())
	case field.KindSend:
		c := e.GetSocket()
		o.outbound(c.GetFamily(), c.GetProtocol(), c.GetAddress().GetPort())
	case field.KindDNSQuestion:
		for _, q := range e.GetDns().GetQuestions() {
			o.named(Domains, q.GetName())
		}
	case field.KindCapset:
		if arguments := e.GetPrivilege().GetArguments(); len(arguments) > 0 && (!e.GetResultKnown() || e.GetResult() >= 0) {
			o.capabilities(arguments[0])
		}
	default:
		o.syscalls(e.GetAbi(), e.GetSyscallsUsed().GetNumbers())
	}
}

// program takes in that a program runs. One that ran before the collector did has perhaps lost its parent: it is unusual only if
// nobody ever started it.
func (o *observation) program(existing bool) {
	p := o.s.Process
	if p == nil || p.Exe == "" {
		return
	}
	f := Fact{Family: Programs, Name: strings.TrimSuffix(p.Exe, " (deleted)"), Parent: Outside}
	switch {
	case p.ExeMemfd || p.ExeUnlinked:
		f.Origin = FromMemory
	case p.ExeUpperLayer:
		f.Origin = FromUpperLayer
	}
	if !o.s.Started && p.StartedBy() != nil {
		f.Parent = strings.TrimSuffix(p.StartedBy().Exe, " (deleted)")
	}
	if existing && o.t.model.facts[f] == nil {
		for known := range o.t.model.facts {
			if known.Family == Programs && known.Name == f.Name && known.Origin == f.Origin {
				return
			}
		}
	}
	o.fact(f)
}

func (o *observation) directory(path string) {
	if d := directoryOf(path); d != "" {
		o.named(WrittenDirectories, d)
	}
}

// named takes in a name that is generalised first.
func (o *observation) named(family Family, name string) {
	o.l.buffer = fold(o.l.buffer[:0], name, family == Domains)
	if seen := o.t.model.facts[Fact{Family: family, Name: string(o.l.buffer)}]; seen != nil { // the compiler makes no string here
		o.known(seen)
		return
	}
	o.fact(Fact{Family: family, Name: string(o.l.buffer)})
}

func (o *observation) listens(kind field.Kinds, s *eventv1.Socket) {
	const inet, inet6, datagram = 2, 10, 2
	if s.GetFamily() != inet && s.GetFamily() != inet6 {
		return
	}
	if kind == field.KindBind && (s.GetType() != datagram || s.GetAddress().GetPort() == 0) {
		return // a stream listens, or calls; a port that the kernel chooses is known when it is used
	}
	o.fact(Fact{Family: ListeningPorts, Number: portNumber(protocolOf(s), s.GetAddress().GetPort())})
}

// protocolOf is the socket's, which is 0 if the caller left it to its type.
func protocolOf(s *eventv1.Socket) uint32 {
	switch {
	case s.GetProtocol() != 0:
		return s.GetProtocol()
	case s.GetType() == 1:
		return protocolTCP
	}
	return protocolUDP
}

func (o *observation) outbound(family, protocol, port uint32) {
	const inet, inet6 = 2, 10
	if family == inet || family == inet6 {
		o.fact(Fact{Family: OutboundPorts, Number: portNumber(protocol, port)})
	}
}

func (o *observation) capabilities(mask uint64) {
	m := o.t.model
	if m.state != Learning {
		mask &^= m.capabilities
	}
	for ; mask != 0; mask &= mask - 1 {
		o.fact(Fact{Family: Capabilities, Number: uint32(bits.TrailingZeros64(mask))}) //nolint:gosec // below 64
	}
}

func (o *observation) syscalls(abi eventv1.Abi, numbers []uint32) {
	for _, n := range numbers {
		if n < 1<<16 && abi > 0 && abi <= eventv1.Abi_ABI_X32 {
			o.fact(Fact{Family: Syscalls, Number: uint32(abi)<<16 | n}) //nolint:gosec // 1 to 3
		}
	}
}

// fact learns or judges one.
func (o *observation) fact(f Fact) {
	m := o.t.model
	if seen := m.facts[f]; seen != nil {
		o.known(seen)
		return
	}
	switch {
	case m.state == Learning && o.t.suspected:
		m.skipped++
		m.dirty = true
	case m.state == Learning:
		m.learn(f, o.at)
	case m.overflow[f.Family]: // it is not known what else there was
	default:
		m.note(f, o.at)
		if m.state == Active {
			o.report(f)
		}
	}
}

// known counts a fact that the model has, unless its container is under suspicion.
func (o *observation) known(seen *Seen) {
	if o.t.suspected && o.t.model.state == Learning {
		o.t.model.skipped++
		return
	}
	o.t.model.again(seen, o.at)
}

// report makes an anomaly of a fact: once for each container, or each time if something is to be done about it.
func (o *observation) report(f Fact) {
	r := &o.l.reactions[f.Family]
	if r.effect == findingv1.Effect_EFFECT_DISABLE {
		return
	}
	if _, before := o.t.reported[f]; r.effect == findingv1.Effect_EFFECT_ALERT {
		if before || len(o.t.reported) >= maxReported {
			return
		}
		if o.t.reported == nil {
			o.t.reported = map[Fact]struct{}{}
		}
		f.Name, f.Parent = strings.Clone(f.Name), strings.Clone(f.Parent)
		o.t.reported[f] = struct{}{}
	}
	m, family := o.t.model, families[f.Family]
	for i := range o.l.found {
		if a := &o.l.found[i]; a.Rule == family.rule { // one finding for each event and family
			a.Output += " | also " + f.String()
			return
		}
	}
	o.l.found = append(o.l.found, Anomaly{
		Rule: family.rule, Priority: r.priority, Effect: r.effect, Tags: r.tags,
		Output: fmt.Sprintf("%s | %s image=%s digest=%s container=%s | %s", family.rule, f, printable(o.s.Workload.GetImage()), m.digest,
			printable(o.s.Workload.GetContainerId()), m.evidence(f)),
	})
}

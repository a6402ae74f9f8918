package pipeline

import (
	"testing"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
)

func compile(t *testing.T, text string) *rule.Set {
	t.Helper()
	set, _, err := rule.Load(rule.Source{Name: "t.yaml", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestOtherRulesGoOnWithTheCounts(t *testing.T) {
	b := newBench(t, DefaultConfig())
	var told []*rule.Set
	b.deps.Adopted = func(set *rule.Set) { told = append(told, set) }
	b.host()
	old := b.matches.Set().Rules()[0]
	b.feed("one", open(50, 1, hostNS, 9, "/etc/shadow"))
	next := compile(t, testRules+"- rule: motd\n  desc: d\n  condition: evt.type = openat and fd.name = /etc/motd\n  output: o\n  priority: notice\n")
	b.adopt(next)
	b.feed("one", open(50, 1, hostNS, 9, "/etc/shadow"), open(50, 1, hostNS, 9, "/etc/motd"))
	b.want("shadow@host", "shadow@host", "motd@host")
	if len(told) != 1 || told[0] != next {
		t.Errorf("told of %d sets, want the new one once", len(told))
	}
	for i, want := range []uint64{2, 0, 1} {
		if r := next.Rules()[i]; b.matches.Of(r) != want {
			t.Errorf("%s matched %d times, want %d", r.Name, b.matches.Of(r), want)
		}
	}
	if got := b.matches.Of(old); got != 0 {
		t.Errorf("a rule that is not in force matched %d times", got)
	}
}

func TestAWindowIsCountedInEachWorkload(t *testing.T) {
	b := newBench(t, DefaultConfig())
	b.adopt(compile(t, `
- rule: thrice
  desc: d
  condition: evt.type = openat and fd.name = /etc/shadow
  output: o
  priority: notice
  window: {times: 3, within: 1s}
`))
	b.host()
	b.feed("one", exec(40, 20, ctrNS, 1001, "/app"))
	b.tell(running("c1", 40))
	shadow := func(pid, ns uint32, cgroup, ms uint64) *eventv1.Event {
		e := open(pid, 1, ns, cgroup, "/etc/shadow")
		e.BoottimeNs = 1e9 + ms*1e6
		return e
	}
	b.feed("one", shadow(50, hostNS, 9, 0), shadow(50, hostNS, 9, 900), shadow(40, ctrNS, 1001, 950), shadow(50, hostNS, 9, 1100))
	b.want()
	b.feed("one", shadow(50, hostNS, 9, 1800))
	b.want("thrice@host")
	b.feed("one", shadow(40, ctrNS, 1001, 1850), shadow(40, ctrNS, 1001, 1900), shadow(50, hostNS, 9, 1900))
	b.want("thrice@host", "thrice@c1")
}

func TestAConnectionIsKnownByTheNameThatWasAskedFor(t *testing.T) {
	b := newBench(t, DefaultConfig())
	b.adopt(compile(t, `
- rule: named
  desc: d
  condition: evt.type = connect and fd.sip.name = evil.example
  output: "%fd.sip.name"
  priority: notice
`))
	if got, want := b.matches.Set().Interest().String(), "exec fork exit connect dns_answer"; got != want {
		t.Errorf("interest = %s, want %s", got, want)
	}
	b.host()
	dns := base(50, 1, hostNS, 9)
	dns.Kind = &eventv1.Event_Dns{Dns: &eventv1.Dns{
		Response: true, Questions: []*eventv1.DnsQuestion{{Name: "evil.example"}}, Answers: []*eventv1.DnsAnswer{{Data: "192.0.2.1", Ttl: 5}},
	}}
	to := func(ip ...byte) *eventv1.Event {
		e := base(50, 1, hostNS, 9)
		e.Kind = &eventv1.Event_Connect{Connect: &eventv1.Connect{Family: 2, Protocol: 6, Remote: &eventv1.SocketAddress{Ip: ip, Port: 443}}}
		return e
	}
	b.feed("one", to(192, 0, 2, 1), dns, to(192, 0, 2, 2), to(192, 0, 2, 1))
	b.want("named@host")
	if got := b.sink.items[0].Finding.GetOutput(); got != "evil.example" {
		t.Errorf("output = %q, want the name", got)
	}
}

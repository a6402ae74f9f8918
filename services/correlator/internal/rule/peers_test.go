package rule_test

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
)

func (g gamble) address() string {
	return g.pick("10.0.0.1", "10.0.0.2", "10.1.0.1", "192.0.2.1", "0.0.0.0", "2001:db8::1", "2001:db8:1::1", "::ffff:10.0.0.1")
}

func (g gamble) network() string {
	return g.pick("10.0.0.0/8", "10.0.0.0/31", "0.0.0.0/0", "::/0", "2001:db8::/32", g.address())
}

func (g gamble) port() string { return g.pick("0", "22", "80", "443", "70000", "-1") }

func (g gamble) peerCheck() string {
	address, port := g.pick("fd.sip", "fd.rip", "fd.cip", "fd.ip", "fd.lip"), g.pick("fd.sport", "fd.rport", "fd.cport", "fd.port", "fd.lport")
	net := g.pick("fd.snet", "fd.rnet", "fd.net", "fd.cnet")
	switch g.IntN(10) {
	case 0, 1:
		return address + g.pick(" = ", " = ", " != ") + g.address()
	case 2, 3:
		return net + " in (" + g.network() + ", " + g.network() + ")"
	case 4, 5:
		return port + g.pick(" = ", " = ", " != ", " > ", " <= ") + g.port()
	case 6, 7:
		return port + " in (" + g.port() + ", " + g.port() + ")"
	case 8:
		return g.pick("evt.type = connect", "evt.type in (connect, sendto)", "evt.type != accept", "fd.sip exists", "fd.sport = val(fd.rport)")
	}
	return g.pick("proc.name = p", "proc.name = q", "fd.l4proto = tcp")
}

func (g gamble) peerCondition(depth int) string {
	if depth == 0 || g.IntN(6) == 0 {
		return g.peerCheck()
	}
	a, b := g.peerCondition(depth-1), g.peerCondition(depth-1)
	return g.pick("not ("+a+")", "("+a+" or "+b+")", "("+a+" and "+b+")", "("+a+" and "+b+")", "("+a+" and "+b+")")
}

func (g gamble) end() *eventv1.SocketAddress {
	ports := []uint32{0, 22, 80, 443, 65535}
	ip := netip.MustParseAddr(g.address())
	return &eventv1.SocketAddress{Ip: ip.AsSlice(), Port: ports[g.IntN(len(ports))]}
}

func (g gamble) connection() *field.Context {
	e := &eventv1.Event{Sequence: 1}
	switch g.IntN(4) {
	case 0:
		e.Kind = &eventv1.Event_Accept{Accept: &eventv1.Accept{Family: 2, Protocol: 6, Local: g.end(), Remote: g.end()}}
	case 1:
		e.Kind = &eventv1.Event_Socket{Socket: &eventv1.Socket{Operation: eventv1.SocketOperation_SOCKET_OPERATION_SEND, Family: 2, Protocol: 17, Address: g.end()}}
	default:
		e.Kind = &eventv1.Event_Connect{Connect: &eventv1.Connect{Family: 2, Protocol: 6, Local: g.end(), Remote: g.end()}}
	}
	return &field.Context{Event: e, Process: &field.Process{Name: g.pick("p", "q")}}
}

// Whatever the rules, a connection that one of them matches would have been recorded.
func TestTheInterestInPeersIsNeverNarrowerThanTheRules(t *testing.T) {
	var narrow, matches, refused int
	for seed := range uint64(2000) {
		g := gamble{rand.New(rand.NewPCG(seed, 9))} //nolint:gosec // a test's dice
		var text string
		for range 1 + g.IntN(2) {
			text += strings.Replace(ruleOf(g.peerCondition(3)), "rule: r", "rule: r"+g.pick("1", "2", "3")+g.address(), 1)
		}
		set, _, err := rule.Load(rule.Source{Name: "f", Data: []byte(text)})
		if err != nil {
			continue // two rules of one name
		}
		wanted := set.Interest()
		if !wanted.Peers.All {
			narrow++
		}
		for range 50 {
			c := g.connection()
			names, admitted := matched(set, c), wanted.Admits(c.Event)
			if len(names) > 0 && !admitted {
				t.Fatalf("seed %d: %q match, but the interest is %+v\n%v\n%s", seed, names, wanted, c.Event, text)
			}
			if len(names) > 0 {
				matches++
			}
			if !admitted && wanted.Kinds.Has(field.KindOf(c.Event)) {
				refused++
			}
		}
	}
	t.Logf("%d narrow interests, %d matches, %d events not of interest", narrow, matches, refused)
	if narrow < 300 || matches < 10_000 || refused < 5_000 {
		t.Errorf("the dice decide too little: %d narrow interests, %d matches, %d events not of interest", narrow, matches, refused)
	}
}

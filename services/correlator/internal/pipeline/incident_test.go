package pipeline

import (
	"testing"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// origins are the first argument of each finding's origin; ids their incidents.
func (b *bench) origins() (origins, ids []string) {
	for _, item := range b.sink.items {
		i := item.Finding.GetIncident()
		origins, ids = append(origins, i.GetOrigin().GetArgv()[0]), append(ids, i.GetId())
	}
	return origins, ids
}

func TestFindingsOfAContainersProcessesAreOneIncident(t *testing.T) {
	b := newBench(t, DefaultConfig())
	b.host()
	b.feed("one", exec(40, 20, ctrNS, 1001, "/bin/server"))
	b.tell(running("c1", 40))
	b.feed("one", exec(41, 40, ctrNS, 1001, "/bin/sh"), exec(42, 41, ctrNS, 1001, "/bin/evil"), exec(43, 40, ctrNS, 1001, "/bin/cat"),
		open(43, 40, ctrNS, 1001, "/etc/shadow"))
	b.feed("one", exec(50, 20, ctrNS, 1001, "/bin/bash"), exec(51, 50, ctrNS, 1001, "/bin/evil")) // executed in it
	b.want("evil@c1", "shadow@c1", "evil@c1")
	origins, ids := b.origins()
	if origins[0] != "/bin/server" || ids[1] != ids[0] {
		t.Errorf("origins %q, incidents %q: the first two do not belong to the server", origins, ids)
	}
	if origins[2] != "/bin/bash" || ids[2] == ids[0] {
		t.Errorf("origins %q, incidents %q: what was executed in the container is not an incident of its own", origins, ids)
	}
}

func TestFindingsOfAHostsSessionAreOneIncident(t *testing.T) {
	b := newBench(t, DefaultConfig())
	b.host()
	session := func(e *eventv1.Event, number uint32) *eventv1.Event {
		e.GetExec().Session = number
		return e
	}
	b.feed("one",
		session(exec(30, 1, hostNS, 5, "/bin/sshd"), 30),
		session(exec(31, 30, hostNS, 5, "/bin/bash"), 31), session(exec(32, 31, hostNS, 5, "/bin/evil"), 31),
		session(exec(33, 30, hostNS, 5, "/bin/zsh"), 33), session(exec(34, 33, hostNS, 5, "/bin/evil"), 33))
	origins, ids := b.origins()
	if len(origins) != 2 || origins[0] != "/bin/bash" || origins[1] != "/bin/zsh" || ids[0] == ids[1] {
		t.Errorf("origins %q, incidents %q, want one of each session", origins, ids)
	}
}

// Whoever restarts the correlator sees the same incident go on.
func TestAnIncidentOutlivesTheCorrelator(t *testing.T) {
	var ids []string
	for range 2 {
		b := newBench(t, DefaultConfig())
		b.host()
		b.feed("one", exec(40, 20, ctrNS, 1001, "/bin/server"))
		b.tell(running("c1", 40))
		b.feed("one", exec(41, 40, ctrNS, 1001, "/bin/evil"))
		_, id := b.origins()
		ids = append(ids, id...)
	}
	if len(ids) != 2 || ids[0] != ids[1] {
		t.Errorf("incidents %q, want the same twice", ids)
	}
}

package pipeline

import (
	"strings"
	"testing"
	"time"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	enforcerv1 "github.com/palisade-sec/palisade/api/palisade/enforcer/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/passage"
)

// guarded is a bench whose containers have to pass the shim that began after since, in ns of CLOCK_BOOTTIME.
func guarded(t *testing.T, since uint64, except ...string) (*bench, *passage.Book) {
	t.Helper()
	b := newBench(t, DefaultConfig())
	cfg := passage.DefaultConfig()
	cfg.Except = except
	book := passage.New(cfg)
	b.deps.Passage = book
	b.inForce(book, since)
	return b, book
}

func (b *bench) inForce(book *passage.Book, since uint64) {
	b.t.Helper()
	instance := ""
	for range 2 { // the first report is to a stranger
		answer, err := book.ReportShim(b.t.Context(), &correlatorv1.ReportShimRequest{SinceBoottimeNs: since, Instance: instance})
		if err != nil {
			b.t.Fatal(err)
		}
		instance = answer.GetInstance()
	}
}

// tick lets time pass, and does what is due.
func (b *bench) tick(d time.Duration) {
	b.t.Helper()
	b.clock = b.clock.Add(d)
	if err := b.Tick(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

func passed(t *testing.T, book *passage.Book, id string, cgroup uint64) {
	t.Helper()
	event := enforcerv1.AdmissionEvent_ADMISSION_EVENT_CREATE
	if cgroup != 0 {
		event = enforcerv1.AdmissionEvent_ADMISSION_EVENT_START
	}
	if _, err := book.RegisterContainer(t.Context(), &correlatorv1.RegisterContainerRequest{ContainerId: id, Event: event, CgroupId: cgroup}); err != nil {
		t.Fatal(err)
	}
}

const around = RuleWentAround

func TestB21AContainerThatWentAroundTheShimIsFound(t *testing.T) {
	b, book := guarded(t, 1)
	b.host()
	passed(t, book, "good", 0)
	passed(t, book, "nameless", 3003)
	b.feed("one", exec(40, 20, ctrNS, 1001, "/bin/sh"), exec(50, 20, ctrNS+1, 2002, "/bin/sh"), exec(60, 20, ctrNS+2, 3003, "/bin/sh"),
		exec(70, 20, ctrNS+3, 4004, "/bin/sh"))
	b.tell(running("good", 40))
	b.tell(running("bad", 50))
	b.tick(time.Second)
	b.want()                                             // its registration may still come
	b.feed("one", exec(51, 50, ctrNS+1, 2002, "/bin/x")) // another program of the same
	b.tick(5 * time.Second)
	b.want(around+"@bad", around+"@pending")
	f := b.sink.items[0].Finding
	if !strings.Contains(f.GetOutput(), "container bad") || f.GetProcess().GetExe() != "/bin/sh" || len(f.GetId()) != 32 {
		t.Errorf("finding = %v, want container bad and its first program", f)
	}
	b.feed("one", exec(71, 70, ctrNS+3, 4004, "/bin/x"))
	b.tell(running("late", 70)) // the nameless one has a name now, and is no other
	b.feed("one", exec(72, 70, ctrNS+3, 4004, "/bin/x"))
	b.tick(10 * time.Second)
	b.want(around+"@bad", around+"@pending")
}

func TestB21WhoNeedNotPassIsNotFound(t *testing.T) {
	b, book := guarded(t, 405, "exempt*")
	b.host()
	b.feed("one", exec(40, 20, ctrNS, 1001, "/bin/sh")) // began before the shim was in force: at 400
	b.feed("one", exec(50, 20, hostNS, 9, "/bin/service"))
	service := exec(51, 1, hostNS, 10, "/bin/service") // with mounts of its own
	service.Namespaces.Mnt = ctrNS + 5
	sandbox := exec(52, 1, hostNS, 11, "/bin/palisade-gate") // with pids of its own
	sandbox.Namespaces.Pid = ctrNS + 6
	b.feed("one", service, sandbox)
	b.tell(running("old", 40))
	b.feed("one", exec(53, 20, ctrNS, 1001, "/bin/sh")) // somebody enters the old one: docker exec
	b.feed("one", exec(60, 20, ctrNS+1, 2002, "/bin/sh"))
	b.tell(running("exempt-1", 60))
	b.tick(time.Second)
	b.tick(10 * time.Second)
	b.want()
	b.feed("one", exec(61, 20, ctrNS+2, 3003, "/bin/sh"))
	b.tell(running("late", 61))
	b.tick(time.Second)
	passed(t, book, "late", 0) // within the time for it
	b.tick(10 * time.Second)
	b.want()
	b.inForce(book, 0)
	b.feed("one", exec(70, 20, ctrNS+3, 4004, "/bin/sh"))
	b.tell(running("free", 70))
	b.tick(10 * time.Second)
	b.want() // the shim is not in force
	b.inForce(book, 750)
	b.feed("one", exec(71, 20, ctrNS+3, 4004, "/bin/sh"))
	b.tick(10 * time.Second)
	b.want() // it is again, and that one began before
}

// A correlator that begins anew sees who runs, and is told who passed before it is told to judge.
func TestB21ExistingContainersAreJudged(t *testing.T) {
	b, book := guarded(t, 1)
	existing := func(pid uint32, cgroup uint64) *eventv1.Event {
		e := base(pid, 20, ctrNS+uint32(cgroup), cgroup) //nolint:gosec // small
		e.Kind = &eventv1.Event_Existing{Existing: &eventv1.Exec{Exe: &eventv1.File{Path: "/bin/sh"}, Argv: []string{"/bin/sh"}}}
		return e
	}
	b.host()
	passed(t, book, "good", 0)
	b.feed("one", existing(40, 1001), existing(50, 2002))
	b.tell(running("good", 40))
	b.tell(running("bad", 50))
	b.tick(time.Second)
	b.tick(10 * time.Second)
	b.want(around + "@bad")
}

func TestB21WhatIsRememberedIsBounded(t *testing.T) {
	b, _ := guarded(t, 1)
	b.host()
	for i := range uint32(maxArrivals + 100) {
		b.feed("one", exec(1000+i, 20, ctrNS+i, uint64(10_000+i), "/bin/sh"))
	}
	b.tick(2 * time.Second)
	if n, m := len(b.arrivals.began), len(b.arrivals.suspects); n > maxArrivals || m > maxSuspects {
		t.Errorf("%d containers and %d suspects are remembered, want at most %d and %d", n, m, maxArrivals, maxSuspects)
	}
	b.tick(10 * time.Second)
	if n := len(b.sink.items); n == 0 || n > maxSuspects {
		t.Errorf("%d findings, want some, at most %d", n, maxSuspects)
	}
}

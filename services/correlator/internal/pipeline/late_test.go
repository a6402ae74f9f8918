package pipeline

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/amendment"
	"github.com/palisade-sec/palisade/services/correlator/internal/repeat"
)

// amending puts what stands between an engine and delivery in its place.
func (b *bench) amending() (*repeat.Folder, *amendment.Book) {
	b.t.Helper()
	registry := prometheus.NewRegistry()
	book, err := amendment.New(amendment.DefaultConfig(), b.sink, registry)
	if err != nil {
		b.t.Fatal(err)
	}
	folder, err := repeat.New(repeat.DefaultConfig(), book, registry)
	if err != nil {
		b.t.Fatal(err)
	}
	b.deps.Sink, b.deps.Amendments = folder, book
	return folder, book
}

func TestB18WhatWasToldAsPendingIsAmended(t *testing.T) {
	b := newBench(t, DefaultConfig())
	_, book := b.amending()
	settle := func() {
		if err := book.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	b.host()
	b.feed("one", exec(40, 20, ctrNS, 1001, "/bin/sh"), exec(41, 40, ctrNS, 1001, "/bin/evil", "x"), open(41, 40, ctrNS, 1001, "/etc/shadow"))
	b.pass(time.Second)
	settle() // nobody has claimed it yet
	b.want("evil@pending", "shadow@pending")
	later := exec(41, 40, ctrNS, 1001, "/bin/harmless")
	later.BoottimeNs = key(41).GetStartBoottimeNs() + 5
	b.feed("one", later)
	b.tell(running("c1", 40))
	settle()
	settle() // once
	b.want("evil@pending", "shadow@pending", "evil@c1", "shadow@c1")
	for i, output := range []string{"evil x", "read of /etc/shadow by evil"} {
		told, amended := b.sink.items[i].Finding, b.sink.items[i+2].Finding
		if amended.GetId() != told.GetId() || !amended.GetAmended() || told.GetAmended() || amended.GetOutput() != output || amended.GetWorkload().GetImage() != "img" {
			t.Errorf("amended = %v, want id %s, output %q, image img", amended, told.GetId(), output)
		}
		if amended.GetIncident().GetOrigin().GetArgv()[0] != "/bin/sh" {
			t.Errorf("incident = %v, want that of the container's first process", amended.GetIncident())
		}
	}
	// What the rule asked for was not done, and is not done now: the process may be a harmless one by now.
	if f := b.sink.items[2]; f.Kill != nil || f.Finding.GetAction().GetOutcome() != findingv1.ActionOutcome_ACTION_OUTCOME_REFUSED {
		t.Errorf("amended: kill = %v, action = %v, want none, and still refused", f.Kill, f.Finding.GetAction())
	}
}

// A finding that stands for several is amended as a whole.
func TestRepeatsAreAmendedTogether(t *testing.T) {
	b := newBench(t, DefaultConfig())
	folder, book := b.amending()
	b.host()
	b.feed("one", exec(40, 20, ctrNS, 1001, "/bin/cat"))
	for range 5 {
		b.feed("one", open(40, 20, ctrNS, 1001, "/etc/shadow"))
	}
	b.pass(time.Second)
	if err := folder.Tell(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.tell(running("c1", 40))
	if err := book.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.want("shadow@pending", "shadow@pending", "shadow@c1", "shadow@c1")
	told, amended := b.sink.items[1].Finding, b.sink.items[3].Finding
	if amended.GetId() != told.GetId() || amended.GetRepeats().GetCount() != 4 || amended.GetOutput() != told.GetOutput() || !strings.Contains(told.GetOutput(), "repeated 4 times") {
		t.Errorf("amended = %v, want what was told, %v", amended, told)
	}
}

package model

import (
	"fmt"
	"strings"
	"testing"
	"time"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

func TestFold(t *testing.T) {
	tests := []struct{ text, want string }{
		{"/var/log/nginx", "/var/log/nginx"},
		{"/usr/lib/x86_64-linux-gnu/python3.11", "/usr/lib/x86_64-linux-gnu/python3.*"},
		{"/proc/4711/task/4712", "/proc/*/task/*"},
		{"/tmp/build-8f3ab2c91d/x", "/tmp/build-*/x"},
		{"/tmp/tmp.aB3xYz", "/tmp/tmp.*"},
		{"/data/2026-11-25", "/data/*-11-25"},
		{"/srv/JavaScript/README", "/srv/JavaScript/README"},
		{"/run/9e107d9d372bb6826bd81d3542a419d6/s", "/run/*/s"},
		{"/", "/"},
		{"", ""},
	}
	for _, tt := range tests {
		if got := string(fold(nil, tt.text, false)); got != tt.want {
			t.Errorf("fold(%q) = %q, want %q", tt.text, got, tt.want)
		}
		if twice := string(fold(nil, tt.want, false)); twice != tt.want {
			t.Errorf("fold(%q) = %q, want the same", tt.want, twice)
		}
	}
	if got := string(fold(nil, "WWW.Example.COM", true)); got != "www.example.com" {
		t.Errorf("fold of a domain = %q, want lower case", got)
	}
}

func FuzzFold(f *testing.F) {
	f.Add("/tmp/tmp.aB3xYz/1")
	f.Fuzz(func(t *testing.T, text string) {
		once := string(fold(nil, text, true))
		if len(once) > len(text) || strings.Count(once, "/") > strings.Count(text, "/") {
			t.Errorf("fold(%q) = %q: longer, or deeper", text, once)
		}
	})
}

// TestOverflow: a model that is full says so, does not grow, and does not call unusual what it could not learn.
func TestOverflow(t *testing.T) {
	w := newWorld(t, testConfig())
	c := w.start("one")
	for i := range 2000 {
		w.write(c, fmt.Sprintf("/d%c%c%c/x", 'g'+rune(i%10), 'g'+rune(i/10%10), 'g'+rune(i/100)))
	}
	w.pass(16 * time.Second)
	if got := w.state(); got != "active" {
		t.Fatalf("state = %s, want active", got)
	}
	family := w.l.List()[0].Families[WrittenDirectories]
	if !family.Overflowed || family.Facts != 512 {
		t.Errorf("family = %+v, want 512 facts and overflowed", family)
	}
	if found := w.write(c, "/elsewhere/x"); len(found) != 0 {
		t.Errorf("an overflowed family is judged: %v", found)
	}
	if found := w.listen(c, 4444); len(found) != 1 {
		t.Errorf("other families are not judged: %v", found)
	}
	t.Run("long names", func(t *testing.T) {
		w := newWorld(t, testConfig())
		c := w.start("one")
		for i := range 100 {
			w.write(c, "/"+strings.Repeat("g", 4000)+string(rune('g'+i%10))+string(rune('g'+i/10))+"/x")
		}
		if m := w.l.models[testDigest]; m.nameBytes > maxNameBytes || !m.overflow[WrittenDirectories] {
			t.Errorf("%d bytes of names, overflowed: %v; want at most %d, true", m.nameBytes, m.overflow[WrittenDirectories], maxNameBytes)
		}
	})
}

// TestImagesAreBounded: the one that ran longest ago gives way, one in use or frozen never.
func TestImagesAreBounded(t *testing.T) {
	cfg := testConfig()
	cfg.Images = 2
	w := newWorld(t, cfg)
	of := func(i int) *findingv1.Workload {
		c := workloadOf(fmt.Sprint("c", i))
		c.ImageDigest = fmt.Sprintf("sha256:%064x", i)
		return c
	}
	for i := range 2 {
		w.exec(of(i), "/bin/a", Outside)
	}
	w.exec(of(2), "/bin/a", Outside)
	if _, err := w.l.find(of(2).GetImageDigest()); err == nil {
		t.Error("a third model while two are in use")
	}
	w.on = []*findingv1.Workload{of(1)}
	w.pass(forgetAfter + 2*time.Second)
	w.exec(of(2), "/bin/a", Outside)
	for i, want := range []bool{false, true, true} {
		if _, err := w.l.find(of(i).GetImageDigest()); (err == nil) != want {
			t.Errorf("model %d is there: %v, want %v", i, err == nil, want)
		}
	}
}

func TestReactions(t *testing.T) {
	cfg := testConfig()
	cfg.Anomalies = map[string]Reaction{
		"programs": {Priority: "critical", Effect: "prevent", Tags: []string{"mine"}}, "domains": {Effect: "disable"},
	}
	w := newWorld(t, cfg)
	c := w.start("one")
	w.pass(16 * time.Second)
	for range 2 { // each time: there is something to be done about it
		found := w.exec(c, "/bin/evil", Outside)
		if len(found) != 1 || found[0].Priority != findingv1.Priority_PRIORITY_CRITICAL || found[0].Effect != findingv1.Effect_EFFECT_PREVENT || found[0].Tags[0] != "mine" {
			t.Errorf("Observe() = %+v, want critical, prevent, mine", found)
		}
	}
	if found := w.ask(c, "evil.example"); len(found) != 0 {
		t.Errorf("a family that is disabled = %v, want nothing", found)
	}
	if found := w.write(c, "/x/y"); len(found) != 1 || found[0].Priority != findingv1.Priority_PRIORITY_WARNING {
		t.Errorf("a family with defaults = %+v, want warning", found)
	}
	cfg.Anomalies = map[string]Reaction{"colours": {}, "domains": {Priority: "loud"}, "programs": {Effect: "shout"}}
	for _, want := range []string{"colours", "domains.priority", "programs.effect"} {
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "models.anomalies") || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate() = %v, want %s", err, want)
		}
	}
}

// BenchmarkObserve is an event that tells nothing new.
func BenchmarkObserve(b *testing.B) {
	w := newWorld(b, testConfig())
	c := w.start("one")
	w.load(c)
	p := &field.Process{Exe: "/bin/web"}
	plain, folded := openForWriting("/var/log/web/access.log"), openForWriting("/tmp/upload-8f3ab2c91d/part")
	for _, state := range []State{Learning, Active} {
		w.l.models[testDigest].state = state
		b.Run(state.String()+"/write", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w.l.Observe(Sighting{Workload: c, Event: plain, Process: p})
			}
		})
		b.Run(state.String()+"/write folded", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w.l.Observe(Sighting{Workload: c, Event: folded, Process: p})
			}
		})
	}
}

// TestKnownEventsAllocateNothing pins what the benchmark shows.
func TestKnownEventsAllocateNothing(t *testing.T) {
	w := newWorld(t, testConfig())
	c := w.start("one")
	w.load(c)
	e, p := openForWriting("/tmp/upload-8f3ab2c91d/part"), &field.Process{Exe: "/bin/web"}
	if n := testing.AllocsPerRun(100, func() { w.l.Observe(Sighting{Workload: c, Event: e, Process: p}) }); n != 0 {
		t.Errorf("%v allocations for a known event, want 0", n)
	}
}

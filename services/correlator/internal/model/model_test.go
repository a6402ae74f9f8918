package model

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

const testDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// world is a learner on a clock of the test's.
type world struct {
	t     testing.TB
	l     *Learner
	clock time.Time
	on    []*findingv1.Workload
}

func testConfig() Config {
	cfg := DefaultConfig()
	cfg.Learn, cfg.DryRun = 10*time.Second, 5*time.Second
	return cfg
}

func newWorld(t testing.TB, cfg Config) *world {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, l: New(cfg, slog.New(slog.DiscardHandler)), clock: time.Unix(1_800_000_000, 0)}
	w.l.Tick(w.clock, nil)
	return w
}

func workloadOf(id string) *findingv1.Workload {
	return &findingv1.Workload{
		ContainerId: id, Image: "docker.io/library/web:1", ImageDigest: testDigest, Runtime: "default", Metadata: findingv1.MetadataState_METADATA_STATE_KNOWN,
	}
}

// start runs a container and the first program in it.
func (w *world) start(id string) *findingv1.Workload {
	c := workloadOf(id)
	w.on = append(w.on, c)
	w.exec(c, "/bin/web", Outside)
	return c
}

func (w *world) event(c *findingv1.Workload, e *eventv1.Event, p *field.Process, started bool) []Anomaly {
	e.Time = timestamppb.New(w.clock)
	return w.l.Observe(Sighting{Workload: c, Event: e, Process: p, Started: started})
}

func (w *world) exec(c *findingv1.Workload, exe, parent string) []Anomaly {
	e := &eventv1.Event{
		Credentials: &eventv1.Credentials{EffectiveCapabilities: 1<<0 | 1<<10},
		Kind:        &eventv1.Event_Exec{Exec: &eventv1.Exec{Exe: &eventv1.File{Path: exe}}},
	}
	return w.event(c, e, &field.Process{Exe: exe, Parent: &field.Process{Exe: parent}}, parent == Outside)
}

func (w *world) write(c *findingv1.Workload, path string) []Anomaly {
	return w.event(c, openForWriting(path), &field.Process{Exe: "/bin/web"}, false)
}

func openForWriting(path string) *eventv1.Event {
	return &eventv1.Event{Kind: &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{File: &eventv1.File{Path: path}, Flags: 0o101}}}
}

func (w *world) listen(c *findingv1.Workload, port uint32) []Anomaly {
	return w.event(c, &eventv1.Event{Kind: &eventv1.Event_Socket{Socket: &eventv1.Socket{
		Operation: eventv1.SocketOperation_SOCKET_OPERATION_LISTEN, Family: 2, Type: 1, Address: &eventv1.SocketAddress{Port: port},
	}}}, nil, false)
}

func (w *world) connect(c *findingv1.Workload, port uint32) []Anomaly {
	return w.event(c, &eventv1.Event{Kind: &eventv1.Event_Connect{Connect: &eventv1.Connect{
		Family: 10, Protocol: 6, Remote: &eventv1.SocketAddress{Port: port},
	}}}, nil, false)
}

func (w *world) ask(c *findingv1.Workload, name string) []Anomaly {
	return w.event(c, &eventv1.Event{Kind: &eventv1.Event_Dns{Dns: &eventv1.Dns{Questions: []*eventv1.DnsQuestion{{Name: name}}}}}, nil, false)
}

func (w *world) capset(c *findingv1.Workload, mask uint64) []Anomaly {
	return w.event(c, &eventv1.Event{Kind: &eventv1.Event_Privilege{Privilege: &eventv1.Privilege{
		Operation: eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_CAPSET, Arguments: []uint64{mask, mask, 0},
	}}}, nil, false)
}

func (w *world) calls(c *findingv1.Workload, numbers ...uint32) []Anomaly {
	return w.event(c, &eventv1.Event{Abi: eventv1.Abi_ABI_NATIVE, Kind: &eventv1.Event_SyscallsUsed{
		SyscallsUsed: &eventv1.SyscallsUsed{Numbers: numbers},
	}}, nil, false)
}

// load is what the image does all day.
func (w *world) load(c *findingv1.Workload) []Anomaly {
	var all []Anomaly
	for _, found := range [][]Anomaly{
		w.exec(c, "/bin/sh", "/bin/web"), w.write(c, "/var/log/web/access.log"), w.write(c, "/tmp/upload-8f3ab2c91d/part"),
		w.listen(c, 8080), w.connect(c, 5432), w.ask(c, "DB.internal"), w.capset(c, 1<<10), w.calls(c, 0, 1, 59),
	} {
		all = append(all, found...)
	}
	return all
}

func (w *world) pass(d time.Duration) {
	for range d / time.Second {
		w.clock = w.clock.Add(time.Second)
		w.l.Tick(w.clock, w.on)
	}
}

func (w *world) state() string {
	w.t.Helper()
	list := w.l.List()
	if len(list) != 1 {
		w.t.Fatalf("List() has %d models, want 1", len(list))
	}
	return list[0].State
}

// TestAnomalies is done-when 5 without a kernel: nothing when the load repeats, a finding for each kind of news.
func TestAnomalies(t *testing.T) {
	w := newWorld(t, testConfig())
	c := w.start("one")
	w.load(c)
	w.pass(10 * time.Second)
	if got := w.state(); got != "dry-run" {
		t.Fatalf("state after the learning time = %s, want dry-run", got)
	}
	if found := w.write(c, "/etc/cron.d/x"); len(found) != 0 {
		t.Errorf("in dry run Observe() = %v, want nothing", found)
	}
	w.pass(5 * time.Second)
	if got := w.state(); got != "active" {
		t.Fatalf("state after the dry run = %s, want active", got)
	}
	other := w.start("two")
	if found := append(w.load(c), w.load(other)...); len(found) != 0 {
		t.Errorf("the same load again: %v, want nothing", found)
	}
	tests := []struct {
		name string
		do   func() []Anomaly
		rule string
		want []string
	}{
		{"new program", func() []Anomaly { return w.exec(c, "/tmp/evil", "/bin/sh") }, "Unlearned program",
			[]string{"/tmp/evil (from image, parent /bin/sh)", "learned: 2 programs", "in 1 starts", "closest: /bin/"}},
		{"known program, new parent", func() []Anomaly { return w.exec(c, "/bin/sh", Outside) }, "Unlearned program",
			[]string{"parent outside", "closest: /bin/sh (from image, parent /bin/web), 1 times"}},
		{"new directory", func() []Anomaly { return w.write(c, "/etc/ld.so.preload") }, "Unlearned written directory", []string{"| /etc "}},
		{"new listening port", func() []Anomaly { return w.listen(c, 4444) }, "Unlearned listening port", []string{"tcp/4444", "closest: tcp/8080"}},
		{"new outbound port", func() []Anomaly { return w.connect(c, 3333) }, "Unlearned outbound port", []string{"tcp/3333"}},
		{"new domain", func() []Anomaly { return w.ask(c, "pool.miner.example") }, "Unlearned domain", []string{"pool.miner.example", "closest: db.internal"}},
		{"new capability", func() []Anomaly { return w.capset(c, 1<<21|1<<12) }, "Unlearned capability", []string{"CAP_NET_ADMIN", "also CAP_SYS_ADMIN"}},
		{"new system call", func() []Anomaly { return w.calls(c, 1, 425) }, "Unlearned system call", []string{"native 425"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			found := tt.do()
			if len(found) != 1 || found[0].Rule != tt.rule {
				t.Fatalf("Observe() = %v, want one %q", found, tt.rule)
			}
			for _, want := range append(tt.want, testDigest) {
				if !strings.Contains(found[0].Output, want) {
					t.Errorf("output %q does not have %q", found[0].Output, want)
				}
			}
			if again := tt.do(); len(again) != 0 {
				t.Errorf("the same again = %v, want nothing: it was told", again)
			}
		})
	}
	s := w.l.List()[0]
	if got := s.Families[WrittenDirectories].Anomalies; got != 3 { // /etc/cron.d in the dry run, /etc twice
		t.Errorf("anomalies of directories = %d, want 3", got)
	}
}

func TestStates(t *testing.T) {
	t.Run("a container that was there before is no start", func(t *testing.T) {
		w := newWorld(t, testConfig())
		c := workloadOf("old")
		w.on = append(w.on, c)
		w.event(c, &eventv1.Event{Kind: &eventv1.Event_Existing{Existing: &eventv1.Exec{}}}, &field.Process{Exe: "/bin/web"}, true)
		w.pass(time.Minute)
		if got := w.state(); got != "learning" {
			t.Errorf("state without a start = %s, want learning", got)
		}
		w.start("new")
		w.pass(time.Second)
		if got := w.state(); got != "dry-run" {
			t.Errorf("state after a start = %s, want dry-run", got)
		}
	})
	t.Run("time without a container does not count", func(t *testing.T) {
		w := newWorld(t, testConfig())
		w.start("one")
		w.pass(5 * time.Second)
		w.on = nil
		w.pass(time.Hour)
		if s := w.l.List()[0]; s.State != "learning" || s.Observed != 5*time.Second {
			t.Errorf("%s after %v, want learning after 5s", s.State, s.Observed)
		}
	})
	t.Run("a node that slept has seen nothing", func(t *testing.T) {
		w := newWorld(t, testConfig())
		w.start("one")
		w.clock = w.clock.Add(time.Hour)
		w.l.Tick(w.clock, w.on)
		if s := w.l.List()[0]; s.Observed > longestTick {
			t.Errorf("observed = %v, want at most %v", s.Observed, longestTick)
		}
	})
	t.Run("losses extend the learning", func(t *testing.T) {
		for name, whose := range map[string]*findingv1.Workload{"its own": workloadOf("one"), "nobody knows whose": nil} {
			w := newWorld(t, testConfig())
			w.start("one")
			w.pass(9 * time.Second)
			w.l.Lost(whose, 7)
			w.pass(time.Second)
			if s := w.l.List()[0]; s.State != "learning" || s.Lost != 7 || s.Extended == 0 {
				t.Errorf("%s: %s, lost %d, extended %v; want learning, 7, more than 0", name, s.State, s.Lost, s.Extended)
			}
			w.pass(2 * time.Second)
			if got := w.state(); got != "dry-run" {
				t.Errorf("%s: state = %s, want dry-run in the end", name, got)
			}
		}
	})
	t.Run("a pending workload, the host and an image without digest are not modelled", func(t *testing.T) {
		w := newWorld(t, testConfig())
		pending, host, bare := workloadOf("a"), workloadOf("b"), workloadOf("c")
		pending.Metadata, host.Metadata = findingv1.MetadataState_METADATA_STATE_PENDING, findingv1.MetadataState_METADATA_STATE_HOST
		bare.ImageDigest = ""
		for _, c := range []*findingv1.Workload{pending, host, bare} {
			w.load(c)
		}
		if list := w.l.List(); len(list) != 0 {
			t.Errorf("models = %v, want none", list)
		}
	})
}

// TestAnAttackerDoesNotTeach: after a grave finding nothing of that container is learned; others of the image go on.
func TestAnAttackerDoesNotTeach(t *testing.T) {
	w := newWorld(t, testConfig())
	bad := w.start("bad")
	w.l.Suspect(bad, findingv1.Priority_PRIORITY_WARNING)
	w.write(bad, "/learned/x")
	w.l.Suspect(bad, findingv1.Priority_PRIORITY_ERROR)
	w.write(bad, "/taught/x")
	w.pass(20 * time.Second)
	if s := w.l.List()[0]; s.State != "learning" || s.Suspected != 1 || s.Skipped == 0 || s.Families[WrittenDirectories].Facts != 1 {
		t.Errorf("summary = %+v, want learning, 1 suspected, some skipped, 1 directory", s)
	}
	good := w.start("good")
	w.pass(15 * time.Second)
	if found := w.write(good, "/taught/x"); len(found) != 1 {
		t.Errorf("what the attacker did is not unusual: %v", found)
	}
}

func TestRelearnAndFreeze(t *testing.T) {
	w := newWorld(t, testConfig())
	c := w.start("one")
	w.load(c)
	if s, err := w.l.Freeze(testDigest[:14], false); err != nil || !s.Frozen || s.State != "active" {
		t.Fatalf("Freeze() = %+v, %v, want frozen and active", s, err)
	}
	if _, err := w.l.Relearn(testDigest, true); !errors.Is(err, ErrFrozen) {
		t.Errorf("Relearn() of a frozen model error = %v, want ErrFrozen", err)
	}
	if found := w.write(c, "/new/x"); len(found) != 1 {
		t.Errorf("frozen model learned: %v", found)
	}
	if _, err := w.l.Freeze("01234567", true); err != nil {
		t.Fatal(err)
	}
	if s, err := w.l.Relearn(testDigest, true); err != nil || s.State != "learning" || s.Families[Programs].Facts != 2 || s.Starts != 0 {
		t.Errorf("Relearn(keep) = %+v, %v, want learning with 2 programs and no start", s, err)
	}
	if s, err := w.l.Relearn(testDigest, false); err != nil || s.Families[Programs].Facts != 0 {
		t.Errorf("Relearn() = %+v, %v, want nothing known", s, err)
	}
	for _, digest := range []string{"", "sha256:ffff"} {
		if _, err := w.l.Relearn(digest, true); !errors.Is(err, ErrUnknown) {
			t.Errorf("Relearn(%q) error = %v, want ErrUnknown", digest, err)
		}
	}
}

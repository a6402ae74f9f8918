package rules_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/rules"
)

func load(t *testing.T) *rule.Set {
	t.Helper()
	set, warnings, err := rule.Load(rule.Source{Name: rules.FileName, Data: rules.Palisade})
	if err != nil {
		t.Fatalf("Load(%s) = %v", rules.FileName, err)
	}
	for _, w := range warnings {
		t.Errorf("warning: %s", w)
	}
	return set
}

var (
	host      = &findingv1.Workload{Metadata: findingv1.MetadataState_METADATA_STATE_HOST}
	container = &findingv1.Workload{
		ContainerId: "0123456789abcdef0123456789abcdef", Image: "registry.example/library/nginx:1.27",
		Metadata: findingv1.MetadataState_METADATA_STATE_KNOWN,
	}
	pending = &findingv1.Workload{Metadata: findingv1.MetadataState_METADATA_STATE_PENDING}
)

// process is a process of that executable, below the parent.
func process(parent *field.Process, exe string, argv ...string) *field.Process {
	return &field.Process{Name: field.NameOf(exe, "", argv), Exe: exe, Argv: argv, Cwd: "/", Parent: parent}
}

func with(p *field.Process, change func(*field.Process)) *field.Process {
	change(p)
	return p
}

func tty(p *field.Process)   { p.TTY = 0x8801 }
func upper(p *field.Process) { p.ExeUpperLayer = true }
func memfd(p *field.Process) { p.ExeMemfd = true }

func exec(w *findingv1.Workload, p *field.Process) *field.Context {
	e := &eventv1.Event{Sequence: 1, Kind: &eventv1.Event_Exec{Exec: &eventv1.Exec{}}}
	return &field.Context{Event: e, Process: p, Workload: w}
}

func open(w *findingv1.Workload, p *field.Process, path string, flags uint32) *field.Context {
	e := &eventv1.Event{Sequence: 1, Kind: &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{
		File: &eventv1.File{Path: path, Mode: 0o100644}, Flags: flags,
	}}}
	return &field.Context{Event: e, Process: p, Workload: w}
}

func connect(w *findingv1.Workload, p *field.Process, ip []byte, result int32) *field.Context {
	e := &eventv1.Event{Sequence: 1, Kind: &eventv1.Event_Connect{Connect: &eventv1.Connect{
		Family: 2, Protocol: 6, Remote: &eventv1.SocketAddress{Ip: ip, Port: 80}, Result: result,
	}}}
	return &field.Context{Event: e, Process: p, Workload: w}
}

const (
	read  = 0
	write = 0o1101
)

// sample is an event, and the rules that must match it: no others may.
type sample struct {
	name string
	ctx  *field.Context
	want []string
}

func samples() []sample {
	shim := process(nil, "/usr/bin/containerd-shim-runc-v2")
	metadata4, metadata6 := []byte{169, 254, 169, 254}, append([]byte{0xfd, 0, 0x0e, 0xc2}, append(make([]byte, 10), 2, 0x54)...)
	return []sample{
		{"shell with terminal in container", exec(container, with(process(shim, "/usr/bin/bash", "bash"), tty)), []string{"Terminal shell in container"}},
		{"busybox as login shell", exec(container, with(process(shim, "/bin/busybox", "-sh"), tty)), []string{"Terminal shell in container"}},
		{"busybox by its own name", exec(container, with(process(shim, "/bin/busybox", "busybox", "ash"), tty)), []string{"Terminal shell in container"}},
		{"shell under another argv[0]", exec(container, with(process(shim, "/bin/dash", "nginx"), tty)), []string{"Terminal shell in container"}},
		{"shell before metadata", exec(pending, with(process(shim, "/bin/sh", "sh"), tty)), []string{"Terminal shell in container"}},
		{"shell without terminal", exec(container, process(shim, "/bin/sh", "sh", "-c", "true")), nil},
		{"shell with terminal on host", exec(host, with(process(nil, "/bin/bash", "-bash"), tty)), nil},
		{"busybox that is no shell", exec(container, with(process(shim, "/bin/busybox", "ls"), tty)), nil},

		{"shadow read by cat", open(host, process(nil, "/bin/cat", "cat", "/etc/shadow"), "/etc/shadow", read), []string{"Sensitive file read"}},
		{"root key read in container", open(container, process(nil, "/bin/busybox", "cat"), "/root/.ssh/id_ed25519", read), []string{"Sensitive file read"}},
		{"pam file read and written", open(host, process(nil, "/usr/bin/python3.12"), "/etc/pam.d/sshd", 2), []string{"Sensitive file read"}},
		{"login name only claimed", open(host, process(nil, "/tmp/x", "sshd"), "/etc/shadow", read), []string{"Sensitive file read"}},
		{"shadow read by sshd", open(host, process(nil, "/usr/sbin/sshd"), "/etc/shadow", read), nil},
		{"passwd is no secret", open(host, process(nil, "/bin/cat"), "/etc/passwd", read), nil},
		{"name that only begins so", open(host, process(nil, "/bin/cat"), "/etc/pam.d-old", read), nil},
		{"shadow opened as a path only", open(host, process(nil, "/bin/cat"), "/etc/shadow", 0o10000000), nil},

		{"write below /usr/bin", open(container, process(nil, "/bin/cp"), "/usr/bin/ls", write), []string{"Write below a binary directory"}},
		{"write below /bin from a script of dpkg's", open(host, process(process(nil, "/usr/bin/dpkg"), "/bin/cp"), "/bin/ls", write), nil},
		{"read below /usr/bin", open(container, process(nil, "/bin/cp"), "/usr/bin/ls", read), nil},
		{"write below /usr/binx", open(container, process(nil, "/bin/cp"), "/usr/binx/ls", write), nil},
		{"write by dpkg", open(host, process(nil, "/usr/bin/dpkg"), "/usr/bin/ls", write), nil},

		{"upper layer", exec(container, with(process(shim, "/tmp/x", "x"), upper)), []string{"Dropped binary executed"}},
		{"memfd", exec(container, with(process(shim, "/memfd:a (deleted)", "a"), memfd)), []string{"Dropped binary executed"}},
		{"memfd before metadata", exec(pending, with(process(nil, "/memfd:a (deleted)"), memfd)), []string{"Dropped binary executed"}},
		{"memfd named as runC's, not by runC", exec(container, with(process(process(nil, "/bin/sh"), "/memfd:runc_cloned:/proc/self/exe (deleted)"), memfd)), []string{"Dropped binary executed"}},
		{"runC's own copy", exec(pending, with(process(process(nil, "/usr/bin/runc"), "/memfd:runc_cloned:/proc/self/exe (deleted)"), memfd)), nil},
		{"program of the image", exec(container, process(shim, "/usr/sbin/nginx")), nil},
		{"memfd on host", exec(host, with(process(nil, "/memfd:a (deleted)"), memfd)), nil},

		{"metadata service", connect(container, process(nil, "/usr/bin/curl"), metadata4, 0), []string{"Cloud metadata service contacted"}},
		{"metadata service over IPv6, under way", connect(container, process(nil, "/usr/bin/curl"), metadata6, -115), []string{"Cloud metadata service contacted"}},
		{"metadata service refused", connect(container, process(nil, "/usr/bin/curl"), metadata4, -111), nil},
		{"metadata service from host", connect(host, process(nil, "/usr/bin/curl"), metadata4, 0), nil},
		{"another address", connect(container, process(nil, "/usr/bin/curl"), []byte{169, 254, 169, 253}, 0), nil},
	}
}

func TestSamples(t *testing.T) {
	set := load(t)
	hit := map[string]bool{}
	for _, tt := range samples() {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			set.Match(tt.ctx, func(r *rule.Rule) {
				got = append(got, r.Name)
				if r.Output(tt.ctx) == "" {
					t.Errorf("Output of %q is empty", r.Name)
				}
				hit[r.Name] = true
			})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Match (-want +got):\n%s", diff)
			}
		})
	}
	for _, r := range set.Rules() {
		if !hit[r.Name] {
			t.Errorf("no sample matches %q", r.Name)
		}
	}
}

func TestPackIsComplete(t *testing.T) {
	for _, r := range load(t).Rules() {
		mitre := slices.ContainsFunc(r.Tags, func(tag string) bool { return len(tag) > 6 && tag[:6] == "mitre_" })
		if r.Description == "" || !mitre || r.Kinds == 0 || r.Kinds == field.AllKinds || !r.Enabled {
			t.Errorf("rule %q: description %q, tags %v, kinds %s, enabled %t", r.Name, r.Description, r.Tags, r.Kinds, r.Enabled)
		}
		want := findingv1.Effect_EFFECT_ALERT
		if r.Name == "Dropped binary executed" {
			want = findingv1.Effect_EFFECT_PREVENT
		}
		if r.Effect != want {
			t.Errorf("rule %q: effect = %s, want %s", r.Name, r.Effect, want)
		}
	}
}

// What the pack asks of the kernel: few files, so that a node that runs it alone is not slowed down by the others.
func TestThePackIsInterestedInFewFiles(t *testing.T) {
	got := load(t).Interest()
	if want := "exec fork exit file_open connect (file_open: reads below 7 paths, writes below 7 paths) (peers in 2 networks)"; got.String() != want {
		t.Errorf("interest = %s, want %s\nreads %q\nwrites %q", got, want, got.Reads.Prefixes, got.Writes.Prefixes)
	}
	set := load(t)
	for _, tt := range samples() {
		set.Match(tt.ctx, func(r *rule.Rule) {
			if !got.Admits(tt.ctx.Event) {
				t.Errorf("%s: %s matches what the kernel would not record", tt.name, r.Name)
			}
		})
	}
}

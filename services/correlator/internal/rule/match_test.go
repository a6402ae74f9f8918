package rule_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
)

// mustLoad loads one file. Warnings are for the caller to look at.
func mustLoad(t testing.TB, yaml string) (*rule.Set, []rule.Warning) {
	t.Helper()
	set, warnings, err := rule.Load(rule.Source{Name: "f", Data: []byte(yaml)})
	if err != nil {
		t.Fatalf("Load = %v", err)
	}
	return set, warnings
}

// ruleOf is a rule with that condition, in single quotes in the file.
func ruleOf(condition string) string {
	return fmt.Sprintf("- rule: r\n  desc: d\n  condition: '%s'\n  output: o\n  priority: notice\n", strings.ReplaceAll(condition, "'", "''"))
}

func matched(set *rule.Set, c *field.Context) []string {
	var names []string
	set.Match(c, func(r *rule.Rule) { names = append(names, r.Name) })
	return names
}

// cat is a process in a session of sshd's: init, sshd, bash, cat.
func cat() *field.Process {
	initial := &field.Process{Key: field.Key{PID: 1}, Name: "systemd", Exe: "/usr/lib/systemd/systemd", Argv: []string{"/sbin/init"}}
	sshd := &field.Process{Key: field.Key{PID: 90, StartBoottimeNs: 1e9}, Name: "sshd", Exe: "/usr/sbin/sshd", Argv: []string{"sshd:", "root"}, Parent: initial}
	bash := &field.Process{Key: field.Key{PID: 100, StartBoottimeNs: 2e9}, Name: "bash", Exe: "/usr/bin/bash", Argv: []string{"-bash"}, Session: 100, Parent: sshd}
	return &field.Process{
		Key: field.Key{PID: 200, StartBoottimeNs: 3e9}, Name: "cat", Exe: "/usr/bin/cat", Argv: []string{"cat", "-n", "/etc/Shadow"},
		Cwd: "/root", TTY: 34816, Session: 100, ExeUpperLayer: true, Parent: bash,
	}
}

func opening(path string, flags uint32) *field.Context {
	return &field.Context{
		Event: &eventv1.Event{
			Sequence: 7, BoottimeNs: 5e9, Time: timestamppb.New(timestamppb.Now().AsTime().Truncate(1)), Tid: 201,
			Process:     &eventv1.ProcessKey{Pid: 200},
			Credentials: &eventv1.Credentials{Uid: 1000, EffectiveUid: 0, LoginUid: 1000, EffectiveCapabilities: 1 << 21},
			Kind:        &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{File: &eventv1.File{Path: path, Mode: 0o100600, Inode: 5}, Flags: flags}},
		},
		Process: cat(),
		Workload: &findingv1.Workload{
			ContainerId: "0123456789abcdef", ContainerName: "web", Image: "localhost:5000/shop/web:1.2@sha256:ab", ImageDigest: "sha256:ab",
			Runtime: "containerd", PodName: "web-1", PodNamespace: "shop", Metadata: findingv1.MetadataState_METADATA_STATE_KNOWN,
		},
	}
}

func connecting(remote []byte, port uint32, result int32) *field.Context {
	c := opening("", 0)
	c.Event.Kind = &eventv1.Event_Connect{Connect: &eventv1.Connect{
		Family: 2, Protocol: 6, Result: result,
		Local:  &eventv1.SocketAddress{Ip: []byte{10, 0, 0, 5}, Port: 40000},
		Remote: &eventv1.SocketAddress{Ip: remote, Port: port},
	}}
	return c
}

// benchContexts are ordinary events that no rule should match.
func benchContexts() []*field.Context {
	exec := opening("", 0)
	exec.Event.Kind = &eventv1.Event_Exec{Exec: &eventv1.Exec{}}
	fork := opening("", 0)
	fork.Event.Kind = &eventv1.Event_Fork{Fork: &eventv1.Fork{}}
	existing := opening("", 0)
	existing.Event.Kind = &eventv1.Event_Existing{Existing: &eventv1.Exec{}}
	all := []*field.Context{exec, opening("/usr/lib/libc.so.6", 0), opening("/tmp/out", 0o1101), connecting([]byte{192, 0, 2, 1}, 443, 0), fork, existing}
	for _, c := range all {
		c.Process.Cwd, c.Process.ExeUpperLayer, c.Process.Parent.TTY = "/root/", false, 0
	}
	return append(all, &field.Context{}, &field.Context{Event: &eventv1.Event{}})
}

func TestConditions(t *testing.T) {
	open := opening("/etc/pam.d/sshd", 0)
	conn := connecting([]byte{10, 1, 2, 3}, 443, -115)
	tests := []struct {
		ctx  *field.Context
		text string
		want bool
	}{
		{open, "evt.type = open and evt.type = openat2 and evt.type in (creat)", true},
		{open, "evt.type != open", false},
		{open, "evt.type startswith open and evt.type glob *at2", true},
		{open, "evt.type = existing or evt.type in ()", false},
		{open, "evt.is_open_read = true and evt.is_open_write = false", true},
		{open, "evt.num = 7 and evt.num != 8 and evt.num in (6, 0x7) and evt.num > 6 and evt.num <= 7", true},
		{open, "fd.num >= 0 and not fd.num = -1 and not fd.num < 0", true},
		{open, "evt.res = SUCCESS and evt.rawres >= 0 and not evt.rawres exists or evt.res = x", false},
		{open, "proc.name = cat and proc.pname = bash and proc.exe = cat and proc.pexe = -bash", true},
		{open, "proc.cmdline = 'cat -n /etc/Shadow' and proc.args endswith Shadow and proc.pcmdline = bash", true},
		{open, "proc.aname = sshd and proc.aname[2] = sshd and proc.aname[0] = cat and not proc.aname = cat", true},
		{open, "proc.aname in (x, systemd) and proc.aname != sshd and proc.apid = 90 and proc.apid[1] = 100", true},
		{open, "proc.aname[9] exists or proc.aname[9] != x or proc.aexepath startswith /opt", false},
		{open, "not proc.aname[9] = x and proc.aname exists and proc.aexepath pmatch (/usr/sbin)", true},
		{open, "proc.cwd = /root/ and proc.tty != 0 and proc.sid = 100 and proc.sname = bash", true},
		{open, "proc.duration = 2000000000 and proc.ppid.duration = 3000000000 and proc.ppid = 100", true},
		{open, "proc.is_exe_upper_layer = true and proc.is_exe_from_memfd != true", true},
		{open, "user.uid = 0 and user.name = root and user.loginuid = 1000 and user.loginname = 1000", true},
		{open, "thread.cap_effective icontains sys_admin and not thread.cap_effective contains CAP_BPF", true},
		{open, "container.id = 0123456789ab and container.full_id = 0123456789abcdef and container.id != host", true},
		{open, "container.image.repository = localhost:5000/shop/web and container.image.tag = 1.2 and container.image.digest = sha256:ab", true},
		{open, "k8s.ns.name = shop and k8s.pod.name startswith web- and container.name = web", true},
		{open, "fd.directory = /etc/pam.d and fd.filename = sshd and fd.typechar = f and fd.type = file", true},
		{open, "fd.name pmatch (/etc) and fd.name glob /etc/*/ss?d and fd.name regex '/etc/[a-z.]+/sshd'", true},
		{open, "fd.sip exists or fd.sip != 1.1.1.1", false},
		{open, "tolower(proc.args) endswith shadow and toupper(proc.name) = CAT and basename(proc.exepath) = cat and len(proc.name) = 3", true},
		{open, "tolower(proc.aname) in (bash) and len(proc.aname) > 6", true},
		{open, "proc.name = val(fd.filename) or proc.pname contains val(proc.name)", false},
		{open, "proc.name = val(proc.exe) and proc.name = basename(proc.exepath) and user.loginuid > val(user.uid)", true},
		{conn, "evt.type = connect and evt.res = EINPROGRESS and evt.rawres = -115 and fd.l4proto = tcp", true},
		{conn, "fd.sip = 10.1.2.3 and fd.rip = 10.1.2.3 and fd.cip = 10.0.0.5 and fd.lip in (1.1.1.1, 10.0.0.5)", true},
		{conn, `fd.snet in ("10.1.0.0/16") and fd.net = 10.0.0.0/24 and fd.ip = 10.0.0.5`, true},
		{conn, "fd.ip != 10.0.0.5 or fd.net != 10.0.0.0/24 or fd.port != 443", false},
		{conn, "fd.ip != 1.1.1.1 and fd.net != 192.168.0.0/16 and fd.port != 1 and fd.port in (443)", true},
		{conn, "fd.sport = 443 and fd.rport = 443 and fd.cport = 40000 and fd.lport >= 1024 and fd.connected = false", true},
		{conn, "fd.name = 10.0.0.5:40000->10.1.2.3:443 and fd.type = ipv4 and fd.typechar = 4", true},
		{conn, "fd.lip = val(fd.cip) and not fd.lip = val(fd.rip) and fd.sip = val(fd.rip)", true},
		{&field.Context{Event: open.Event}, "container.id != host and container.id = pending", true},
		{&field.Context{Event: open.Event}, "proc.name != x or proc.pname exists or proc.cmdline exists", false},
		{&field.Context{Event: open.Event, Workload: &findingv1.Workload{}}, "container.id = host and container.name = host", true},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			set, _ := mustLoad(t, ruleOf(tt.text))
			if got := len(matched(set, tt.ctx)) == 1; got != tt.want {
				t.Errorf("Match(%s) = %t, want %t", tt.text, got, tt.want)
			}
		})
	}
}

func TestKinds(t *testing.T) {
	tests := []struct{ text, want string }{
		{"evt.type = execve", "execve"},
		{"evt.type in (execve, connect)", "execve,connect"},
		{"evt.type = execve and evt.type = connect", ""},
		{"evt.type = execve or (evt.type = open and proc.name = a)", "execve,openat"},
		{"not evt.type in (execve, clone, procexit, open)", (field.AllKinds &^ (field.LifeCycle | field.KindFileOpen)).String()},
		{"not (evt.type = execve or proc.name = a)", (field.AllKinds &^ field.KindExec).String()},
		{"not (not evt.type = execve or proc.name = a)", "execve"},
		{"evt.type != connect and fd.name exists", "openat,accept4,chmod,chown,truncate,setxattr,mmap,mprotect,memfd_create,bind,listen,sendto,init_module,dup2"},
		{"fd.sport = 1", "connect,accept4,bind,listen,sendto,dup2"},
		{"evt.type = connect and fd.type = unix", "connect"},
		{"evt.type = unlinkat", "unlink,rmdir"},
		{"evt.type in (rename, umount, finit_module, request_key)", "rename,umount2,init_module,keyctl"},
		{"evt.type in (dns_question, io_uring, execve_failed)", "execve_failed,dns_question,io_uring"},
		{"evt.type = unlink and evt.arg.mode contains S_ISUID", ""},
		{"not fd.sport = 1 and evt.type = execve", "execve"},
		{"proc.name = a", field.AllKinds.String()},
		{"proc.nonesuch = a", ""},
		{"not proc.nonesuch = a and evt.type = accept", "accept4"},
		{"evt.type = read", ""},
		{"evt.type = dup", "dup2"},
	}
	for _, tt := range tests {
		set, _ := mustLoad(t, ruleOf(tt.text))
		if got := set.Kinds().String(); got != tt.want {
			t.Errorf("Kinds(%s) = %s, want %s", tt.text, got, tt.want)
		}
	}
}

func TestWarnings(t *testing.T) {
	tests := []struct {
		name, yaml string
		want       []string
	}{
		{"unknown field through a macro", "- macro: m\n  condition: proc.nonesuch = a\n" + ruleOf("evt.type = execve and not m"), []string{`f:2:14: rule "r": proc.nonesuch: not a field that Palisade provides`}},
		{"unknown field in output", strings.Replace(ruleOf("evt.type = execve"), "output: o", "output: a %fd.uid %% b", 1), []string{`f:4:13: rule "r": output: fd.uid: no source yet: no record numbers sockets`}},
		{"field without a source", ruleOf("evt.type = execve and proc.fdopencount = 3"), []string{`f:1:3: rule "r": no event that is collected can match the rule`, `f:3:37: rule "r": proc.fdopencount: no source yet: no record counts descriptors`}},
		{"event that is not collected", ruleOf("evt.type in (execve, read)"), []string{`f:3:15: rule "r": events "read" are not collected`}},
		{"no event left", ruleOf("evt.type = read"), []string{`f:1:3: rule "r": no event that is collected can match the rule`, `f:3:15: rule "r": events "read" are not collected`}},
		{"every event", ruleOf("proc.name = a"), []string{`f:1:3: rule "r": condition does not narrow evt.type, so it is evaluated for every event`}},
		{"every event, accepted", ruleOf("proc.name = a") + "  warn_evttypes: false\n", nil},
		{"deprecated", ruleOf("evt.type = execve and evt.dir = <"), []string{`f:3:37: rule "r": evt.dir is deprecated: every event is the end of a call`}},
		{"descriptor's value", ruleOf("evt.type = open and fd.num = 3"), []string{`f:3:35: rule "r": fd.num is not always known: descriptor, of a dup the one that was duplicated; of an open or accept it may be known only to be 0 or more`}},
		{"user's name", ruleOf("evt.type = open and user.name in (root, www-data, 33)"), []string{`f:3:35: rule "r": user.name is "www-data" of the host's processes only: in a container it is root, or the id in decimal`}},
		{"skipped", ruleOf("evt.type = open and proc.nonesuch = a") + "  skip-if-unknown-filter: true\n", []string{`f:1:3: rule "r": rule is off: it names an unknown field and says skip-if-unknown-filter`, `f:3:35: rule "r": proc.nonesuch: not a field that Palisade provides`}},
		{"other source", ruleOf("ka.verb = get") + "  source: k8s_audit\n", []string{`f:1:3: rule "r": source "k8s_audit" is not provided; the rule is off`}},
		{"newer engine", "- required_engine_version: 0.99.0\n- required_engine_version: 26\n", []string{"f:1:28: file asks for rule engine 0.99.0, this one follows 0.57"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, warnings := mustLoad(t, tt.yaml)
			var got []string
			for _, w := range warnings {
				got = append(got, w.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

func benchmarkMatch(b *testing.B, sources ...rule.Source) {
	set, _, err := rule.Load(sources...)
	if err != nil {
		b.Fatal(err)
	}
	contexts := benchContexts()[:4]
	for _, c := range contexts {
		if names := matched(set, c); len(names) > 0 {
			b.Fatalf("%s matches %q", c.Event, names)
		}
	}
	nothing := func(*rule.Rule) {}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c := contexts[i%len(contexts)]
		c.Workload = contexts[0].Workload
		set.Match(c, nothing)
	}
}

// Neighbours of an alternative that look at the same string are one; what is negated, or looks at another, is not among them.
func TestAlternativesOfOneString(t *testing.T) {
	for condition, want := range map[string]bool{
		"proc.cmdline contains one or proc.cmdline contains Shadow or proc.cmdline contains three":                 true,
		"proc.cmdline contains one or proc.cmdline contains two or proc.cmdline contains three":                    false,
		"proc.cmdline contains one or not proc.cmdline contains two or proc.cmdline contains three":                true,
		"proc.cmdline contains one or not proc.cmdline contains Shadow or proc.cmdline contains three":             false,
		"not (proc.cmdline contains one or proc.cmdline contains Shadow)":                                          false,
		"tolower(proc.cmdline) contains one or proc.cmdline contains etc/shadow or tolower(proc.cmdline) = x":      false,
		"proc.cmdline contains etc/shadow or tolower(proc.cmdline) contains etc/shadow or proc.cmdline contains x": true,
		"proc.aname[1] = cat or proc.aname[2] = bash or proc.aname[1] = sshd":                                      false,
		"proc.aname[2] = cat or proc.aname[1] = sshd or proc.aname[1] = bash":                                      true,
		"container.name = db or container.name = web and proc.name = cat or container.name startswith x":           true,
		"container.name = db or container.name = web and proc.name = dog or container.name startswith x":           false,
		"proc.sname = x or proc.sname != bash or proc.sname contains y":                                            false,
	} {
		set, _ := mustLoad(t, ruleOf(condition))
		if got := len(matched(set, opening("/etc/shadow", 0))) == 1; got != want {
			t.Errorf("%s = %v, want %v", condition, got, want)
		}
	}
}

// An open elsewhere than where rules look is not shown to them, but to those that look anywhere.
func TestOpensElsewhere(t *testing.T) {
	yaml := ""
	for name, condition := range map[string]string{
		"a": "evt.type = openat and fd.name startswith /etc/", "b": "evt.type = openat and proc.name = cat",
		"c": "evt.type = openat and proc.name = cat and fd.name = /root/x", "d": "fd.name endswith x",
	} {
		yaml += strings.Replace(ruleOf(condition), "rule: r", "rule: "+name, 1)
	}
	set, _ := mustLoad(t, yaml)
	for path, want := range map[string]string{"/etc/shadow": "a b", "/root/x": "b c d", "/root/y": "b", "/x": "b d"} {
		for _, flags := range []uint32{0, 1, 2} {
			got := matched(set, opening(path, flags))
			slices.Sort(got)
			if strings.Join(got, " ") != want {
				t.Errorf("open of %s with flags %d matches %v, want %s", path, flags, got, want)
			}
		}
	}
}

package sample_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/sample"
)

// load is a rule with that condition, and samples, each in braces, that it must match.
func load(t *testing.T, condition string, match ...string) *rule.Set {
	t.Helper()
	text := "- rule: r\n  desc: d\n  condition: " + condition + "\n  output: o\n  priority: notice\n  warn_evttypes: false\n  samples:\n    match:\n"
	for _, m := range match {
		text += "      - {" + m + "}\n"
	}
	set, _, err := rule.LoadDetailed(rule.Source{Name: "f", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// What a sample says is what a rule sees.
func TestSamplesSayWhatRulesSee(t *testing.T) {
	tests := []struct{ sample, condition string }{
		{"event: exec, exe: /bin/sh, argv: [sh, -c, a b], tty: true", `proc.name = sh and proc.cmdline = "sh -c a b" and proc.cmdnargs = 2 and proc.tty != 0 and proc.exepath = /bin/sh`},
		{"event: exec, argv: sh -c x, script: /x.sh", "proc.name = app and proc.args = '-c x' and evt.arg.filename = /x.sh"},
		{"event: exec, exe_is: [upper_layer, unlinked]", "proc.is_exe_upper_layer = true and proc.is_exe_unlinked = true and evt.arg.flags contains EXE_UPPER_LAYER"},
		{"event: exec, uid: 33, gid: 34, login_uid: 1000, capabilities: [CAP_SYS_ADMIN]", "user.uid = 33 and group.gid = 34 and user.loginuid = 1000 and thread.cap_effective = CAP_SYS_ADMIN"},
		{"event: exec, uid: 33, gid: 34, login_uid: 1000, user: web, group: www, login: ann, workload: host", "user.name = web and group.name = www and user.loginname = ann"},
		{"event: exec, uid: 33, user: web, login: ann, login_uid: 33", "user.name = 33 and user.loginname exists"},
		{"event: exec, age: 1h, cwd: /a, parents: [/bin/b, {exe: /bin/c, argv: [c, d], age: 2h}]", "proc.duration = 3600000000000 and proc.cwd = /a/ and proc.pname = b and proc.aname[2] = c and proc.acmdline = 'c d' and proc.ppid.duration >= 3600000000000"},
		{"event: exec, parents: [/bin/b, /bin/c]", "proc.sname = c and proc.is_sid_leader = false and proc.apid = 998"},
		{"event: exec, leads_session: true", "proc.is_sid_leader = true and thread.ismain = true"},
		{"event: exec, workload: {name: n, image: 'r/i:t', pod: p, namespace: s, labels: {a: b}, id: abc}", "container.id = abc and container.name = n and container.image.repository = r/i and container.image.tag = t and k8s.pod.name = p and k8s.ns.name = s and container.label[a] = b and container.labels = a:b"},
		{"event: exec, workload: host", "container.id = host and not container.privileged exists"},
		{"event: exec, workload: {privileged: true}", "container.privileged = true and not container.start_ts exists"},
		{"event: exec", "container.privileged = false"},
		{"event: exec, workload: pending", "container.id = pending"},
		{"event: exec_failed, path: /x, result: ENOENT", "evt.type = execve_failed and evt.arg.filename = /x and evt.res = ENOENT"},
		{"event: file_open, path: /a/b, access: write, flags: [O_CREAT, O_TRUNC], mode: 0o755", "fd.name = /a/b and evt.is_open_write = true and evt.is_open_exec = true and evt.arg.flags contains O_TRUNC and fd.typechar = f"},
		{"event: file_open, path: /a, directory: true, access: path, upper_layer: true", "fd.typechar = d and evt.is_open_read = false and fd.is_upper_layer = true"},
		{"event: rename, path: /a, target: /b", "evt.arg.oldpath = /a and fs.path.target = /b and evt.category = file"},
		{"event: symlink, path: /a, points_to: /b", "evt.arg.linkpath = /a and evt.arg.target = /b"},
		{"event: chmod, path: /a, mode: 0o4755, result: SUCCESS", "evt.arg.mode contains S_ISUID and evt.rawres = 0"},
		{"event: chown, path: /a, owner: 0", "evt.arg.uid = root and evt.arg.gid = -1"},
		{"event: mount, path: /m, source: /dev/sda, fs: ext4, flags: [MS_RDONLY]", "evt.arg.dev = /dev/sda and evt.arg.dir = /m and evt.arg.fs = ext4 and evt.arg.flags = MS_RDONLY"},
		{"event: setxattr, path: /a, attribute: security.capability", "evt.arg.name = security.capability and fd.name = /a"},
		{"event: mprotect_exec, prot: [PROT_READ, PROT_EXEC], writable: true", "evt.arg.prot = PROT_READ|PROT_EXEC and evt.arg.writable = true"},
		{"event: memfd, memfd: x, flags: [MFD_CLOEXEC]", "evt.arg.name = x and evt.arg.flags = MFD_CLOEXEC"},
		{"event: connect, remote: '192.0.2.1:443', local: '10.0.0.1:5', protocol: udp, remote_name: a.example", "fd.sip = 192.0.2.1 and fd.sport = 443 and fd.cip = 10.0.0.1 and fd.l4proto = udp and fd.sip.name = a.example and fd.sockfamily = ip and fd.is_server = false"},
		{"event: connect, remote: '[2001:db8::1]:443', result: EINPROGRESS", "fd.typechar = '6' and evt.res = EINPROGRESS and fd.connected = false"},
		{"event: accept, remote: '192.0.2.1:1', local: '10.0.0.1:80'", "fd.cip = 192.0.2.1 and fd.lport = 80 and fd.is_server = true"},
		{"event: listen, address: '0.0.0.0:80'", "fd.lport = 80 and fd.l4proto = tcp"},
		{"event: connect_unix, unix_path: /run/a.sock", "evt.type = connect and fd.name = /run/a.sock and fd.type = unix and fd.sockfamily = unix"},
		{"event: socket, family: AF_PACKET, type: SOCK_RAW", "evt.arg.domain = AF_PACKET and evt.arg.type = SOCK_RAW"},
		{"event: dns_question, question: a.example., type: TXT, server: '192.0.2.53:53'", "dns.question = a.example and dns.type = TXT and dns.server = 192.0.2.53"},
		{"event: dns_answer, question: a.example, answers: [192.0.2.1], rcode: NXDOMAIN", "dns.answer = 192.0.2.1 and dns.rcode = NXDOMAIN"},
		{"event: setuid, real_id: 1, effective_id: 0, saved_id: 2", "evt.arg.ruid = 1 and evt.arg.euid = root and evt.arg.suid = 2"},
		{"event: capset, effective: [CAP_BPF]", "evt.arg.cap_effective = CAP_BPF"},
		{"event: ptrace, request: PTRACE_SEIZE, target_pid: 7", "evt.arg.request = PTRACE_SEIZE and evt.arg.pid = 7"},
		{"event: unshare, flags: [CLONE_NEWUSER]", "evt.arg.flags = CLONE_NEWUSER"},
		{"event: module_load, module: /a.ko", "evt.arg.name = /a.ko"},
		{"event: bpf, cmd: BPF_PROG_LOAD", "evt.arg.cmd = BPF_PROG_LOAD"},
		{"event: perf_event_open, type: PERF_TYPE_RAW", "evt.arg.type = PERF_TYPE_RAW"},
		{"event: io_uring, opcode: IORING_OP_CONNECT", "evt.arg.opcode = IORING_OP_CONNECT"},
		{"event: signal, signal: SIGKILL, target_pid: 8", "evt.arg.sig = SIGKILL and evt.arg.pid = 8"},
	}
	for _, tt := range tests {
		set := load(t, tt.condition, tt.sample)
		for _, result := range sample.Run(set) {
			if result.Failure != nil {
				t.Error(result.Failure)
			}
		}
	}
}

func TestEveryClassHasASample(t *testing.T) {
	for _, class := range field.AllKinds.Classes() {
		set := load(t, "evt.num = 1", "event: "+class)
		d, errs := sample.Decode(set.Rules()[0].Detail.Match[0])
		if len(errs) > 0 {
			t.Errorf("%s: %v", class, errs[0])
			continue
		}
		if got := field.KindOf(d.Context.Event).Classes(); !slices.Equal(got, []string{class}) {
			t.Errorf("sample of %s is one of %q", class, got)
		}
	}
}

func TestMistakesInSamplesHaveAPlace(t *testing.T) {
	tests := []struct{ sample, want string }{
		{"exe: /bin/sh", "f:9:9: sample has no event: name a class, as in docs/rules.md"},
		{"event: execve", `f:9:17: unknown class of event "execve"`},
		{"event: exec, path: /a", `f:9:23: sample of class exec has no key "path": there are age, argv, capabilities, comm, cwd, event, exe, exe_is, gid, group, leads_session, login, login_uid, name, parents, result, script, setuid, tty, uid, user, workload`},
		{"event: exec, event: fork", `f:9:23: key "event" is here twice`},
		{"event: exec, tty: yes", `f:9:28: tty must be true or false, not "yes"`},
		{"event: exec, uid: -1", `f:9:28: uid must be a number below 2^32, not "-1"`},
		{"event: exec, argv: {a: b}", "f:9:29: argv must be a sequence of strings"},
		{"event: exec, age: 5", `f:9:28: age must be a time, as in 5s or 2h, not "5"`},
		{"event: exec, exe_is: [new]", `f:9:31: exe_is must be among upper_layer, memfd and unlinked, not "new"`},
		{"event: exec, parents: /bin/a", "f:9:32: parents must be a sequence, the nearest first"},
		{"event: exec, parents: [{exe: /a, event: b}]", `f:9:43: parent has no key "event": there are age, argv, comm, cwd, exe, exe_is, gid, login_uid, tty, uid`},
		{"event: exec, workload: pod", `f:9:33: workload must be container, host, pending or a mapping, not "pod"`},
		{"event: exec, workload: {img: a}", `f:9:34: workload has no key "img": there are digest, id, image, labels, name, namespace, pod, privileged, runtime`},
		{"event: exec, capabilities: [SYS_ADMIN]", "f:9:37: SYS_ADMIN is unknown as one of capabilities"},
		{"event: exec, result: EWHAT", "f:9:31: EWHAT is no error"},
		{"event: file_open, path: /a, access: all", `f:9:46: access must be read, write, read_write or path, not "all"`},
		{"event: file_open, path: [a]", "f:9:34: path must be a string"},
		{"event: connect, remote: 192.0.2.1", `f:9:34: remote must be ADDRESS:PORT, as in 192.0.2.1:443 or [2001:db8::1]:443, not "192.0.2.1"`},
		{"event: connect, protocol: quic", `f:9:36: protocol must be tcp, udp or icmp, not "quic"`},
		{"event: ptrace, request: PTRACE_LOOK", "f:9:34: PTRACE_LOOK is unknown as request"},
	}
	for _, tt := range tests {
		set := load(t, "evt.num = 1", tt.sample)
		faults := sample.Check(set)
		if len(faults) == 0 {
			t.Errorf("{%s}: no fault", tt.sample)
			continue
		}
		if got := faults[0].Position.String() + ": " + faults[0].Msg; got != tt.want {
			t.Errorf("{%s}\n got %s\nwant %s", tt.sample, got, tt.want)
		}
	}
}

func TestAFailureSaysWhatTheFieldsHeld(t *testing.T) {
	set := load(t, "evt.type = openat and fd.name = /etc/shadow and proc.name = cat", "event: file_open, path: /etc/shadow, exe: /bin/dog")
	results := sample.Run(set)
	want := `rule "r" does not match this sample, where evt.type="openat" fd.name="/etc/shadow" proc.name="dog"`
	if len(results) != 1 || results[0].Failure == nil || results[0].Failure.Msg != want {
		t.Errorf("results = %+v, want %s", results, want)
	}
}

func FuzzDecode(f *testing.F) {
	pack, _ := filepath.Glob("../../rules/*.yaml")
	for _, path := range pack {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			if text, ok := strings.CutPrefix(strings.TrimSpace(line), "- {event:"); ok && strings.HasSuffix(text, "}") {
				f.Add("{event:" + text)
			}
		}
	}
	f.Add("{event: exec, parents: [{exe: 1}, &a b, *a], workload: {labels: [a, b]}}")
	f.Fuzz(func(t *testing.T, text string) {
		indented := strings.ReplaceAll(text, "\n", "\n        ")
		data := "- rule: r\n  desc: d\n  condition: evt.num = 1\n  output: \"%evt.args %proc.cmdline %fd.name\"\n  priority: notice\n  samples:\n    match:\n      - " + indented
		set, _, err := rule.LoadDetailed(rule.Source{Name: "f", Data: []byte(data)})
		if err != nil {
			return
		}
		for _, r := range sample.Run(set) {
			if r.Failure != nil && (r.Failure.Position.Line < 1 || r.Failure.Position.Column < 1) {
				t.Errorf("%v has no position", r.Failure)
			}
		}
	})
}

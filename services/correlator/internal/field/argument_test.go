package field_test

import (
	"fmt"
	"strings"
	"testing"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

func change(c *eventv1.FileChange) *eventv1.Event {
	return &eventv1.Event{Kind: &eventv1.Event_FileChange{FileChange: c}}
}

func memory(m *eventv1.Memory) *eventv1.Event {
	return &eventv1.Event{Kind: &eventv1.Event_Memory{Memory: m}}
}

func socket(s *eventv1.Socket) *eventv1.Event {
	return &eventv1.Event{Kind: &eventv1.Event_Socket{Socket: s}}
}

func privilege(operation eventv1.PrivilegeOperation, target uint32, arguments ...uint64) *eventv1.Event {
	p := &eventv1.Privilege{Operation: operation, Arguments: arguments}
	if target != 0 {
		p.Target = &eventv1.ProcessKey{Pid: target}
	}
	return &eventv1.Event{Kind: &eventv1.Event_Privilege{Privilege: p}}
}

// ended is the event with its result.
func ended(e *eventv1.Event, result int64) *eventv1.Event {
	e.Result, e.ResultKnown = result, true
	return e
}

func file(path string) *eventv1.File { return &eventv1.File{Path: path} }

var (
	dnsServer = &eventv1.SocketAddress{Ip: []byte{10, 0, 0, 53}, Port: 53}
	anywhere  = &eventv1.SocketAddress{Ip: []byte{0, 0, 0, 0}, Port: 4444}
)

// values are events and what their fields answer, as name=value; name alone is a field without a value.
func values() map[string]struct {
	event *eventv1.Event
	want  string
} {
	return map[string]struct {
		event *eventv1.Event
		want  string
	}{
		"a failed exec": {
			ended(&eventv1.Event{Kind: &eventv1.Event_ExecFailed{ExecFailed: &eventv1.ExecFailed{File: file("/tmp/x")}}}, -13),
			"evt.type=execve_failed evt.res=EACCES evt.rawres=-13 evt.failed=true evt.arg.filename=/tmp/x fs.path.name=/tmp/x fd.name",
		},
		"an exec of a script": {
			&eventv1.Event{Kind: &eventv1.Event_Exec{Exec: &eventv1.Exec{Exe: file("/bin/dash"), Script: file("/tmp/x.sh"), Interpreter: "/bin/sh"}}},
			"evt.type=execve evt.arg.filename=/tmp/x.sh fs.path.name fd.name",
		},
		"an exec of a program": {
			&eventv1.Event{Kind: &eventv1.Event_Exec{Exec: &eventv1.Exec{Exe: file("/bin/dash")}}},
			"evt.type=execve evt.arg.filename fs.path.name fd.name",
		},
		"a rename": {
			ended(change(&eventv1.FileChange{Operation: 1, File: file("/a/b"), Target: file("/a/c"), Flags: 2}), 0),
			"evt.type=rename evt.res=SUCCESS evt.failed=false evt.arg.oldpath=/a/b evt.arg.newpath=/a/c evt.arg.flags=RENAME_EXCHANGE " +
				"fs.path.source=/a/b fs.path.target=/a/c fs.path.name fd.name evt.arg.mode evt.arg.uid",
		},
		"an unlink whose result is not known": {
			change(&eventv1.FileChange{Operation: 2, File: file("/var/log/wtmp")}),
			"evt.type=unlink evt.res evt.rawres evt.failed evt.arg.path=/var/log/wtmp evt.arg.name=/var/log/wtmp fs.path.name=/var/log/wtmp evt.arg.flags",
		},
		"a hard link": {
			change(&eventv1.FileChange{Operation: 4, File: file("/etc/shadow"), Target: file("/tmp/s")}),
			"evt.type=link evt.arg.oldpath=/etc/shadow evt.arg.newpath=/tmp/s fs.path.source=/etc/shadow fs.path.target=/tmp/s",
		},
		"a symlink": {
			change(&eventv1.FileChange{Operation: 5, File: file("/tmp/s"), Text: "/etc/shadow"}),
			"evt.type=symlink evt.arg.target=/etc/shadow evt.arg.linkpath=/tmp/s fs.path.source=/etc/shadow fs.path.target=/tmp/s fs.path.name evt.arg.oldpath",
		},
		"a device": {
			change(&eventv1.FileChange{Operation: 7, File: file("/dev/x"), Mode: 0o060644}),
			"evt.type=mknod evt.arg.path=/dev/x evt.arg.mode=S_IFBLK|S_IROTH|S_IRGRP|S_IWUSR|S_IRUSR",
		},
		"a setuid bit": {
			change(&eventv1.FileChange{Operation: 8, File: &eventv1.File{Path: "/tmp/sh", Inode: 7, Device: 3, Mode: 0o100755}, Mode: 0o4000}),
			"evt.type=chmod evt.arg.mode=S_ISUID evt.arg.filename=/tmp/sh fd.name=/tmp/sh fd.directory=/tmp fd.filename=sh fd.type=file fd.ino=7 fd.dev=3 evt.arg.uid",
		},
		"a chmod by path in a tier that knows no inode": {
			change(&eventv1.FileChange{Operation: 8, File: file("/tmp/sh")}), "evt.arg.mode=0 fd.name=/tmp/sh fd.type fd.typechar fd.ino fd.is_upper_layer",
		},
		"a chown of the owner only": {
			change(&eventv1.FileChange{Operation: 9, File: file("/x"), Uid: 0, Gid: 1<<32 - 1}), "evt.arg.uid=0 evt.arg.gid=-1 evt.arg.path=/x evt.arg.mode",
		},
		"a truncate":      {change(&eventv1.FileChange{Operation: 10, File: file("/x"), Size: 9}), "evt.type=truncate evt.arg.length=9 fs.path.name=/x"},
		"an attribute":    {change(&eventv1.FileChange{Operation: 11, File: file("/x"), Text: "security.capability"}), "evt.type=setxattr evt.arg.name=security.capability fs.path.name=/x"},
		"an unmounting":   {change(&eventv1.FileChange{Operation: 13, File: file("/m"), Flags: 2}), "evt.type=umount2 evt.arg.name=/m evt.arg.flags=MNT_DETACH fs.path.name=/m"},
		"a pivot_root":    {change(&eventv1.FileChange{Operation: 14, File: file("/new"), Target: file("/new/old")}), "evt.type=pivot_root fs.path.name=/new fs.path.target=/new/old fs.path.source"},
		"a chroot":        {change(&eventv1.FileChange{Operation: 15, File: file("/jail")}), "evt.type=chroot evt.arg.path=/jail fs.path.name=/jail"},
		"an unknown flag": {change(&eventv1.FileChange{Operation: 12, Flags: 1 << 40}), "evt.arg.flags=0x10000000000 evt.arg.dir evt.arg.dev"},
		"a bind mount": {
			change(&eventv1.FileChange{Operation: 12, File: file("/host"), Text: "/", FileSystem: "none", Flags: 4096 | 16384}),
			"evt.type=mount evt.arg.dev=/ evt.arg.dir=/host evt.arg.type=none evt.arg.fs=none evt.arg.flags=MS_BIND|MS_REC fs.path.source=/ fs.path.target=/host fs.path.name",
		},
		"executable memory without a file": {
			memory(&eventv1.Memory{Operation: 1, Flags: 7, Writable: true}),
			"evt.type=mmap evt.arg.prot=PROT_READ|PROT_WRITE|PROT_EXEC evt.arg.writable=true fd.name fd.type evt.arg.flags",
		},
		"a mapped library": {memory(&eventv1.Memory{Operation: 1, File: file("/lib/x.so"), Flags: 5}), "fd.name=/lib/x.so fd.type=file evt.arg.writable=false"},
		"a memfd": {
			memory(&eventv1.Memory{Operation: 3, Name: "x", Flags: 1}),
			"evt.type=memfd_create evt.arg.name=x evt.arg.flags=MFD_CLOEXEC fd.name=x fd.type=memfd fd.typechar=m fd.directory evt.arg.prot fd.ino",
		},
		"a packet socket": {
			ended(socket(&eventv1.Socket{Operation: 1, Family: 17, Type: 3, Protocol: 768}), 5),
			"evt.type=socket evt.arg.domain=AF_PACKET evt.arg.type=SOCK_RAW evt.arg.proto=768 evt.res=SUCCESS evt.rawres=5 fd.type fd.l4proto fd.name fd.sport",
		},
		"a new TCP socket":   {socket(&eventv1.Socket{Operation: 1, Family: 10, Type: 1}), "fd.type=ipv6 fd.l4proto=tcp"},
		"a raw ICMP socket":  {socket(&eventv1.Socket{Operation: 1, Family: 2, Type: 3, Protocol: 1}), "fd.type=ipv4 fd.l4proto=raw"},
		"a netlink socket":   {socket(&eventv1.Socket{Operation: 1, Family: 16, Type: 3}), "fd.type=netlink fd.typechar=n fd.l4proto evt.arg.domain=AF_NETLINK"},
		"an unknown family":  {socket(&eventv1.Socket{Operation: 1, Family: 200, Type: 77}), "evt.arg.domain=200 evt.arg.type=77"},
		"a bound unix path":  {socket(&eventv1.Socket{Operation: 2, Family: 1, UnixPath: "/run/x.sock"}), "evt.type=bind fd.name=/run/x.sock fd.type=unix fd.typechar=u fd.sport fd.sip fd.l4proto"},
		"a unix connection":  {ended(socket(&eventv1.Socket{Operation: 5, Family: 1, UnixPath: "@bus"}), 0), "evt.type=connect fd.name=@bus fd.type=unix fd.connected=true fd.rport fd.sip"},
		"one under way":      {socket(&eventv1.Socket{Operation: 5, Family: 1, UnixPath: "@bus"}), "fd.connected fd.name_changed=true evt.res"},
		"a unix listener":    {socket(&eventv1.Socket{Operation: 3, Family: 1, UnixPath: "/run/x.sock"}), "evt.type=listen fd.name=/run/x.sock"},
		"a bound port":       {socket(&eventv1.Socket{Operation: 2, Family: 2, Type: 1, Protocol: 6, Address: anywhere}), "evt.type=bind fd.name=0.0.0.0:4444 fd.sport=4444 fd.lport=4444 fd.lip=0.0.0.0 fd.sip=0.0.0.0 fd.l4proto=tcp fd.rport fd.cport fd.rip fd.connected"},
		"a port listened on": {socket(&eventv1.Socket{Operation: 3, Family: 2, Protocol: 6, Address: anywhere}), "evt.type=listen fd.lport=4444 fd.sport=4444 fd.rport"},
		"a datagram sent": {
			ended(socket(&eventv1.Socket{Operation: 4, Family: 2, Type: 2, Protocol: 17, Address: dnsServer}), 30),
			"evt.type=sendto fd.rip=10.0.0.53 fd.sip=10.0.0.53 fd.sport=53 fd.rport=53 fd.l4proto=udp fd.connected=false fd.name_changed=true evt.rawres=30 fd.lport fd.cport fd.name=?:0->10.0.0.53:53",
		},
		"a signal": {
			&eventv1.Event{Kind: &eventv1.Event_Signal{Signal: &eventv1.Signal{Number: 9, Target: &eventv1.ProcessKey{Pid: 12}}}},
			"evt.type=kill evt.arg.sig=SIGKILL evt.arg.pid=12 evt.arg.request",
		},
		"a real-time signal":       {&eventv1.Event{Kind: &eventv1.Event_Signal{Signal: &eventv1.Signal{Number: 34}}}, "evt.arg.sig=34 evt.arg.pid"},
		"a setuid to root":         {ended(privilege(1, 0, 1000, 1000, 1000, 1000, 0, 0), 0), "evt.type=setuid evt.arg.uid=0 evt.arg.ruid=1000 evt.arg.euid=0 evt.arg.suid=0 evt.arg.gid"},
		"a setuid, ids after only": {privilege(1, 0, 5, 6, 7), "evt.arg.ruid=5 evt.arg.uid=6 evt.arg.suid=7"},
		"a setgid":                 {privilege(2, 0, 1, 1, 1, 2, 3, 4), "evt.type=setgid evt.arg.gid=3 evt.arg.rgid=2 evt.arg.egid=3 evt.arg.sgid=4 evt.arg.uid"},
		"a capset":                 {privilege(4, 0, 1<<21, 1<<21|1, 0), "evt.arg.cap_effective=CAP_SYS_ADMIN evt.arg.cap_inheritable= evt.args=cap_effective=CAP_SYS_ADMIN¤cap_permitted=CAP_CHOWN¤CAP_SYS_ADMIN¤cap_inheritable="},
		"a ptrace":                 {ended(privilege(5, 33, 16), -1), "evt.type=ptrace evt.arg.request=PTRACE_ATTACH evt.arg.pid=33 evt.res=EPERM evt.failed=true evt.arg.cmd"},
		"a ptrace of oneself":      {privilege(5, 0, 0), "evt.arg.request=PTRACE_TRACEME evt.arg.pid"},
		"an unknown request":       {privilege(5, 0, 99999), "evt.arg.request=99999"},
		"no request":               {privilege(5, 0), "evt.arg.request"},
		"a read of memory":         {ended(privilege(6, 33, 4096), 4096), "evt.type=process_vm_readv evt.arg.pid=33 evt.rawres=4096"},
		"a write of memory":        {privilege(7, 33, 8), "evt.type=process_vm_writev evt.arg.pid=33"},
		"another namespace":        {privilege(8, 0, 0x20000), "evt.type=setns evt.arg.nstype=CLONE_NEWNS evt.arg.flags=CLONE_NEWNS"},
		"any namespace":            {privilege(8, 0, 0), "evt.arg.nstype=0"},
		"namespaces of one's own":  {privilege(9, 0, 0x10000000|0x40000000), "evt.type=unshare evt.arg.flags=CLONE_NEWUSER|CLONE_NEWNET evt.arg.nstype"},
		"a module": {
			&eventv1.Event{Kind: &eventv1.Event_Privilege{Privilege: &eventv1.Privilege{Operation: 10, Name: "/tmp/rk.ko", Arguments: []uint64{3}}}},
			"evt.type=init_module evt.arg.name=/tmp/rk.ko fd.name=/tmp/rk.ko fs.path.name=/tmp/rk.ko fd.directory=/tmp evt.arg.flags=MODULE_INIT_IGNORE_MODVERSIONS|MODULE_INIT_IGNORE_VERMAGIC",
		},
		"a module taken out": {
			&eventv1.Event{Kind: &eventv1.Event_Privilege{Privilege: &eventv1.Privilege{Operation: 11, Name: "rk", Arguments: []uint64{0o4000}}}},
			"evt.type=delete_module evt.arg.name=rk evt.arg.flags=O_NONBLOCK fs.path.name fd.name",
		},
		"a BPF program":        {privilege(12, 0, 5), "evt.type=bpf evt.arg.cmd=BPF_PROG_LOAD evt.arg.request"},
		"a key read":           {privilege(13, 0, 11), "evt.type=keyctl evt.arg.cmd=KEYCTL_READ"},
		"a key added":          {privilege(13, 0, 0xffffffff), "evt.arg.cmd=ADD_KEY|REQUEST_KEY"},
		"a userfaultfd":        {privilege(14, 0, 0o2000000), "evt.type=userfaultfd evt.arg.flags=O_CLOEXEC"},
		"a perf event":         {privilege(15, 0, 2, 1), "evt.type=perf_event_open evt.arg.type=PERF_TYPE_TRACEPOINT"},
		"an io_uring":          {privilege(16, 0, 32), "evt.type=io_uring_setup evt.arg.entries=32"},
		"an io_uring's opcode": {&eventv1.Event{Kind: &eventv1.Event_IoUring{IoUring: &eventv1.IoUring{Opcode: 16}}}, "evt.type=io_uring evt.arg.opcode=IORING_OP_CONNECT evt.args=opcode=IORING_OP_CONNECT"},
		"a DNS question": {
			&eventv1.Event{Kind: &eventv1.Event_Dns{Dns: &eventv1.Dns{Questions: []*eventv1.DnsQuestion{{Name: "a.example", Type: 16}}, Server: dnsServer}}},
			"evt.type=dns_question dns.question=a.example dns.type=TXT dns.server=10.0.0.53 dns.malformed=false dns.answer dns.rcode evt.res fd.sip",
		},
		"a DNS answer": {
			&eventv1.Event{Kind: &eventv1.Event_Dns{Dns: &eventv1.Dns{
				Response: true, ResponseCode: 3, Malformed: true, Questions: []*eventv1.DnsQuestion{{Name: "a", Type: 1}, {Name: "b", Type: 9999}},
				Answers: []*eventv1.DnsAnswer{{Data: "192.0.2.1"}, {}, {Data: "c.example"}},
			}}},
			"evt.type=dns_answer dns.question=a,b dns.type=A,9999 dns.answer=192.0.2.1,c.example dns.rcode=NXDOMAIN dns.malformed=true dns.server",
		},
		"an open that says its descriptor": {ended(&eventv1.Event{Kind: &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{File: file("/x")}}}, 7), "fd.num=7 evt.rawres=7 evt.res=SUCCESS"},
		"an open that does not":            {&eventv1.Event{Kind: &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{File: file("/x")}}}, "fd.num evt.rawres evt.res=SUCCESS evt.failed=false"},
		"an error without a name":          {ended(privilege(12, 0, 5), -512), "evt.res=-512"},
	}
}

func TestFieldsOfEachKind(t *testing.T) {
	for name, tt := range values() {
		t.Run(name, func(t *testing.T) {
			c := &field.Context{Event: tt.event}
			for want := range strings.FieldsSeq(tt.want) {
				want = strings.ReplaceAll(want, "¤", " ")
				name, value, has := strings.Cut(want, "=")
				f, err := field.Lookup(name, "", false)
				if err != nil {
					t.Fatal(err)
				}
				if got, ok := f.AppendText(nil, c); string(got) != value || ok != has {
					t.Errorf("%s = %q, %t, want %q, %t", name, got, ok, value, has)
				}
			}
		})
	}
}

func TestEveryArgumentIsListed(t *testing.T) {
	for _, name := range field.Names() {
		short, isArgument := strings.CutPrefix(name, "evt.arg.")
		if !isArgument || short == "fs" {
			continue
		}
		listed := false
		args, _ := field.Lookup("evt.args", "", false)
		for _, tt := range values() {
			got, _ := args.AppendText(nil, &field.Context{Event: tt.event})
			listed = listed || strings.Contains(" "+string(got), " "+short+"=")
		}
		if !listed && short != "flags" {
			t.Errorf("%s is in no event's evt.args", name)
		}
	}
}

// Masks are spelled once, however many different ones an attacker thinks of.
func TestMasksAreKeptButNotAllOfThem(t *testing.T) {
	flags, _ := field.Lookup("evt.arg.flags", "", false)
	c := &field.Context{}
	for n := range uint64(100_000) {
		c.Event = privilege(9, 0, n)
		flags.Str(c)
	}
	e := privilege(9, 0, 0x10000000)
	c.Event = e
	flags.Str(c)
	if got := testing.AllocsPerRun(100, func() { flags.Str(c) }); got != 0 {
		t.Errorf("the same mask again allocates %v times, want 0", got)
	}
	if got, _ := flags.Str(c); got != "CLONE_NEWUSER" {
		t.Errorf("flags = %s, want CLONE_NEWUSER", got)
	}
	if got := fmt.Sprintf("%v", c); len(got) > 100_000 {
		t.Errorf("the context holds %d bytes of text, want a bounded number", len(got))
	}
}

package rule_test

import (
	"slices"
	"testing"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
)

// of is cat, doing something.
func of(e *eventv1.Event) *field.Context {
	c := opening("", 0)
	c.Event.Kind, c.Event.Result, c.Event.ResultKnown = e.GetKind(), e.GetResult(), e.GetResultKnown()
	return c
}

// families are an event of each message that has several kinds, and those that came with them.
func families() map[string]*eventv1.Event {
	peer := &eventv1.SocketAddress{Ip: []byte{192, 0, 2, 53}, Port: 53}
	return map[string]*eventv1.Event{
		"failed": {Result: -2, ResultKnown: true, Kind: &eventv1.Event_ExecFailed{ExecFailed: &eventv1.ExecFailed{File: &eventv1.File{Path: "/tmp/x"}}}},
		"link": {ResultKnown: true, Kind: &eventv1.Event_FileChange{FileChange: &eventv1.FileChange{
			Operation: eventv1.FileOperation_FILE_OPERATION_SYMLINK, File: &eventv1.File{Path: "/tmp/s"}, Text: "/etc/shadow"}}},
		"chmod": {Kind: &eventv1.Event_FileChange{FileChange: &eventv1.FileChange{
			Operation: eventv1.FileOperation_FILE_OPERATION_CHMOD, File: &eventv1.File{Path: "/tmp/sh", Inode: 1}, Mode: 0o4755}}},
		"mount": {Kind: &eventv1.Event_FileChange{FileChange: &eventv1.FileChange{
			Operation: eventv1.FileOperation_FILE_OPERATION_MOUNT, File: &eventv1.File{Path: "/mnt"}, Text: "/dev/sda1", FileSystem: "ext4", Flags: 1}}},
		"memory": {Kind: &eventv1.Event_Memory{Memory: &eventv1.Memory{Operation: eventv1.MemoryOperation_MEMORY_OPERATION_MPROTECT_EXEC, Flags: 7, Writable: true}}},
		"packet": {Kind: &eventv1.Event_Socket{Socket: &eventv1.Socket{Operation: eventv1.SocketOperation_SOCKET_OPERATION_CREATE, Family: 17, Type: 3}}},
		"send": {Result: 20, ResultKnown: true, Kind: &eventv1.Event_Socket{Socket: &eventv1.Socket{
			Operation: eventv1.SocketOperation_SOCKET_OPERATION_SEND, Family: 2, Type: 2, Protocol: 17, Address: peer}}},
		"question": {Kind: &eventv1.Event_Dns{Dns: &eventv1.Dns{Questions: []*eventv1.DnsQuestion{{Name: "a.example", Type: 1}, {Name: "b.example", Type: 16}}, Server: peer}}},
		"answer": {Kind: &eventv1.Event_Dns{Dns: &eventv1.Dns{Response: true, Questions: []*eventv1.DnsQuestion{{Name: "a.example"}},
			Answers: []*eventv1.DnsAnswer{{Data: "192.0.2.1"}, {Data: "192.0.2.2"}}}}},
		"ptrace":  {Kind: &eventv1.Event_Privilege{Privilege: &eventv1.Privilege{Operation: eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_PTRACE, Arguments: []uint64{0x4206}, Target: &eventv1.ProcessKey{Pid: 9}}}},
		"setuid":  {Kind: &eventv1.Event_Privilege{Privilege: &eventv1.Privilege{Operation: eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_SETUID, Arguments: []uint64{0, 0, 0, 1000, 0, 0}}}},
		"unshare": {Kind: &eventv1.Event_Privilege{Privilege: &eventv1.Privilege{Operation: eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_UNSHARE, Arguments: []uint64{0x10000000}}}},
		"signal":  {Kind: &eventv1.Event_Signal{Signal: &eventv1.Signal{Number: 9, Target: &eventv1.ProcessKey{Pid: 1}}}},
		"ring":    {Kind: &eventv1.Event_IoUring{IoUring: &eventv1.IoUring{Opcode: 16}}},
	}
}

func TestConditionsOnEveryFamily(t *testing.T) {
	all := families()
	tests := []struct {
		text string
		want []string
	}{
		{"evt.type in (execve, execveat) and proc.name = cat", nil},
		{"evt.type = execve_failed and evt.res = ENOENT and evt.failed = true and proc.name = cat", []string{"failed"}},
		{"evt.failed = true", []string{"failed"}},
		{"evt.res exists", []string{"failed", "link", "send"}},
		{"evt.rawres >= 0", []string{"link", "send"}},
		{"not evt.rawres >= 0 and evt.type in (send, sendto, chmod)", []string{"chmod"}},
		{"evt.type in (symlink, symlinkat) and evt.arg.target in (/etc/shadow)", []string{"link"}},
		{"evt.type = fchmodat and (evt.arg.mode contains S_ISUID or evt.arg.mode contains S_ISGID)", []string{"chmod"}},
		{"fd.name startswith /tmp/", []string{"chmod"}},
		{"fs.path.name startswith /tmp/", []string{"chmod", "failed"}},
		{"fs.path.target startswith /tmp/ and fs.path.source startswith /etc/", []string{"link"}},
		{"evt.arg.dev startswith /dev/ and evt.arg.type = ext4 and evt.arg.flags contains MS_RDONLY", []string{"mount"}},
		{"evt.arg.prot contains PROT_WRITE and evt.arg.writable = true", []string{"memory"}},
		{"evt.type = socket and evt.arg.domain contains AF_PACKET and evt.arg.type = SOCK_RAW", []string{"packet"}},
		{"evt.type in (sendto, sendmsg) and fd.l4proto != tcp and fd.connected=false and fd.name_changed=true and evt.rawres >= 0", []string{"send"}},
		{"fd.sport = 53 and fd.typechar = 4", []string{"send"}},
		{"dns.question = b.example", []string{"question"}},
		{"dns.question != b.example", []string{"answer"}},
		{"dns.question endswith .example and dns.type in (TXT)", []string{"question"}},
		{"dns.answer in (192.0.2.2) and dns.rcode = NOERROR", []string{"answer"}},
		{"dns.answer exists", []string{"answer"}},
		{"len(dns.question) > 8 and dns.server = 192.0.2.53", []string{"question"}},
		{"evt.type=ptrace and evt.arg.request contains PTRACE_SEIZE and evt.arg.pid = 9", []string{"ptrace"}},
		{"evt.arg.uid = root and evt.arg.ruid != 1000", nil},
		{"evt.arg.uid = 0 and evt.arg.ruid in (1000)", []string{"setuid"}},
		{"evt.arg.flags contains CLONE_NEWUSER", []string{"unshare"}},
		{"evt.type = tkill and evt.arg.sig in (SIGKILL, SIGSTOP) and evt.arg.pid = 1", []string{"signal"}},
		{"evt.type = io_uring and evt.arg.opcode = IORING_OP_CONNECT", []string{"ring"}},
		{"evt.args contains IORING", []string{"ring"}},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			set, warnings := mustLoad(t, ruleOf(tt.text)+"  warn_evttypes: false\n")
			for _, w := range warnings {
				if tt.want != nil && w.Field != "evt.type" {
					t.Errorf("warning: %s", w)
				}
			}
			var got []string
			for name, e := range all {
				if len(matched(set, of(e))) > 0 {
					got = append(got, name)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, tt.want) {
				t.Errorf("Match(%s) = %q, want %q", tt.text, got, tt.want)
			}
		})
	}
}

func TestAnEventOfAnyFamilyThatMatchesNothingDoesNotAllocate(t *testing.T) {
	set, _ := mustLoad(t, ruleOf(`evt.num > 0 and (evt.arg.target = /x or evt.arg.mode contains S_ISVTX or evt.arg.flags contains CLONE_NEWNET
		or evt.arg.prot = PROT_EXEC or evt.arg.domain = AF_INET or evt.arg.request = PTRACE_ATTACH or evt.arg.sig = SIGTERM or evt.arg.uid = 7
		or dns.question = x or dns.answer = x or dns.type = MX or evt.arg.opcode = IORING_OP_NOP or evt.res = EIO or fd.sip = 1.1.1.1
		or fs.path.name = /x or fs.path.source = /x or evt.arg.cap_effective contains CAP_X or fd.typechar = n)`))
	for name, e := range families() {
		c := of(e)
		if got := matched(set, c); len(got) > 0 {
			t.Fatalf("%s matches", name)
		}
		nothing := func(*rule.Rule) {}
		if got := testing.AllocsPerRun(100, func() { set.Match(c, nothing) }); got != 0 {
			t.Errorf("%s: Match allocates %v times, want 0", name, got)
		}
	}
}

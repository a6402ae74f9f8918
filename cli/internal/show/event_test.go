package show

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

func peer(text string) *eventv1.SocketAddress {
	at := netip.MustParseAddrPort(text)
	return &eventv1.SocketAddress{Ip: at.Addr().AsSlice(), Port: uint32(at.Port())}
}

func TestEvent(t *testing.T) {
	tests := []struct {
		name  string
		event *eventv1.Event
		want  string
	}{
		{name: "exec", want: "exec          sh[7]  busybox echo hi (/bin/busybox)", event: &eventv1.Event{
			Kind: &eventv1.Event_Exec{Exec: &eventv1.Exec{Exe: &eventv1.File{Path: "/bin/busybox"}, Argv: []string{"busybox", "echo", "hi"}}},
		}},
		{name: "script", want: "exec          sh[7]  /bin/sh for /run.sh", event: &eventv1.Event{
			Kind: &eventv1.Event_Exec{Exec: &eventv1.Exec{Exe: &eventv1.File{Path: "/bin/sh"}, Script: &eventv1.File{Path: "/run.sh"}}},
		}},
		{name: "exec that failed", want: "exec_failed   sh[7]  /nowhere = ENOENT", event: &eventv1.Event{
			ResultKnown: true, Result: -2, Kind: &eventv1.Event_ExecFailed{ExecFailed: &eventv1.ExecFailed{File: &eventv1.File{Path: "/nowhere"}}},
		}},
		{name: "fork", want: "fork          sh[7]  child 8", event: &eventv1.Event{Kind: &eventv1.Event_Fork{Fork: &eventv1.Fork{Child: &eventv1.ProcessKey{Pid: 8}}}}},
		{name: "exit", want: "exit          sh[7]  status 3", event: &eventv1.Event{Kind: &eventv1.Event_Exit{Exit: &eventv1.Exit{WaitStatus: 3 << 8}}}},
		{name: "killed", want: "exit          sh[7]  signal 9", event: &eventv1.Event{Kind: &eventv1.Event_Exit{Exit: &eventv1.Exit{WaitStatus: 9 | 0x80}}}},
		{name: "open", want: "file_open     sh[7]  /etc/shadow (read and write) (denied by a guard)", event: &eventv1.Event{
			Guard: 4, Kind: &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{File: &eventv1.File{Path: "/etc/shadow"}, Flags: 0o102}},
		}},
		{name: "chmod", want: "chmod         sh[7]  /a 4755", event: &eventv1.Event{Kind: &eventv1.Event_FileChange{FileChange: &eventv1.FileChange{
			Operation: eventv1.FileOperation_FILE_OPERATION_CHMOD, File: &eventv1.File{Path: "/a"}, Mode: 0o4755,
		}}}},
		{name: "rename", want: "rename        sh[7]  /a → /b", event: &eventv1.Event{Kind: &eventv1.Event_FileChange{FileChange: &eventv1.FileChange{
			Operation: eventv1.FileOperation_FILE_OPERATION_RENAME, File: &eventv1.File{Path: "/a"}, Target: &eventv1.File{Path: "/b"},
		}}}},
		{name: "connect", want: "connect       sh[7]  to [2001:db8::1]:443 (tcp)", event: &eventv1.Event{
			Kind: &eventv1.Event_Connect{Connect: &eventv1.Connect{Remote: peer("[2001:db8::1]:443"), Protocol: 6}},
		}},
		{name: "address of an odd length", want: "connect       sh[7]  to ? (protocol 132)", event: &eventv1.Event{
			Kind: &eventv1.Event_Connect{Connect: &eventv1.Connect{Remote: &eventv1.SocketAddress{Ip: []byte{1, 2}}, Protocol: 132}},
		}},
		{name: "name", want: "dns_question  sh[7]  example.org", event: &eventv1.Event{
			Kind: &eventv1.Event_Dns{Dns: &eventv1.Dns{Questions: []*eventv1.DnsQuestion{{Name: "example.org"}}}},
		}},
		{name: "one without words of its own", want: "}", event: &eventv1.Event{
			Kind: &eventv1.Event_Privilege{Privilege: &eventv1.Privilege{Operation: eventv1.PrivilegeOperation_PRIVILEGE_OPERATION_PTRACE}},
		}},
		{name: "nothing", want: "?             sh[7]", event: &eventv1.Event{}},
		{name: "long", want: "…", event: &eventv1.Event{Kind: &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{File: &eventv1.File{Path: strings.Repeat("/a", 4000)}}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.event.Comm, tt.event.Process, tt.event.Time = "sh", &eventv1.ProcessKey{Pid: 7}, timestamppb.New(time.Unix(1, 0))
			var out strings.Builder
			if err := Event(&out, tt.event, false); err != nil {
				t.Fatal(err)
			}
			if got := out.String(); !strings.HasSuffix(got, tt.want+"\n") || len(got) > 600 {
				t.Errorf("Event() = %q, want it to end in %q", got, tt.want)
			}
		})
	}
}

const evil = "\x1b]0;owned\x07\r\n\u202e\u009b31m\x7f\U000e0001"

func drives(r rune) bool {
	return r < ' ' && r != '\n' || (r >= 0x7f && r < 0xa0) || r == '\u202e' || r == '\U000e0001'
}

func TestB23EventsDoNotDriveTheTerminal(t *testing.T) {
	e := &eventv1.Event{Comm: evil, Kind: &eventv1.Event_Exec{Exec: &eventv1.Exec{Exe: &eventv1.File{Path: evil}, Argv: []string{evil}}}}
	recorded := []*correlatorv1.RecordedWorkload{{Workload: &findingv1.Workload{ContainerId: evil, ContainerName: evil, PodName: evil, PodNamespace: evil, Image: evil}}}
	for name, write := range map[string]func(*strings.Builder) error{
		"text":      func(out *strings.Builder) error { return Event(out, e, false) },
		"JSON":      func(out *strings.Builder) error { return JSONLine(out, e) },
		"workloads": func(out *strings.Builder) error { return Recorded(out, recorded) },
		"incident":  func(out *strings.Builder) error { return IncidentJSON(out, &Incident{Origin: evil}) },
	} {
		var out strings.Builder
		if err := write(&out); err != nil {
			t.Fatal(err)
		}
		if i := strings.IndexFunc(out.String(), drives); i >= 0 {
			t.Errorf("%s: control character at byte %d of %q", name, i, out.String())
		}
	}
}

// JSON says the same as before it was escaped.
func FuzzJSONLine(f *testing.F) {
	f.Add(evil)
	f.Add("\xff\xfe")
	f.Add(`\u009b"\\`)
	f.Fuzz(func(t *testing.T, text string) {
		e := &eventv1.Event{Comm: strings.ToValidUTF8(text, "?"), Kind: &eventv1.Event_Exec{Exec: &eventv1.Exec{Argv: []string{strings.ToValidUTF8(text, "")}}}}
		var out strings.Builder
		if err := JSONLine(&out, e); err != nil {
			t.Fatal(err)
		}
		line := strings.TrimSuffix(out.String(), "\n")
		got := &eventv1.Event{}
		if err := protojson.Unmarshal([]byte(line), got); err != nil || !proto.Equal(got, e) {
			t.Errorf("JSONLine() = %q, which is read as %v, %v", line, got, err)
		}
		if !json.Valid([]byte(line)) || strings.ContainsFunc(line, drives) || strings.Contains(line, "\n") {
			t.Errorf("JSONLine() = %q, want one line that drives nothing", line)
		}
	})
}

func TestGap(t *testing.T) {
	for reason, want := range map[correlatorv1.MissedReason]string{
		correlatorv1.MissedReason_MISSED_REASON_RATE: "-- 12 events are missing: more came than recorder.", correlatorv1.MissedReason(99): "-- 12 events are missing: unknown",
	} {
		var out strings.Builder
		if err := Gap(&out, &correlatorv1.Gap{Events: 12, Reason: reason, Time: timestamppb.New(time.Unix(1, 0))}, false); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("Gap(%v) = %q, %v, want %q in it", reason, out.String(), err, want)
		}
	}
	for number, name := range correlatorv1.MissedReason_name {
		reason := correlatorv1.MissedReason(number)
		if reason == correlatorv1.MissedReason_MISSED_REASON_UNSPECIFIED || reason == correlatorv1.MissedReason_MISSED_REASON_READER {
			continue // of palisade record alone
		}
		if _, ok := gapReasons[reason]; !ok {
			t.Errorf("%s has no words", name)
		}
	}
}

// A slice spans the findings with their repeats, and is of the container once it is known.
func TestSlice(t *testing.T) {
	at := func(s int64) *timestamppb.Timestamp { return timestamppb.New(time.Unix(s, 0)) }
	pending := &findingv1.Workload{Metadata: findingv1.MetadataState_METADATA_STATE_PENDING}
	known := &findingv1.Workload{Metadata: findingv1.MetadataState_METADATA_STATE_KNOWN, ContainerId: "c1"}
	finding := func(s int64, w *findingv1.Workload) *findingv1.Finding {
		return &findingv1.Finding{Time: at(s), Workload: w, Incident: &findingv1.Incident{Id: "i"}, Event: &eventv1.Event{CgroupId: 77}}
	}
	repeats := finding(30, known)
	repeats.Repeats = &findingv1.Repeats{First: at(5), Last: at(40)}
	r := Slice([]*findingv1.Finding{finding(20, pending), repeats, finding(10, pending)})
	if r.GetIncident() != "i" || r.GetWorkload() != "c1" || r.GetSince().GetSeconds() != 5 || r.GetUntil().GetSeconds() != 40 {
		t.Errorf("Slice() = %v, want c1 from 5 to 40", r)
	}
	if r := Slice([]*findingv1.Finding{finding(20, pending)}); r.GetWorkload() != "cgroup 77" {
		t.Errorf("Slice() of what nobody knows = %v, want its cgroup", r)
	}
	host := &findingv1.Workload{Metadata: findingv1.MetadataState_METADATA_STATE_HOST}
	if r := Slice([]*findingv1.Finding{finding(20, host)}); r.GetWorkload() != "host" {
		t.Errorf("Slice() of the host's = %v", r)
	}
}

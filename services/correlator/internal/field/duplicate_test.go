package field_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

// shown is the fields' values, separated by spaces.
func shown(t *testing.T, c *field.Context, names string) string {
	t.Helper()
	var values []string
	for name := range strings.FieldsSeq(names) {
		f, err := field.Lookup(name, "", false)
		if err != nil {
			t.Fatal(err)
		}
		value, ok := f.AppendText(nil, c)
		if !ok {
			value = []byte("<NA>")
		}
		values = append(values, string(value))
	}
	return strings.Join(values, " ")
}

func TestFieldsOfADuplicate(t *testing.T) {
	here := &eventv1.SocketAddress{Ip: []byte{10, 0, 0, 2}, Port: 50000}
	there := &eventv1.SocketAddress{Ip: []byte{192, 0, 2, 1}, Port: 4444}
	none := &eventv1.SocketAddress{Ip: make([]byte, 4)}
	const names = "evt.type evt.rawres evt.res fd.num fd.type fd.typechar fd.sockfamily fd.l4proto fd.sip fd.rip fd.lport fd.name fd.is_server fd.connected fd.name_changed"
	for _, tt := range []struct {
		name string
		d    *eventv1.Duplicate
		want string
	}{
		{
			"of a connection made",
			&eventv1.Duplicate{Call: eventv1.DuplicateCall_DUPLICATE_CALL_DUP3, Source: 7, Family: 2, Type: 1, Protocol: 6, Local: here, Remote: there},
			"dup3 1 SUCCESS 7 ipv4 4 ip tcp 192.0.2.1 192.0.2.1 50000 10.0.0.2:50000->192.0.2.1:4444 false true <NA>",
		},
		{
			"of a connection that came in",
			&eventv1.Duplicate{Call: eventv1.DuplicateCall_DUPLICATE_CALL_DUP2, Source: 7, Family: 2, Type: 1, Protocol: 6, Local: here, Remote: there, Accepted: true},
			"dup2 1 SUCCESS 7 ipv4 4 ip tcp 10.0.0.2 192.0.2.1 50000 192.0.2.1:4444->10.0.0.2:50000 true true <NA>",
		},
		{
			"of a socket that goes nowhere, by fcntl",
			&eventv1.Duplicate{Call: eventv1.DuplicateCall_DUPLICATE_CALL_FCNTL, Source: 7, Family: 2, Type: 2, Protocol: 17, Local: none, Remote: none},
			"dup 1 SUCCESS 7 ipv4 4 ip udp <NA> <NA> <NA> <NA> false false <NA>",
		},
		{
			"of a family without addresses",
			&eventv1.Duplicate{Call: eventv1.DuplicateCall_DUPLICATE_CALL_DUP, Source: 7, Family: 40, Type: 1},
			"dup 1 SUCCESS 7 <NA> <NA> <NA> <NA> <NA> <NA> <NA> <NA> false false <NA>",
		},
	} {
		c := &field.Context{Event: &eventv1.Event{Result: 1, ResultKnown: true, Kind: &eventv1.Event_Duplicate{Duplicate: tt.d}}}
		if got := shown(t, c, names); got != tt.want {
			t.Errorf("%s:\n%s, want\n%s", tt.name, got, tt.want)
		}
	}
}

// A path that could not be read is missing; an empty one is not.
func TestPathAsGiven(t *testing.T) {
	const argument, kernel = eventv1.PathSource_PATH_SOURCE_ARGUMENT, eventv1.PathSource_PATH_SOURCE_KERNEL
	for _, tt := range []struct {
		name string
		open *eventv1.FileOpen
		want string
	}{
		{"nobody asked", &eventv1.FileOpen{}, "<NA>"},
		{"the kernel's copy", &eventv1.FileOpen{GivenPath: "../../etc/passwd", GivenPathSource: kernel}, "../../etc/passwd"},
		{"the caller's memory", &eventv1.FileOpen{GivenPath: "../f", GivenPathSource: argument}, "../f"},
		{"gone", &eventv1.FileOpen{GivenPathSource: argument, GivenPathUnreadable: true}, "<NA>"},
		{"made empty", &eventv1.FileOpen{GivenPathSource: argument}, ""},
	} {
		c := &field.Context{Event: &eventv1.Event{Kind: &eventv1.Event_FileOpen{FileOpen: tt.open}}}
		if got := shown(t, c, "fd.nameraw"); got != tt.want {
			t.Errorf("%s: fd.nameraw = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestTimesOfTheExecutable(t *testing.T) {
	const names = "proc.exe_ino.ctime proc.exe_ino.mtime proc.exe_ino.ctime_duration_proc_start"
	second := uint64(time.Second)
	// Started 5 s after boot, seen 10 s after boot, which is second 1010: so it started in second 1005.
	event := &eventv1.Event{BoottimeNs: 10 * second, Time: &timestamppb.Timestamp{Seconds: 1010}, Kind: &eventv1.Event_Exec{}}
	key := field.Key{PID: 1, StartBoottimeNs: 5 * second}
	for _, tt := range []struct {
		p    *field.Process
		want string
	}{
		{&field.Process{Key: key}, "<NA> <NA> <NA>"},
		{&field.Process{Key: key, ExeCtimeNs: 1000e9, ExeMtimeNs: 7}, "1000000000000 7 5000000000"},
		{&field.Process{Key: key, ExeCtimeNs: 1006e9, ExeMtimeNs: 1}, "1006000000000 1 -1000000000"},
	} {
		if got := shown(t, &field.Context{Event: event, Process: tt.p}, names); got != tt.want {
			t.Errorf("%s = %s, want %s", names, got, tt.want)
		}
	}
	if got := shown(t, &field.Context{Event: event}, names); got != "<NA> <NA> <NA>" {
		t.Errorf("of no process: %s", got)
	}
}

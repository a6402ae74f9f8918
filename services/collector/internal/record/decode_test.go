package record

import (
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// raw is a record of a kind and a size, with a header that says so, and 32-bit words set.
func raw(kind Kind, size int, words map[int]uint32) []byte {
	r := make([]byte, size)
	if size >= headerSize {
		binary.LittleEndian.PutUint32(r, uint32(size))
		binary.LittleEndian.PutUint32(r[headerKind:], uint32(kind))
	}
	for at, word := range words {
		binary.LittleEndian.PutUint32(r[at:], word)
	}
	return r
}

func TestDecodeRefuses(t *testing.T) {
	tests := []struct {
		name string
		raw  []byte
		want error
	}{
		{name: "empty record", want: ErrShort},
		{name: "header one byte short", raw: raw(Exec, headerSize-1, nil), want: ErrShort},
		{name: "kind zero", raw: raw(0, headerSize, nil), want: ErrKind},
		{name: "kind after the last", raw: raw(Kinds, headerSize, nil), want: ErrKind},
		{name: "exec one byte short", raw: raw(Exec, execSize-1, nil), want: ErrShort},
		{name: "existing one byte short", raw: raw(Existing, execSize-1, nil), want: ErrShort},
		{name: "exec with a path that is not there", raw: raw(Exec, execSize, map[int]uint32{execFile + filePathLen: 1}), want: ErrShort},
		{name: "exec with a directory that is not there", raw: raw(Exec, execSize+3, map[int]uint32{execCwdLen: 4}), want: ErrShort},
		{name: "exec with arguments past the end", raw: raw(Exec, execSize+8, map[int]uint32{execCwdLen: 4, execArgvLen: 5}), want: ErrShort},
		{name: "exec with a length of 4 GiB", raw: raw(Exec, execSize+8, map[int]uint32{execArgvLen: 1<<32 - 1}), want: ErrShort},
		{name: "exec of a script without names", raw: raw(Exec, execSize, map[int]uint32{execFlags: execScript}), want: ErrShort},
		{name: "exec of a script without an interpreter", raw: script("s\x00"), want: ErrShort},
		{name: "exec of a script whose interpreter is cut", raw: script("s\x00i"), want: ErrShort},
		{name: "exec with times that are not there", raw: raw(Exec, execSize+timesSize-1, map[int]uint32{execFlags: execTimes}), want: ErrShort},
		{name: "script with times that are not there", raw: withFlags(script("s\x00i\x00"), execScript|execTimes), want: ErrShort},
		{name: "fork one byte short", raw: raw(Fork, forkSize-1, nil), want: ErrShort},
		{name: "exit one byte short", raw: raw(Exit, exitSize-1, nil), want: ErrShort},
		{name: "file open one byte short", raw: raw(FileOpen, fileOpenSize-1, nil), want: ErrShort},
		{name: "file open with a path that is not there", raw: raw(FileOpen, fileOpenSize, map[int]uint32{fileOpenFile + filePathLen: 9}), want: ErrShort},
		{name: "file open with a path as given that is not there", raw: opened(givenKernel, 5, "1234"), want: ErrShort},
		{name: "duplicate one byte short", raw: raw(Duplicate, duplicateSize-1, nil), want: ErrShort},
		{name: "connect one byte short", raw: raw(Connect, socketSize-1, nil), want: ErrShort},
		{name: "accept one byte short", raw: raw(Accept, socketSize-1, nil), want: ErrShort},
		{name: "change one byte short", raw: raw(Rename, changeSize-1, nil), want: ErrShort},
		{name: "failed exec one byte short", raw: raw(ExecFailed, changeSize-1, nil), want: ErrShort},
		{name: "change with a base that is not there", raw: raw(Unlink, changeSize+1, map[int]uint32{changeFile + filePathLen: 1, changeFile + fileBaseLen: 1}), want: ErrShort},
		{name: "change with a target that is not there", raw: raw(Link, changeSize, map[int]uint32{changeTarget + filePathLen: 1}), want: ErrShort},
		{name: "change with a text that is not there", raw: raw(Symlink, changeSize, map[int]uint32{changeTextLen: 1}), want: ErrShort},
		{name: "mount with a type that is not there", raw: raw(Mount, changeSize, map[int]uint32{changeFSLen: 1}), want: ErrShort},
		{name: "memory one byte short", raw: raw(Memfd, memorySize-1, nil), want: ErrShort},
		{name: "memory with a name that is not there", raw: raw(Memfd, memorySize, map[int]uint32{memoryNameLen: 1}), want: ErrShort},
		{name: "socket one byte short", raw: raw(Bind, socketSize-1, nil), want: ErrShort},
		{name: "socket with a path that is not there", raw: raw(ConnectUnix, socketSize, map[int]uint32{socketType: 1 << 16}), want: ErrShort},
		{name: "DNS one byte short", raw: raw(DNSAnswer, dnsSize-1, nil), want: ErrShort},
		{name: "DNS with a message that is not there", raw: raw(DNSQuestion, dnsSize, map[int]uint32{dnsRemotePort: 1 << 16}), want: ErrShort},
		{name: "signal one byte short", raw: raw(Signal, signalSize-1, nil), want: ErrShort},
		{name: "privilege one byte short", raw: raw(Setuid, privilegeSize-1, nil), want: ErrShort},
		{name: "privilege with too many arguments", raw: raw(Setuid, privilegeSize, map[int]uint32{privilegeArgCount: 4}), want: ErrShort},
		{name: "module with a name that is not there", raw: raw(ModuleLoad, privilegeSize, map[int]uint32{privilegeNameLen: 1}), want: ErrShort},
		{name: "io_uring one byte short", raw: raw(IOUring, privilegeSize-1, nil), want: ErrShort},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			event, _, err := Decoder{}.Decode(tt.raw)
			if !errors.Is(err, tt.want) || event != nil {
				t.Errorf("Decode(%d bytes) = %v, %v, want nil, %v", len(tt.raw), event, err, tt.want)
			}
		})
	}
}

// streamed are messages as they come over TCP: whole, cut off within the name, only announced.
func streamed() []struct {
	name string
	raw  []byte
	want *eventv1.Dns
} {
	const whole = "\x00\x4d\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01"
	message := func(n int) []byte {
		header := raw(DNSQuestion, dnsSize, map[int]uint32{
			dnsRemotePort: dnsPort | uint32(n)<<16, dnsWholeLen: uint32(len(whole)), dnsProtocol: 6,
		})
		return append(header, whole[:n]...)
	}
	a := []*eventv1.DnsQuestion{{Name: "a", Type: 1}}
	return []struct {
		name string
		raw  []byte
		want *eventv1.Dns
	}{
		{"whole", message(len(whole)), &eventv1.Dns{Id: 77, Questions: a, Protocol: 6}},
		{"cut off in the name", message(13), &eventv1.Dns{Id: 77, Truncated: true, Malformed: true, Protocol: 6}},
		{"only announced", message(0), &eventv1.Dns{Truncated: true, Malformed: true, Protocol: 6}},
	}
}

func TestDecodeDNSOverTCP(t *testing.T) {
	for _, tt := range streamed() {
		event, _, err := Decoder{}.Decode(tt.raw)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		opts := []cmp.Option{protocmp.Transform(), protocmp.IgnoreFields(&eventv1.Dns{}, "client", "server")}
		if diff := cmp.Diff(tt.want, event.GetDns(), opts...); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// script is an exec in /d, of an executable without a path, followed by these names.
func script(names string) []byte {
	return append(raw(Exec, execSize, map[int]uint32{execFlags: execScript, execCwdLen: 2}), "/d"+names...)
}

func TestDecodeScript(t *testing.T) {
	tests := []struct{ name, script, interpreter, path, want string }{
		{name: "absolute", script: "/s", interpreter: "/bin/sh", path: "/s", want: "/bin/sh"},
		{name: "relative", script: "./s", interpreter: "sh", path: "/d/s", want: "sh"},
		{name: "from above", script: "../s", interpreter: "sh", path: "/d/../s", want: "sh"},
		{name: "not UTF-8", script: "/\xff", interpreter: "\xff", path: "/\uFFFD", want: "\uFFFD"},
		{name: "not readable"},
	}
	for _, tt := range tests {
		event, _, err := Decoder{}.Decode(script(tt.script + "\x00" + tt.interpreter + "\x00"))
		if err != nil {
			t.Fatal(err)
		}
		if got := event.GetExec(); got.GetScript().GetPath() != tt.path || got.GetInterpreter() != tt.want {
			t.Errorf("%s: script, interpreter = %q, %q, want %q, %q", tt.name, got.GetScript().GetPath(), got.GetInterpreter(), tt.path, tt.want)
		}
	}
}

// withFlags is an exec with other flags.
func withFlags(exec []byte, flags uint32) []byte {
	binary.LittleEndian.PutUint32(exec[execFlags:], flags)
	return exec
}

// timed is an exec with the times of its file behind everything else.
func timed(exec []byte, flags uint32, ctime, mtime int64) []byte {
	exec = binary.LittleEndian.AppendUint64(withFlags(exec, flags|execTimes), uint64(ctime))
	return binary.LittleEndian.AppendUint64(exec, uint64(mtime))
}

func TestDecodeTimes(t *testing.T) {
	for name, exec := range map[string][]byte{
		"program": timed(raw(Exec, execSize, nil), 0, 1_700_000_000_000_000_001, -1),
		"script":  timed(script("./s\x00/bin/sh\x00"), execScript, 1_700_000_000_000_000_001, -1),
	} {
		event, _, err := Decoder{}.Decode(exec)
		if err != nil {
			t.Fatal(err)
		}
		if got := event.GetExec(); got.GetExeCtimeNs() != 1_700_000_000_000_000_001 || got.GetExeMtimeNs() != -1 {
			t.Errorf("%s: ctime, mtime = %d, %d", name, got.GetExeCtimeNs(), got.GetExeMtimeNs())
		}
	}
}

// opened is an open of /f with a path as its caller gave it.
func opened(flags, length uint32, path string) []byte {
	words := map[int]uint32{fileOpenFile + filePathLen: 2, fileOpenGivenLen: flags<<16 | length}
	return append(raw(FileOpen, fileOpenSize, words), "/f"+path...)
}

func TestDecodePathAsGiven(t *testing.T) {
	file := &eventv1.File{Path: "/f", PathSource: eventv1.PathSource_PATH_SOURCE_KERNEL}
	const fromKernel, fromArgument = eventv1.PathSource_PATH_SOURCE_KERNEL, eventv1.PathSource_PATH_SOURCE_ARGUMENT
	for _, tt := range []struct {
		name string
		raw  []byte
		want *eventv1.FileOpen
	}{
		{"nobody asked", opened(0, 0, ""), &eventv1.FileOpen{}},
		{"the kernel's copy", opened(givenKernel, 4, "../f"), &eventv1.FileOpen{GivenPath: "../f", GivenPathSource: fromKernel}},
		{"the caller's memory", opened(givenArgument, 4, "..\xfff"), &eventv1.FileOpen{GivenPath: "..\uFFFDf", GivenPathSource: fromArgument}},
		{"cut", opened(givenArgument|givenTruncated, 1, "x"), &eventv1.FileOpen{GivenPath: "x", GivenPathSource: fromArgument, GivenPathTruncated: true}},
		{"gone", opened(givenArgument|givenUnreadable, 0, ""), &eventv1.FileOpen{GivenPathSource: fromArgument, GivenPathUnreadable: true}},
	} {
		event, _, err := Decoder{}.Decode(tt.raw)
		if err != nil {
			t.Fatal(err)
		}
		tt.want.File = file
		if diff := cmp.Diff(tt.want, event.GetFileOpen(), protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestDecodeExecGains(t *testing.T) {
	for flags, want := range map[uint32]*eventv1.Exec{
		execArgvTruncated | execArgvUnreadable: {ArgvTruncated: true, ArgvUnreadable: true},
		execSetuid | execSecure:                {Setuid: true, Secure: true},
		execSetgid:                             {Setgid: true},
		execCapabilities:                       {FileCapabilities: true},
	} {
		event, _, err := Decoder{}.Decode(raw(Exec, execSize, map[int]uint32{execFlags: flags}))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, event.GetExec(), protocmp.Transform()); diff != "" {
			t.Errorf("flags %#x (-want +got):\n%s", flags, diff)
		}
	}
}

func TestArgv(t *testing.T) {
	tests := []struct {
		name, raw string
		want      []string
	}{
		{name: "none"},
		{name: "one empty", raw: "\x00", want: []string{""}},
		{name: "empty in the middle", raw: "a\x00\x00b\x00", want: []string{"a", "", "b"}},
		{name: "cut in the last", raw: "a\x00bc", want: []string{"a", "bc"}},
		{name: "not UTF-8", raw: "a\xffb\x00", want: []string{"a\uFFFDb"}},
	}
	for _, tt := range tests {
		if got := Argv([]byte(tt.raw)); !cmp.Equal(got, tt.want) {
			t.Errorf("%s: Argv(%q) = %q, want %q", tt.name, tt.raw, got, tt.want)
		}
	}
}

var update = flag.Bool("update", false, "rewrite the expected events of testdata from its records")

// Each testdata/*.bin is a record as a real kernel wrote it (see kerneltest.TestCapture); the .json beside it is the event.
func TestDecodeCaptures(t *testing.T) {
	decoder := NewDecoder(time.Unix(1_700_000_000, 0))
	captures, err := filepath.Glob("testdata/*.bin")
	if err != nil || len(captures) != Kinds-1 {
		t.Fatalf("captures = %d, %v, want one of each of %d kinds", len(captures), err, Kinds-1)
	}
	for _, path := range captures {
		t.Run(filepath.Base(path), func(t *testing.T) {
			record, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got, kind, err := decoder.Decode(record)
			if err != nil {
				t.Fatal(err)
			}
			if name := strings.TrimSuffix(filepath.Base(path), ".bin"); kind.Class() != name {
				t.Errorf("kind = %s, want %s", kind.Class(), name)
			}
			golden := strings.TrimSuffix(path, ".bin") + ".json"
			if *update {
				if err := os.WriteFile(golden, []byte(protojson.MarshalOptions{Multiline: true}.Format(got)+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			text, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			want := &eventv1.Event{}
			if err := protojson.Unmarshal(text, want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("event differs (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	captures, err := filepath.Glob("testdata/*.bin")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range captures {
		record, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(record)
	}
	f.Add(script("./s\x00/bin/sh\x00"))
	f.Add(timed(script("./s\x00/bin/sh\x00"), execScript, 1, 2))
	f.Add(opened(givenArgument, 4, "../f"))
	for _, r := range streamed() {
		f.Add(r.raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		event, _, err := Decoder{}.Decode(raw)
		if (event == nil) == (err == nil) {
			t.Errorf("Decode = %v, %v: want either an event or an error", event, err)
		}
		if _, err := proto.Marshal(event); event != nil && err != nil {
			t.Errorf("event cannot be marshalled: %v", err)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	record, err := os.ReadFile("testdata/file_open.bin")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := (Decoder{}).Decode(record); err != nil {
			b.Fatal(err)
		}
	}
}

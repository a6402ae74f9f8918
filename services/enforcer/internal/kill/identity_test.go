package kill

import (
	"errors"
	"strings"
	"testing"
)

// numbers is what follows the name in a real line, with its start time in field 22 at the end.
const numbers = " S 41 42 42 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 987654"

func TestParseStat(t *testing.T) {
	tests := []struct {
		name    string
		raw     string
		want    identity
		wantErr error
	}{
		{name: "plain", raw: "42 (sh)" + numbers + " 0 0\n", want: identity{pid: 42, comm: "sh", parent: 41, flags: 4194560, startTicks: 987654}},
		{
			name: "name that looks like the end of a name and more fields",
			raw:  "42 (a) S 1 1 1 0 -1 0 (b\n)" + numbers,
			want: identity{pid: 42, comm: "a) S 1 1 1 0 -1 0 (b\n", parent: 41, flags: 4194560, startTicks: 987654},
		},
		{name: "empty name", raw: "42 ()" + numbers, want: identity{pid: 42, parent: 41, flags: 4194560, startTicks: 987654}},
		{name: "empty", wantErr: errStat},
		{name: "name that does not end", raw: "42 (sh" + numbers, wantErr: errStat},
		{name: "parentheses the wrong way round", raw: "42 )sh(" + numbers, wantErr: errStat},
		{name: "one field short", raw: "42 (sh)" + strings.TrimSuffix(numbers, " 987654"), wantErr: errStat},
		{name: "start time is no number", raw: "42 (sh)" + strings.ReplaceAll(numbers, "987654", "x"), wantErr: errStat},
		{name: "start time beyond 64 bits", raw: "42 (sh)" + strings.ReplaceAll(numbers, "987654", "99999999999999999999"), wantErr: errStat},
		{name: "pid beyond 31 bits", raw: "4294967338 (sh)" + numbers, wantErr: errStat},
		{name: "state of two letters", raw: "42 (sh) SS" + numbers[2:], wantErr: errStat},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseStat([]byte(tt.raw))
			if !errors.Is(err, tt.wantErr) {
				t.Fatalf("parseStat(%q) error = %v, want %v", tt.raw, err, tt.wantErr)
			}
			if err == nil && got != tt.want {
				t.Errorf("parseStat(%q) = %+v, want %+v", tt.raw, got, tt.want)
			}
		})
	}
}

func TestParseNamespaces(t *testing.T) {
	tests := []struct {
		name    string
		raw     string
		want    int
		wantErr error
	}{
		{name: "host", raw: "Name:\tsh\nNSpid:\t42\nNSpgid:\t42\n", want: 1},
		{name: "nested twice", raw: "NSpid:\t42\t7\t1\n", want: 3},
		{name: "name that pretends, as the kernel writes it", raw: "Name:\tx\\nNSpid:\t1\t1\nNSpid:\t42\n", want: 1},
		{name: "no line", raw: "Name:\tsh\n", wantErr: errStatus},
		{name: "line without entries", raw: "NSpid:\n", wantErr: errStatus},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseNamespaces([]byte(tt.raw))
			if got != tt.want || !errors.Is(err, tt.wantErr) {
				t.Errorf("parseNamespaces(%q) = %d, %v, want %d, %v", tt.raw, got, err, tt.want, tt.wantErr)
			}
		})
	}
}

// FuzzParseStat puts any name into a real line: the numbers must come out unchanged, whatever the name is.
func FuzzParseStat(f *testing.F) {
	f.Add("sh", []byte("42 (sh)"+numbers))
	f.Add("a) R 1 (b", []byte("(((("))
	f.Add("\n\x00", []byte(") 1 2 3"))
	f.Fuzz(func(t *testing.T, comm string, raw []byte) {
		_, _ = parseStat(raw) // must not panic
		got, err := parseStat([]byte("42 (" + comm + ")" + numbers))
		want := identity{pid: 42, comm: comm, parent: 41, flags: 4194560, startTicks: 987654}
		if err != nil || got != want {
			t.Errorf("parseStat with name %q = %+v, %v, want %+v", comm, got, err, want)
		}
	})
}

func TestNeverKill(t *testing.T) {
	self := identity{pid: 500, parent: 400, namespaces: 1}
	contained := func(change func(*subject)) subject {
		s := subject{identity: identity{pid: 700, comm: "sh", parent: 650, namespaces: 2}, self: self, callerPID: 501}
		change(&s)
		return s
	}
	tests := []struct {
		name string
		s    subject
		want string
	}{
		{name: "process in a container", s: contained(func(*subject) {})},
		{name: "container's process with a runtime's name", s: contained(func(s *subject) { s.comm = "containerd-shim" })},
		{name: "pid 1", s: contained(func(s *subject) { s.pid = 1 }), want: "pid 1"},
		{name: "kernel thread", s: contained(func(s *subject) { s.flags = pfKthread | 0x40 }), want: "kernel thread"},
		{name: "enforcer", s: contained(func(s *subject) { s.pid = 500 }), want: "enforcer itself"},
		{name: "supervisor", s: contained(func(s *subject) { s.pid = 400 }), want: "enforcer's parent"},
		{name: "another child of the supervisor", s: contained(func(s *subject) { s.parent = 400 }), want: "Palisade's own"},
		{name: "child of init, while the enforcer is one too", s: contained(func(s *subject) { s.parent, s.self.parent = 1, 1 })},
		{name: "caller", s: contained(func(s *subject) { s.pid = 501 }), want: "the caller"},
		{name: "on the host", s: contained(func(s *subject) { s.namespaces = 1 }), want: "host's pid namespace"},
		{name: "on the host, allowed", s: contained(func(s *subject) { s.namespaces, s.allowHost = 1, true })},
		{name: "runtime on the host, allowed", s: contained(func(s *subject) { s.namespaces, s.allowHost, s.comm = 1, true, "containerd-shim" }), want: "runtime or supervisor"},
		{name: "half made container, allowed", s: contained(func(s *subject) { s.namespaces, s.allowHost, s.comm = 1, true, "runc:[0:PARENT]" }), want: "runtime or supervisor"},
		{name: "name that only begins like a runtime's", s: contained(func(s *subject) { s.namespaces, s.allowHost, s.comm = 1, true, "initdb" })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := refusal(tt.s)
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("refusal(%+v) = %q, want %q", tt.s, got, tt.want)
			}
		})
	}
}

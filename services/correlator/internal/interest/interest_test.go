package interest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/condition"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/interest"
)

func below(values ...string) interest.Paths {
	return interest.Matching(field.WholePath, condition.In, values)
}

func TestMatching(t *testing.T) {
	long := strings.Repeat("/directory", 30)
	many := make([]string, 2000)
	for i := range many {
		many[i] = fmt.Sprintf("/d/%04d", i)
	}
	tests := []struct {
		name   string
		part   field.PathPart
		op     condition.Op
		values []string
		want   []string // nil for all
	}{
		{"one file", field.WholePath, condition.Equal, []string{"/etc/shadow"}, []string{"/etc/shadow"}},
		{"files, one twice", field.WholePath, condition.In, []string{"/b", "/a", "/b"}, []string{"/a", "/b"}},
		{"a prefix of another", field.WholePath, condition.In, []string{"/etc/shadow-", "/etc/shadow", "/etc"}, []string{"/etc"}},
		{"none", field.WholePath, condition.In, nil, []string{}},
		{"the empty prefix", field.WholePath, condition.StartsWith, []string{""}, nil},
		{"a directory and what is in it", field.WholePath, condition.PathMatch, []string{"/etc/", "/root/.ssh"}, []string{"/etc", "/root/.ssh"}},
		{"all of a pmatch", field.WholePath, condition.PathMatch, []string{"/"}, []string{"/"}},
		{"a pmatch of nothing", field.WholePath, condition.PathMatch, []string{"//"}, nil},
		{"files right in a directory", field.Directory, condition.In, []string{"/etc/pam.d", "/"}, []string{"/"}},
		{"files in one directory", field.Directory, condition.Equal, []string{"/etc/pam.d"}, []string{"/etc/pam.d/"}},
		{"directories that begin so", field.Directory, condition.StartsWith, []string{"/etc/p"}, []string{"/etc/p"}},
		{"glob", field.WholePath, condition.Glob, []string{"/home/*/.ssh/*"}, []string{"/home/"}},
		{"glob with a set", field.WholePath, condition.Glob, []string{"/dev/sd[a-z]"}, []string{"/dev/sd"}},
		{"glob with a backslash", field.WholePath, condition.Glob, []string{`/a\*b`}, []string{"/a"}},
		{"glob of anything", field.WholePath, condition.Glob, []string{"*/x"}, nil},
		{"regex", field.WholePath, condition.Regex, []string{"/etc/(a|b)"}, []string{"/etc/"}},
		{"regex with an alternative", field.WholePath, condition.Regex, []string{"/etc/a|b"}, nil},
		{"regex that may skip", field.WholePath, condition.Regex, []string{"(/etc)?/a"}, nil},
		{"regex for any case", field.WholePath, condition.Regex, []string{"(?i)/etc"}, []string{"/"}},
		{"end", field.WholePath, condition.EndsWith, []string{"x"}, nil},
		{"middle", field.WholePath, condition.Contains, []string{"/etc"}, nil},
		{"not", field.WholePath, condition.NotEqual, []string{"/etc"}, nil},
		{"order", field.WholePath, condition.Less, []string{"/etc"}, nil},
		{"another field", field.NoPath, condition.Equal, []string{"/etc"}, nil},
		{"longer than the collector takes", field.WholePath, condition.Equal, []string{long}, []string{long[:240]}},
		{"cut within a character", field.WholePath, condition.Equal, []string{long[:239] + "\u00e4"}, []string{long[:239]}},
		{"what was not UTF-8", field.WholePath, condition.Equal, []string{"/tmp/\uFFFDx"}, []string{"/tmp/"}},
		{"what is not UTF-8", field.WholePath, condition.Equal, []string{"/tmp/\xff"}, []string{"/tmp/"}},
		{"too many", field.WholePath, condition.In, many, nil},
	}
	for _, tt := range tests {
		got := interest.Matching(tt.part, tt.op, tt.values)
		if got.All != (tt.want == nil) || !got.All && !slices.Equal(got.Prefixes, tt.want) {
			t.Errorf("%s: Matching(%s %q) = %+v, want %q", tt.name, tt.op, tt.values, got, tt.want)
		}
	}
}

func TestSets(t *testing.T) {
	none, all := interest.Paths{}, interest.Everything()
	tests := []struct {
		name    string
		a, b    interest.Paths
		or, and interest.Paths
	}{
		{"nothing and all", none, all, all, none},
		{"nothing and some", none, below("/a"), below("/a"), none},
		{"all and some", all, below("/a"), all, below("/a")},
		{"apart", below("/a"), below("/b"), below("/a", "/b"), none},
		{"one within the other", below("/etc"), below("/etc/shadow", "/var"), below("/etc", "/var"), below("/etc/shadow")},
		{"the same", below("/a", "/b"), below("/b", "/a"), below("/a", "/b"), below("/a", "/b")},
	}
	for _, tt := range tests {
		for _, ab := range [][2]interest.Paths{{tt.a, tt.b}, {tt.b, tt.a}} {
			if diff := cmp.Diff(tt.or.Prefixes, ab[0].Or(ab[1]).Prefixes); diff != "" || ab[0].Or(ab[1]).All != tt.or.All {
				t.Errorf("%s: Or (-want +got):\n%s", tt.name, diff)
			}
			got := ab[0].And(ab[1])
			if !slices.Equal(got.Prefixes, tt.and.Prefixes) || got.All != tt.and.All {
				t.Errorf("%s: And = %+v, want %+v", tt.name, got, tt.and)
			}
		}
	}
	for path, want := range map[string]bool{"/etc/shadow": true, "/etc/shadow-": true, "/etc": false, "/f": true, "/ez": false, "": false} {
		if got := below("/etc/shadow", "/f", "/a").Has(path); got != want {
			t.Errorf("Has(%q) = %t, want %t", path, got, want)
		}
	}
}

func TestWhatIsWanted(t *testing.T) {
	open := func(path string, flags uint32) *eventv1.Event {
		return &eventv1.Event{Kind: &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{File: &eventv1.File{Path: path}, Flags: flags}}}
	}
	i := interest.New(field.KindFileOpen|field.KindExisting, interest.Opens{
		interest.ReadOnly: below("/r"), interest.WriteOnly: below("/w"), interest.ReadWrite: below("/r/x", "/b"), interest.PathOnly: below("/p"),
	}, interest.Peers{})
	for name, tt := range map[string]struct {
		event *eventv1.Event
		want  bool
	}{
		"read":                    {open("/r/x", 0), true},
		"read of what is written": {open("/w", 0), false},
		"write":                   {open("/w", 0o101), true},
		"write of what is read":   {open("/r", 1), false},
		"both, as a read":         {open("/r", 2), true},
		"both, of its own":        {open("/b", 2), true},
		"both, as a write":        {open("/w", 2), true},
		"neither":                 {open("/r", 3), true},
		"path only":               {open("/p", 0o10000000), true},
		"elsewhere":               {open("/x", 0), false},
		"an exec":                 {&eventv1.Event{Kind: &eventv1.Event_Exec{}}, true},
		"an exit":                 {&eventv1.Event{Kind: &eventv1.Event_Exit{}}, true},
		"a connection":            {&eventv1.Event{Kind: &eventv1.Event_Connect{}}, false},
	} {
		if got := i.Admits(tt.event); got != tt.want {
			t.Errorf("%s: Admits = %t, want %t", name, got, tt.want)
		}
	}
	m := i.Message()
	if got, want := strings.Join(m.GetClasses(), " "), "exec fork exit file_open"; got != want {
		t.Errorf("classes = %s, want %s", got, want)
	}
	if got, want := strings.Join(m.GetReads().GetPrefixes(), " ")+", "+strings.Join(m.GetWrites().GetPrefixes(), " "), "/p /r, /b /w"; got != want {
		t.Errorf("reads, writes = %s, want %s", got, want)
	}
	if got, want := i.String(), "exec fork exit file_open (file_open: reads below 2 paths, writes below 2 paths)"; got != want {
		t.Errorf("String() = %s, want %s", got, want)
	}
	all := interest.New(field.AllKinds, interest.Opens{interest.ReadWrite: interest.Everything()}, interest.Everybody())
	if got, want := all.String(), "everything (file_open: reads none, writes all)"; got != want {
		t.Errorf("String() = %s, want %s", got, want)
	}
	if m := interest.New(field.KindConnect, interest.Opens{}, interest.Everybody()).Message(); m.GetReads() != nil || m.GetWrites() != nil || len(m.GetClasses()) != 4 {
		t.Errorf("Message() = %v, want connect and the life cycle, and no files", m)
	}
}

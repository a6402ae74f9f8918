package rule_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
)

func TestInterest(t *testing.T) {
	const (
		reads  = "evt.type = open and evt.is_open_read = true and "
		writes = "evt.type in (open, openat) and evt.is_open_write=true and "
		prefix = "exec fork exit file_open (file_open: "
	)
	tests := []struct {
		name, condition string
		want            string
		reads, writes   string // prefixes, where they matter
	}{
		{"no files", "evt.type in (connect, unlink)", "exec fork exit connect unlink connect_unix", "", ""},
		{"one file read", reads + "fd.name = /etc/shadow", prefix + "reads below 1 path, writes none)", "/etc/shadow", ""},
		{"one file written", writes + "fs.path.name = /etc/passwd", prefix + "reads none, writes below 1 path)", "", "/etc/passwd"},
		{"one file opened", "evt.type = open and fd.name = /etc/passwd", prefix + "reads below 1 path, writes below 1 path)", "/etc/passwd", "/etc/passwd"},
		{"files and directories", reads + "(fd.name in (/b, /a) or fd.name pmatch (/d) or fd.directory in (/e))", prefix + "reads below 4 paths, writes none)", "/a /b /d /e/", ""},
		{"the narrower of two", reads + "fd.name startswith /etc and fd.name in (/etc/a, /var/b)", prefix + "reads below 1 path, writes none)", "/etc/a", ""},
		{"a part that cannot be", reads + "fd.name startswith /etc and fd.name startswith /var", prefix + "reads none, writes none)", "", ""},
		{"an exception", reads + "fd.name startswith /etc and not fd.name in (/etc/a)", prefix + "reads below 1 path, writes none)", "/etc", ""},
		{"all but some", reads + "not fd.name startswith /usr", prefix + "reads all, writes none)", "", ""},
		{"twice not", reads + "not (not fd.name startswith /usr)", prefix + "reads all, writes none)", "", ""},
		{"or something else", reads + "(fd.name = /a or proc.name = cat)", prefix + "reads all, writes none)", "", ""},
		{"and something else", reads + "fd.name = /a and proc.name = cat", prefix + "reads below 1 path, writes none)", "/a", ""},
		{"the end of a name", reads + "fd.name endswith .pem", prefix + "reads all, writes none)", "", ""},
		{"a changed name", reads + "tolower(fd.name) = /a", prefix + "reads all, writes none)", "", ""},
		{"another field", reads + "fd.name = val(proc.exepath)", prefix + "reads all, writes none)", "", ""},
		{"two ways to say write", "evt.type = open and not evt.is_open_read = true and evt.is_open_write in (true) and fd.name = /a", prefix + "reads none, writes below 1 path)", "", "/a"},
		{"two ways to say read", "evt.type = open and evt.is_open_write != true and fd.name = /a", prefix + "reads below 1 path, writes none)", "/a", ""},
		{"each its own", "evt.type = open and (evt.is_open_read = true and fd.name = /r or evt.is_open_write = true and fd.name = /w)", prefix + "reads below 1 path, writes below 1 path)", "/r", "/w"},
		{"one peer", "evt.type = connect and fd.sip = 192.0.2.1", "exec fork exit connect (peers in 1 network)", "", ""},
		{"ports of a network", "evt.type in (connect, sendto) and fd.snet in (10.0.0.0/8) and fd.sport in (22, 23)", "exec fork exit connect send (peers in 2 networks)", "", ""},
		{"either of two", "evt.type = connect and (fd.rip = 192.0.2.1 or fd.rport = 22)", "exec fork exit connect (peers in 2 networks)", "", ""},
		{"a peer that cannot be", "evt.type = connect and fd.sip = 192.0.2.1 and fd.snet = 10.0.0.0/8", "exec fork exit connect (peers none)", "", ""},
		{"all peers but one", "evt.type = connect and fd.l4proto = tcp and not fd.sip = 192.0.2.1", "exec fork exit connect", "", ""},
		{"another peer", "evt.type = connect and fd.sip != 192.0.2.1", "exec fork exit connect", "", ""},
		{"high ports", "evt.type = connect and fd.sport > 1023", "exec fork exit connect", "", ""},
		{"either end", "evt.type = connect and fd.ip = 192.0.2.1", "exec fork exit connect", "", ""},
		{"who connects here", "evt.type = accept and fd.sport = 22", "exec fork exit accept", "", ""},
		{"everything", "proc.name = a", "everything (file_open: reads all, writes all)", "", ""},
		{"nothing", "evt.type = read", "exec fork exit", "", ""},
		{"a duplicate, whoever is at the other end", "evt.type = dup and fd.sip = 192.0.2.1", "exec fork exit duplicate", "", ""},
		{"the path as given", reads + "fd.name startswith /etc and fd.nameraw contains ../", prefix + "reads below 1 path, writes none, with paths as given)", "/etc", ""},
		{"the path as given, of what opens nothing", "evt.type = connect and not fd.nameraw exists", "exec fork exit connect connect_unix", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set, _ := mustLoad(t, ruleOf(tt.condition))
			got := set.Interest()
			if got.String() != tt.want {
				t.Errorf("Interest(%s) = %s, want %s", tt.condition, got, tt.want)
			}
			if tt.reads+tt.writes != "" && (strings.Join(got.Reads.Prefixes, " ") != tt.reads || strings.Join(got.Writes.Prefixes, " ") != tt.writes) {
				t.Errorf("reads %q, writes %q, want %s and %s", got.Reads.Prefixes, got.Writes.Prefixes, tt.reads, tt.writes)
			}
		})
	}
}

func TestARuleThatIsOffIsNotOfInterest(t *testing.T) {
	off := []string{"  enabled: false\n", "  effect: disable\n", "  source: k8s_audit\n"}
	for _, line := range off {
		set, _ := mustLoad(t, ruleOf("evt.type = open and evt.is_open_read = true")+line)
		if got := set.Interest().String(); got != "exec fork exit" {
			t.Errorf("%s: interest = %s, want the life cycle alone", strings.TrimSpace(line), got)
		}
	}
	exception := ruleOf("evt.type = open and evt.is_open_read = true and fd.name startswith /etc") +
		"  exceptions:\n  - name: x\n    fields: [fd.name]\n    comps: [startswith]\n    values: [[/etc/ssl]]\n"
	set, _ := mustLoad(t, exception)
	if got := set.Interest(); strings.Join(got.Reads.Prefixes, " ") != "/etc" {
		t.Errorf("reads with an exception = %+v, want all below /etc", got.Reads)
	}
}

// gamble makes conditions and events of few words, so that they meet often.
type gamble struct{ *rand.Rand }

func (g gamble) pick(words ...string) string { return words[g.IntN(len(words))] }

func (g gamble) path() string {
	var b strings.Builder
	for range g.IntN(4) {
		b.WriteString(g.pick("/", "/", "/a", "/b", "a", "b", "/\u00e4", "/.x"))
	}
	return b.String()
}

// value is a path as a condition may hold it.
func (g gamble) value() string {
	return `"` + g.pick(g.path(), g.path(), g.path(), "/a", "/a/b", "/") + `"`
}

func (g gamble) list() string {
	values := make([]string, g.IntN(4))
	for i := range values {
		values[i] = g.pick(g.value(), g.value(), "paths")
	}
	return "(" + strings.Join(values, ", ") + ")"
}

func (g gamble) check() string {
	name := g.pick("fd.name", "fd.name", "fs.path.name", "fd.directory", "fd.directory", "fd.filename", "tolower(fd.name)", "basename(fd.name)", "evt.arg.path")
	switch g.IntN(16) {
	case 0, 1:
		return name + " = " + g.value()
	case 2:
		return name + " " + g.pick("in", "intersects") + " " + g.list()
	case 3:
		return name + " pmatch " + g.list()
	case 4, 5:
		return name + " startswith " + g.value()
	case 6:
		return name + ` glob "` + g.path() + g.pick("*", "?b", "[!b]*", `\\*`, "") + g.path() + `"`
	case 7:
		return name + ` regex "` + g.pick("", "^", "(?i)", ".*") + g.path() + g.pick("", "*", "|a", "?", "(/b)+", ".*") + `"`
	case 8:
		return name + " " + g.pick("!=", "<", ">=", "contains", "icontains", "endswith", "iglob") + " " + g.value()
	case 9:
		return name + " " + g.pick("exists", "= val(fd.directory)", "startswith val(proc.exepath)", "bstartswith 2f61")
	case 10, 11:
		return g.pick("evt.is_open_read", "evt.is_open_write") + " " + g.pick("= true", "= false", "!= true", "!= false", "in (true)", "in (true, false)")
	case 12:
		return "evt.type " + g.pick("= open", "in (openat, unlink)", "!= open", "startswith o")
	case 13:
		return g.pick("proc.name = p", "proc.name = q", "evt.num > 0", "proc.nonesuch = a", "len(fd.name) > 1")
	case 14:
		return g.pick("evt.is_open_read exists", "evt.is_open_read = val(evt.is_open_write)", "evt.arg.flags contains O_CREAT", "fd.typechar = f")
	}
	return g.pick("m0", "m1", "m2")
}

func (g gamble) condition(depth int) string {
	if depth == 0 || g.IntN(6) == 0 {
		return g.check()
	}
	switch g.IntN(7) {
	case 0:
		return "not (" + g.condition(depth-1) + ")"
	case 1, 2:
		return "(" + g.condition(depth-1) + " or " + g.condition(depth-1) + ")"
	}
	return "(" + g.condition(depth-1) + " and " + g.condition(depth-1) + ")"
}

// rules is a list, macros, and rules that use them, some with exceptions.
func (g gamble) rules() string {
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	var b strings.Builder
	fmt.Fprintf(&b, "- list: paths\n  items: [%s, %s]\n", quote(g.value()), quote(g.value()))
	for i := range 3 {
		text := g.condition(1)
		if strings.Contains(text, "m0") || strings.Contains(text, "m1") || strings.Contains(text, "m2") {
			text = "fd.name startswith " + g.value() // a macro must not refer to itself
		}
		fmt.Fprintf(&b, "- macro: m%d\n  condition: %s\n", i, quote(text))
	}
	for i := range 1 + g.IntN(2) {
		r := strings.Replace(ruleOf(g.condition(3)), "rule: r", fmt.Sprintf("rule: r%d", i), 1)
		b.WriteString(r)
		if g.IntN(4) == 0 {
			fmt.Fprintf(&b, "  exceptions:\n  - name: x\n    fields: [fd.name, proc.name]\n    comps: [%s, =]\n    values: [[%s, p]]\n", g.pick("=", "startswith"), quote(g.value()))
		}
	}
	return b.String()
}

func (g gamble) event() *field.Context {
	flags := []uint32{0, 1, 2, 3, 0o101, 0o102, 0o10000000, 0o10000001}
	e := &eventv1.Event{Sequence: 1, Kind: &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{
		File: &eventv1.File{Path: g.path(), Mode: 0o100644}, Flags: flags[g.IntN(len(flags))],
	}}}
	if g.IntN(8) == 0 {
		e.Kind = &eventv1.Event_FileChange{FileChange: &eventv1.FileChange{Operation: eventv1.FileOperation(g.IntN(16)), File: &eventv1.File{Path: g.path()}}}
	}
	return &field.Context{Event: e, Process: &field.Process{Name: g.pick("p", "q"), Exe: g.path()}}
}

// Whatever the rules, an event that one of them matches would have been recorded.
func TestTheInterestIsNeverNarrowerThanTheRules(t *testing.T) {
	var loaded, matches, refused, narrow int
	for seed := range uint64(1000) {
		g := gamble{rand.New(rand.NewPCG(seed, 4))} //nolint:gosec // a test's dice
		text := g.rules()
		set, _, err := rule.Load(rule.Source{Name: "f", Data: []byte(text)})
		if err != nil {
			continue // a regex that does not compile
		}
		loaded++
		wanted := set.Interest()
		if !wanted.Reads.All || !wanted.Writes.All {
			narrow++
		}
		for range 100 {
			c := g.event()
			names, admitted := matched(set, c), wanted.Admits(c.Event)
			if len(names) > 0 && !admitted {
				t.Fatalf("seed %d: %q match, but the interest is %+v\n%v\n%s", seed, names, wanted, c.Event, text)
			}
			if len(names) > 0 {
				matches++
			}
			if !admitted {
				refused++
			}
		}
	}
	t.Logf("%d files of rules, %d narrow interests, %d matches, %d events not of interest", loaded, narrow, matches, refused)
	if loaded < 700 || narrow < 200 || matches < 10_000 || refused < 10_000 {
		t.Errorf("the dice decide too little: %d files of rules, %d narrow interests, %d matches, %d events not of interest", loaded, narrow, matches, refused)
	}
}

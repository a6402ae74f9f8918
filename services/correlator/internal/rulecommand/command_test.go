package rulecommand

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
)

const builtin = `- macro: in_container
  condition: container.id != host
- rule: Shell
  desc: A shell. Ask who.
  condition: evt.type = execve and in_container and proc.name in (sh, bash)
  output: "%proc.cmdline"
  priority: notice
  tags: [mitre_execution]
  exceptions:
    - {name: images, fields: container.image.repository, values: [a/b]}
  samples:
    match: [{event: exec, exe: /bin/sh}]
    differ: [{event: exec, exe: /bin/sh, workload: host}]
`

const mine = `- list: secrets
  items: [/etc/shadow]
- rule: Mine
  desc: Mine.
  condition: evt.type = openat and fd.name in (secrets) and not fd.uid = x and not proc.nme = y
  output: o
  priority: error
  effect: prevent
  window: {times: 3, within: 1m}
  samples:
    match:
      - {name: by cat, event: file_open, path: /etc/shadow}
      - {name: another file, event: file_open, path: /etc/passwd}
`

// run carries out words, in which FILE is a file with that text.
func run(t *testing.T, text string, words ...string) (output string, err error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mine.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range words {
		words[i] = strings.ReplaceAll(words[i], "FILE", path)
	}
	var out strings.Builder
	err = Run(words, []rule.Source{{Name: "builtin/x.yaml", Data: []byte(builtin)}}, &out)
	return strings.ReplaceAll(out.String(), path, "FILE"), err
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name, text string
		words      []string
		want       string
		wantErr    string
	}{
		{"with warnings", strings.Replace(mine, "/etc/passwd}", "/etc/shadow}", 1), []string{"check", "FILE"},
			`warning: FILE:5:65: rule "Mine": fd.uid: no source yet: no record numbers sockets
warning: FILE:5:84: rule "Mine": proc.nme: not a field that Palisade provides
FILE: 1 rule, 0 macros, 1 list
ok: 2 rules in force with the built-in ones, 1 unknown field, 1 field without a source, 2 warnings
`, ""},
		{"warnings are errors", mine, []string{"check", "-strict", "-no-builtin", "FILE"}, "", "2 warnings: see above"},
		{"a mistake", strings.Replace(mine, "priority: error", "priority: high", 1), []string{"check", "FILE"},
			"error: FILE:7:13: unknown priority \"high\"\n      priority: high\n                ^\nnot loaded: a node goes on with the rules it has\n", "1 error: see above"},
		{"a mistake in a sample", strings.Replace(mine, "path: /etc/passwd", "pth: /etc/passwd", 1), []string{"check", "FILE"},
			`sample of class file_open has no key "pth"`, "1 error: see above"},
		{"no file", "", []string{"check"}, "", "name a rule file"},
		{"a file that is not there", "", []string{"check", "FILE.x"}, "", "no such file"},
		{"no question", "", nil, "usage: rules check", "which of check"},
		{"another question", "", []string{"praise"}, "usage: rules check", `not "praise"`},
		{"another form", "", []string{"list", "-o", "xml"}, "", `"xml" is not text or json`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := run(t, tt.text, tt.words...)
			if !strings.Contains(got, tt.want) {
				t.Errorf("%v says\n%s\nwant\n%s", tt.words, got, tt.want)
			}
			if (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("%v = %v, want %q", tt.words, err, tt.wantErr)
			}
		})
	}
}

func TestCheckForPrograms(t *testing.T) {
	text, err := run(t, strings.Replace(mine, "priority: error", "priority: high", 1), "check", "-o", "json", "FILE")
	if err == nil {
		t.Error("check of a bad file = no error")
	}
	var got checked
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	want := []fault{{File: "FILE", Line: 7, Column: 13, Message: `unknown priority "high"`, Text: "  priority: high"}}
	if diff := cmp.Diff(want, got.Errors); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
}

func TestTest(t *testing.T) {
	got, err := run(t, mine, "test", "FILE")
	if err == nil || !strings.Contains(err.Error(), "1 of 2 samples came out otherwise") {
		t.Errorf("test = %v, want one of two failed", err)
	}
	for _, want := range []string{`failed: FILE:13:9: rule "Mine" does not match this sample`, `fd.name="/etc/passwd"`} {
		if !strings.Contains(got, want) {
			t.Errorf("test says\n%s\nwant %s", got, want)
		}
	}
	if got, err := run(t, "", "test"); err != nil || got != "ok: 2 samples of 1 rule\n" {
		t.Errorf("test of the built-in rules = %v\n%s", err, got)
	}
}

func TestListAndExplain(t *testing.T) {
	got, err := run(t, mine, "list", "FILE")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(got) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"RULE PRIORITY EFFECT AT EVENTS TAGS", "Shell notice alert x.yaml:3 exec mitre_execution", "Mine error prevent mine.yaml:3 file_open",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	got, err = run(t, mine, "explain", "Shell", "FILE")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"condition   evt.type = execve and container.id != host and proc.name in (sh, bash)", "but not     images: container.image.repository in (a/b)",
		"kernel      exec fork exit\n", "fields      container.id, container.image.repository, evt.type, proc.name", "samples     2;",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("explain says\n%s\nwant %s", got, want)
		}
	}
	got, err = run(t, mine, "explain", "Mine", "FILE")
	for _, want := range []string{"list        secrets = /etc/shadow", "window      3 times within 1m0s in the same workload", "warning     FILE:5:65"} {
		if err != nil || !strings.Contains(got, want) {
			t.Errorf("explain = %v\n%s\nwant %s", err, got, want)
		}
	}
	if _, err := run(t, "", "explain", "shel"); err == nil || !strings.Contains(err.Error(), `did you mean "Shell"?`) {
		t.Errorf("explain of half a name = %v, want a hint", err)
	}
}

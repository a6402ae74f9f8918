package command

import (
	"bytes"
	"strings"
	"testing"
)

func TestExitCodes(t *testing.T) {
	run := t.TempDir() // no node here
	tests := []struct {
		name string
		args []string
		want int
		says string
	}{
		{"help", []string{"--help"}, 0, ""},
		{"unknown flag", []string{"up", "--nonsense"}, 2, "see `palisade up --help`"},
		{"unknown output", []string{"status", "-o", "xml"}, 2, `"xml" is not text or json`},
		{"unknown process", []string{"status", "reactor"}, 2, `no process "reactor": there are [collector`},
		{"stray argument", []string{"findings", "all"}, 2, `unexpected argument "all"`},
		{"check of nothing", []string{"rules", "check"}, 2, "name a rule file"},
		{"explain of nothing", []string{"rules", "explain"}, 2, "palisade rules list"},
		{"a question nobody answers", []string{"rules", "praise"}, 2, "praise"},
		{"no program to ask", []string{"rules", "list", "--bin", run}, 1, "--bin"},
		{"events of nobody", []string{"events", "--since", "5m"}, 2, "name a --workload"},
		{"events since when", []string{"events", "-w", "web", "--since", "yesterday"}, 2, "neither how long ago"},
		{"too many events", []string{"events", "-w", "web", "--limit", "0"}, 2, "not 1 to 100000"},
		{"events for ever, until then", []string{"events", "-w", "web", "-f", "--until", "1m"}, 2, "neither --until nor --limit"},
		{"events without a node", []string{"events", "-w", "web", "--run", run}, 1, "correlator"},
		{"recorded without a node", []string{"events", "--run", run}, 1, "correlator"},
		{"slice of no incident", []string{"incidents", "--events"}, 2, "name an incident"},
		{"slices of two incidents", []string{"incidents", "a", "b"}, 2, "one incident at most"},
		{"slice backwards", []string{"incidents", "a", "--events", "--before", "-1s"}, 2, "negative"},
		{"import of nothing", []string{"vulndb", "import"}, 2, "name a zip"},
		{"import of what is not there", []string{"vulndb", "import", run + "/x.zip", "--directory", run}, 1, "no such file"},
		{"no advisories", []string{"vulndb", "status", "--directory", run}, 1, "palisade vulndb import"},
		{"no node", []string{"findings", "--run", run}, 1, ""},
		{"malformed launch spec", []string{"launch", "{"}, 1, "read launch spec"},
		{"empty launch spec", []string{"launch", "{}"}, 1, "binary and groups are needed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if got := Execute(tt.args, &stdout, &stderr); got != tt.want {
				t.Errorf("palisade %v = exit code %d, want %d: %s", tt.args, got, tt.want, stderr.String())
			}
			if !strings.Contains(stderr.String(), tt.says) {
				t.Errorf("palisade %v said %q, want %q in it", tt.args, stderr.String(), tt.says)
			}
		})
	}
}

func TestEveryCommandHasAnExample(t *testing.T) {
	commands := newRoot().Commands()
	for _, cmd := range commands {
		commands = append(commands, cmd.Commands()...)
	}
	for _, cmd := range commands {
		if !cmd.Hidden && cmd.Example == "" {
			t.Errorf("palisade %s --help shows no example", cmd.Name())
		}
	}
}

func TestRecent(t *testing.T) {
	r := newRecent(2)
	got := []bool{r.add("a"), r.add("b"), r.add("a"), r.add("c"), r.add("a")}
	want := []bool{true, true, false, true, true} // "a" was forgotten when "c" came
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("add number %d = %v, want %v", i, got[i], want[i])
		}
	}
}

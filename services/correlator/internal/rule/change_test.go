package rule_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/rules"
)

// byName opens a file as a process of that name.
func byName(name, path string) *field.Context {
	c := opening(path, 0)
	c.Process.Name = name
	return c
}

func TestAppendOverrideAndExceptions(t *testing.T) {
	base := ruleOf("evt.type = open and proc.name in (names)") + "- list: names\n  items: [a, b]\n"
	except := func(s string) string { return ruleOf("evt.type = open") + "  exceptions:\n" + s }
	tests := []struct {
		name, yaml string
		hits       []string // name:path
		misses     []string
	}{
		{"list defined behind its use", base, []string{"a:/x", "b:/x"}, []string{"c:/x", "names:/x"}},
		{"list appended", base + "- list: names\n  append: true\n  items: [c]\n", []string{"a:/x", "c:/x"}, []string{"d:/x"}},
		{"list appended by override", base + "- list: names\n  items: [c]\n  override:\n    items: append\n", []string{"a:/x", "c:/x"}, []string{"d:/x"}},
		{"list replaced by override", base + "- list: names\n  items: [c]\n  override:\n    items: replace\n", []string{"c:/x"}, []string{"a:/x"}},
		{"list defined again", base + "- list: names\n  items: [c]\n", []string{"c:/x"}, []string{"a:/x"}},
		{"list of lists and quoted items", base + "- list: more\n  items: [names, '\"d e\"', '\"names\"']\n- list: names\n  items: [a]\n" + strings.Replace(ruleOf("evt.type = open and proc.name in (more)"), "rule: r", "rule: s", 1), []string{"d e:/x", "names:/x"}, []string{"e:/x"}},
		{"condition appended", ruleOf("evt.type = open and proc.name = a") + "- rule: r\n  append: true\n  condition: or (evt.type = open and proc.name = c)\n", []string{"a:/x", "c:/x"}, []string{"b:/x"}},
		{"condition appended by override", ruleOf("evt.type = open") + "- rule: r\n  condition: and proc.name = c\n  override: {condition: append}\n", []string{"c:/x"}, []string{"a:/x"}},
		{"condition replaced", ruleOf("evt.type = execve") + "- rule: r\n  condition: evt.type = open and proc.name = c\n  override: {condition: replace}\n", []string{"c:/x"}, []string{"a:/x"}},
		{"rule switched off", base + "- rule: r\n  enabled: false\n", nil, []string{"a:/x"}},
		{"rule switched off and on", base + "- rule: r\n  enabled: false\n- rule: r\n  enabled: true\n  override: {enabled: replace}\n", []string{"a:/x"}, nil},
		{"rule of effect disable", base + "- rule: r\n  effect: disable\n  override: {effect: replace}\n", nil, []string{"a:/x"}},
		{"macro appended", "- macro: m\n  condition: proc.name = a\n" + ruleOf("evt.type = open and m") + "- macro: m\n  append: true\n  condition: or proc.name = b\n", []string{"a:/x", "b:/x"}, []string{"c:/x"}},
		{"macro replaced", "- macro: m\n  condition: proc.name = a\n" + ruleOf("evt.type = open and m") + "- macro: m\n  condition: proc.name = b\n", []string{"b:/x"}, []string{"a:/x"}},
		{"exception of one field", except("    - name: e\n      fields: proc.name\n      values: [a, b, l]\n") + "- list: l\n  items: [c]\n", []string{"d:/x"}, []string{"a:/x", "b:/x", "c:/x"}},
		{"exception of one field, other comparison", except("    - name: e\n      fields: fd.name\n      comps: startswith\n      values: [/a, /b]\n"), []string{"d:/x"}, []string{"d:/a1", "d:/b"}},
		{"exception of tuples", except("    - name: e\n      fields: [proc.name, fd.name]\n      values:\n        - [a, /x]\n        - [b, /y]\n"), []string{"a:/y", "b:/x"}, []string{"a:/x", "b:/y"}},
		{"exception of tuples with comparisons", except("    - name: e\n      fields: [proc.name, fd.name]\n      comps: [in, pmatch]\n      values:\n        - [[a, b], [/x]]\n        - ['(c, \"d\")', /y]\n"), []string{"a:/y", "c:/x"}, []string{"a:/x/1", "b:/x", "c:/y", "d:/y/2"}},
		{"exception without values", except("    - name: e\n      fields: [proc.name]\n"), []string{"a:/x"}, nil},
		{"exception's values appended", except("    - name: e\n      fields: proc.name\n") + "- rule: r\n  append: true\n  exceptions:\n    - name: e\n      values: [a]\n", []string{"b:/x"}, []string{"a:/x"}},
		{"exceptions replaced", except("    - name: e\n      fields: proc.name\n      values: [a]\n") + "- rule: r\n  exceptions:\n    - name: g\n      fields: proc.name\n      values: [b]\n  override: {exceptions: replace}\n", []string{"a:/x"}, []string{"b:/x"}},
		{"exception that looks like a condition", except("    - name: e\n      fields: proc.name\n      values: ['a) or (evt.num > 0']\n"), []string{"a:/x"}, nil},
		{"anchor and alias", "- list: l\n  items: &names [a]\n- list: k\n  items: *names\n" + ruleOf("evt.type = open and proc.name in (k)"), []string{"a:/x"}, []string{"b:/x"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set, _ := mustLoad(t, tt.yaml)
			for _, s := range append(append([]string{}, tt.hits...), tt.misses...) {
				name, path, _ := strings.Cut(s, ":")
				want := len(tt.hits) > 0 && strings.Contains("\n"+strings.Join(tt.hits, "\n")+"\n", "\n"+s+"\n")
				if got := len(matched(set, byName(name, path))) > 0; got != want {
					t.Errorf("Match(%s) = %t, want %t", s, got, want)
				}
			}
		})
	}
}

func TestRuleAttributes(t *testing.T) {
	set, _ := mustLoad(t, ruleOf("evt.type = open")+"  tags: [a, b, a]\n  effect: block\n"+
		"- rule: r\n  desc: e\n  tags: [b, c]\n  priority: Info\n  output: p\n  override: {desc: append, tags: append, priority: replace, output: append}\n")
	r := set.Rules()[0]
	if diff := cmp.Diff([]string{"a", "b", "c"}, r.Tags); diff != "" {
		t.Errorf("Tags (-want +got):\n%s", diff)
	}
	if r.Description != "d e" || r.Priority != findingv1.Priority_PRIORITY_INFORMATIONAL || r.Effect != findingv1.Effect_EFFECT_BLOCK || r.Position.String() != "f:1:3" {
		t.Errorf("rule = %q, %s, %s, %s", r.Description, r.Priority, r.Effect, r.Position)
	}
	if got, want := r.Output(&field.Context{}), "o p"; got != want {
		t.Errorf("Output = %q, want %q", got, want)
	}
}

// B23: what a process writes into its own name or arguments must not reach a terminal raw.
func TestOutput(t *testing.T) {
	long := strings.Repeat("ä", 4000)
	tests := []struct{ name, arg, output, want string }{
		{"plain", "x y", "c=%proc.cmdline.", "c=cat x y."},
		{"escape sequence", "\x1b[2J\x07", "%proc.args", `\x1b[2J\x07`},
		{"line forging", "a\nrule=b\r\tc", "%proc.args|", `a\x0arule=b\x0d\x09c|`},
		{"C1 control and DEL", "\u009b31m\x7f", "%proc.args", `\x9b31m\x7f`},
		{"not UTF-8", "a\xff\xfeb", "%proc.args", `a\xff\xfeb`},
		{"direction and line separators", "a\u202eb\u2028c\u200b", "%proc.args", `a\u{202e}b\u{2028}c\u{200b}`},
		{"other scripts stay", "héllo 世界", "%proc.args", "héllo 世界"},
		{"percent in a value", "%proc.name", "%proc.args", "%proc.name"},
		{"cut at a character", "a" + long, "%proc.args", "a" + long[:4094] + "[cut]"},
		{"percent signs", "x", "100% %% %d %proc.name%proc.name", "100% % %d catcat"},
		{"missing", "x", "%fd.sip %proc.aname[7] %proc.pname", "<NA> <NA> bash"},
		{"index, number, flag, transformer", "x", "%proc.aname[2] %proc.pid %proc.is_exe_upper_layer %toupper(proc.name)", "sshd 200 true CAT"},
		{"container", "x", "%container.info", "container_id=0123456789ab container_name=web image=localhost:5000/shop/web:1.2@sha256:ab k8s_pod=shop/web-1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set, _ := mustLoad(t, strings.Replace(ruleOf("evt.type = open"), "output: o", "output: '"+tt.output+"'", 1))
			c := opening("/x", 0)
			c.Process.Argv = []string{"cat", tt.arg}
			if got := set.Rules()[0].Output(c); got != tt.want {
				t.Errorf("Output = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestMatchOrderAndCollectorEvents(t *testing.T) {
	yaml := ""
	for _, name := range []string{"z", "a", "m"} {
		yaml += strings.Replace(ruleOf("evt.num > 0"), "rule: r", "rule: "+name, 1)
	}
	set, _ := mustLoad(t, yaml)
	if diff := cmp.Diff([]string{"z", "a", "m"}, matched(set, opening("/x", 0))); diff != "" {
		t.Errorf("Match (-want +got):\n%s", diff)
	}
	loss := &field.Context{Event: &eventv1.Event{Sequence: 1, Kind: &eventv1.Event_Loss{Loss: &eventv1.Loss{}}}}
	if got := matched(set, loss); got != nil {
		t.Errorf("Match(loss) = %q, want none", got)
	}
}

// palisadeRules is the built-in pack.
func palisadeRules(t testing.TB) []rule.Source {
	t.Helper()
	sources, err := rules.Sources()
	if err != nil {
		t.Fatal(err)
	}
	return sources
}

func TestMatchDoesNotAllocate(t *testing.T) {
	set, _, err := rule.Load(palisadeRules(t)...)
	if err != nil {
		t.Fatal(err)
	}
	contexts := benchContexts()
	allocs := testing.AllocsPerRun(100, func() {
		for _, c := range contexts {
			set.Match(c, func(*rule.Rule) {})
		}
	})
	if allocs != 0 {
		t.Errorf("allocations = %v for %d events, want 0", allocs, len(contexts))
	}
}

func BenchmarkMatchPalisade(b *testing.B) { benchmarkMatch(b, palisadeRules(b)...) }

func BenchmarkMatchFalco(b *testing.B) { benchmarkMatch(b, falcoRules(b)) }

func BenchmarkMatchBoth(b *testing.B) { benchmarkMatch(b, append(palisadeRules(b), falcoRules(b))...) }

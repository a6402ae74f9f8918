package rule_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/services/correlator/internal/condition"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
)

// word is a name, or an argument; some names are longer than comm.
func (g gamble) word() string {
	return g.pick("p", "q", "abcdefghijklmno", "abcdefghijklmnop", "abcdefghijklmnoq", "x y")
}

// textCheck is one of the few strings of a process, so that alternatives look at the same one.
func (g gamble) textCheck() string {
	name := g.pick("proc.name", "proc.cmdline", "proc.cmdline", "proc.pname", "proc.aname", "proc.aname[2]", "tolower(proc.cmdline)",
		"container.id", "fd.name", "evt.type", "user.name", "proc.exepath")
	op := g.pick("=", "!=", "contains", "contains", "startswith", "endswith", "in", "exists", "icontains")
	switch op {
	case "exists":
		return name + " exists"
	case "in":
		return fmt.Sprintf("%s in (%q, %q)", name, g.word(), g.pick(g.word(), "open", "host", "root"))
	}
	return fmt.Sprintf("%s %s %q", name, op, g.word())
}

// anything is a condition of any shape: longer chains than condition's, and checks that are constant for most events.
func (g gamble) anything(depth int) string {
	if depth == 0 || g.IntN(5) == 0 {
		return g.pick(g.textCheck(), g.textCheck(), g.check(), g.peerCheck())
	}
	terms := make([]string, 1+g.IntN(5))
	for i := range terms {
		if terms[i] = "(" + g.anything(depth-1) + ")"; g.IntN(4) == 0 {
			terms[i] = "not " + terms[i]
		}
	}
	return strings.Join(terms, g.pick(" and ", " or ", " or "))
}

func (g gamble) process() *field.Process {
	p := &field.Process{Name: g.word(), Exe: g.path(), Argv: []string{"a", g.word(), g.word()}, UID: uint32(g.IntN(2))} //nolint:gosec // 0 or 1
	if g.IntN(2) == 0 {
		p.Parent = g.process()
	}
	return p
}

// occurrence is an event of any family.
func (g gamble) occurrence() *field.Context {
	c := g.event()
	switch g.IntN(4) {
	case 0:
		c = g.connection()
	case 1:
		all := families()
		c = of(all[g.pick(slices.Sorted(maps.Keys(all))...)])
	}
	if c.Process = g.process(); g.IntN(20) == 0 {
		c.Process = nil
	}
	return c
}

// naive is a condition as it is written: every check is a rule of its own that nothing is known of, and terms are put together here.
type naive struct {
	macros map[string]condition.Node
	names  map[string]string // of the rules, by check
	yaml   strings.Builder
}

func (n *naive) parse(t *testing.T, text string) condition.Node {
	t.Helper()
	tree, err := condition.Parse(text)
	if err != nil {
		t.Fatalf("Parse(%s) = %v", text, err)
	}
	condition.Walk(tree, func(string) condition.Node { return nil }, func(c *condition.Check) {
		check := condition.Format(c, nil)
		if n.names[check] != "" {
			return
		}
		n.names[check] = fmt.Sprintf("c%d", len(n.names))
		n.yaml.WriteString(strings.Replace(ruleOf("not (not ("+check+"))"), "rule: r", "rule: "+n.names[check], 1))
	})
	return tree
}

func (n *naive) holds(node condition.Node, holding map[string]bool) bool {
	switch node := node.(type) {
	case *condition.And:
		for _, term := range node.Terms {
			if !n.holds(term, holding) {
				return false
			}
		}
		return true
	case *condition.Or:
		for _, term := range node.Terms {
			if n.holds(term, holding) {
				return true
			}
		}
		return false
	case *condition.Not:
		return !n.holds(node.Term, holding)
	case *condition.Macro:
		return n.holds(n.macros[node.Name], holding)
	case *condition.Check:
		return holding[n.names[condition.Format(node, nil)]]
	}
	panic("no such node")
}

// written is a file of rules and what it says.
type written struct {
	naive
	rules []condition.Node // an exception is what must not hold
	text  string
}

func (g gamble) written(t *testing.T) *written {
	w := &written{naive: naive{macros: map[string]condition.Node{}, names: map[string]string{}}}
	list := fmt.Sprintf("- list: paths\n  items: [%s, %s]\n", g.value(), g.value())
	file := strings.NewReplacer("m0", "fd.name exists", "m1", "proc.name = p", "m2", "evt.type = open") // a macro must not refer to itself
	w.text = list
	for i := range 3 {
		text := file.Replace(g.anything(1))
		w.macros[fmt.Sprintf("m%d", i)] = w.parse(t, text)
		w.text += fmt.Sprintf("- macro: m%d\n  condition: '%s'\n", i, strings.ReplaceAll(text, "'", "''"))
	}
	for i := range 1 + g.IntN(4) {
		text := g.anything(1 + g.IntN(3))
		tree := w.parse(t, text)
		w.text += strings.Replace(ruleOf(text), "rule: r", fmt.Sprintf("rule: r%d", i), 1)
		if g.IntN(4) == 0 {
			op, path, name := g.pick("=", "startswith"), g.value(), g.word()
			w.text += fmt.Sprintf("  exceptions:\n  - name: x\n    fields: [fd.name, proc.name]\n    comps: [%s, =]\n    values: [[%s, %q]]\n", op, path, name)
			tree = &condition.And{Terms: []condition.Node{tree, &condition.Not{Term: w.parse(t, fmt.Sprintf("fd.name %s %s and proc.name = %q", op, path, name))}}}
		}
		w.rules = append(w.rules, tree)
	}
	checks := w.yaml.String()
	w.yaml.Reset()
	w.yaml.WriteString(list + checks)
	return w
}

// Whatever the rules and the event, what is merged, left out as constant, or looked for by path, name and kind, is what was written.
func TestCompiledRulesSayWhatWasWritten(t *testing.T) {
	var loaded, yes, no int
	for seed := range uint64(200) {
		g := gamble{rand.New(rand.NewPCG(seed, 5))} //nolint:gosec // a test's dice
		w := g.written(t)
		set, _, err := rule.Load(rule.Source{Name: "f", Data: []byte(w.text)})
		if err != nil {
			continue // a regex that does not compile
		}
		loaded++
		checks, _ := mustLoad(t, w.yaml.String())
		for range 60 {
			c := g.occurrence()
			if field.KindOf(c.Event) == 0 {
				continue // no rule sees it
			}
			holding, got := map[string]bool{}, matched(set, c)
			for _, name := range matched(checks, c) {
				holding[name] = true
			}
			for i, tree := range w.rules {
				want, has := w.holds(tree, holding), slices.Contains(got, fmt.Sprintf("r%d", i))
				if has != want {
					t.Fatalf("seed %d: r%d = %v, want %v\n%v\n%+v\n%s", seed, i, has, want, c.Event, c.Process, w.text)
				}
				if want {
					yes++
				} else {
					no++
				}
			}
		}
	}
	if t.Logf("%d files, %d matches, %d none", loaded, yes, no); loaded < 150 || yes < 5000 || no < 5000 {
		t.Errorf("the dice decide too little: %d files, %d matches, %d none", loaded, yes, no)
	}
}

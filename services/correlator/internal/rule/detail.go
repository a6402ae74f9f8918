package rule

import (
	"maps"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/palisade-sec/palisade/services/correlator/internal/condition"
	"github.com/palisade-sec/palisade/services/correlator/internal/interest"
)

// Detail is what people ask about a rule and no event does. LoadDetailed fills it.
type Detail struct {
	// Expanded is the condition with macros replaced by theirs, on one line.
	Expanded string
	// Exceptions are what the rule lets off, each as a condition, in the rule's order.
	Exceptions []Exception
	// Fields are the names of the fields that condition and exceptions compare, sorted.
	Fields []string
	// Lists are the items of the lists that they name.
	Lists map[string][]string
	// Output as written.
	Output string
	// Interest is what the rule alone needs of the kernel.
	Interest interest.Interest
	// Match are samples that the rule must match, Differ those it must not.
	Match, Differ []Sample
}

// Exception is one of a rule's exceptions.
type Exception struct{ Name, Condition string }

// Sample is an event as a rule file writes it; package sample reads it.
type Sample struct {
	Node *yaml.Node
	file *file
}

// Errorf is a fault at a node of the sample.
func (s Sample) Errorf(node *yaml.Node, format string, args ...any) *Error {
	return errorAt(span{s.file, node}.place(), format, args...)
}

// samples are a rule's samples as written.
type samples struct{ match, differ []Sample }

// samples reads the shape of a rule's samples, on top of those it has. What is in one is read when it is run.
func (l *loader) samples(m mapping, have samples) samples {
	node := m.values["samples"]
	if node == nil {
		return have
	}
	s, ok := l.mapping(m.file, node, "samples")
	if !ok || !l.only(s, "samples", "match", "differ") {
		return have
	}
	return samples{append(have.match, l.sampleList(s, "match")...), append(have.differ, l.sampleList(s, "differ")...)}
}

func (l *loader) sampleList(m mapping, key string) []Sample {
	node := m.values[key]
	if node == nil || node.ShortTag() == "!!null" {
		return nil
	}
	if node.Kind != yaml.SequenceNode {
		l.fail(span{m.file, node}.place(), "%s must be a sequence of samples", key)
		return nil
	}
	list := make([]Sample, 0, len(node.Content))
	for _, item := range node.Content {
		item = l.deref(m.file, item)
		if item.Kind != yaml.MappingNode {
			l.fail(span{m.file, item}.place(), "sample must be a mapping")
			continue
		}
		list = append(list, Sample{Node: item, file: m.file})
	}
	return list
}

// detail gathers what is known of a rule while it is compiled.
func (l *loader) detail(d *definition, trees []located, c compiledRule) *Detail {
	expand := func(name string) condition.Node {
		if m := l.macros[name]; m != nil {
			return l.tree(m)
		}
		return nil
	}
	out := &Detail{
		Lists: map[string][]string{}, Output: d.output.value, Match: d.samples.match, Differ: d.samples.differ,
		Interest: interest.New(c.rule.Kinds|c.needs.Kinds, c.opens, c.peers).WithGivenPaths(c.needs.GivenPath),
	}
	fields := map[string]bool{}
	for _, t := range trees {
		if t.tree == nil {
			continue
		}
		text := condition.Format(t.tree, expand)
		if t.negated {
			out.Exceptions = append(out.Exceptions, Exception{Name: t.name, Condition: text})
		} else {
			out.Expanded = text
		}
		condition.Walk(t.tree, expand, func(check *condition.Check) {
			fields[check.Left.Field] = true
			if check.Right != nil {
				fields[check.Right.Field] = true
			}
			for _, v := range check.Values {
				if check.Op.List() && !v.Quoted && l.lists[v.Text] != nil {
					out.Lists[v.Text] = l.resolve(v.Text, 0)
				}
			}
		})
	}
	out.Fields = slices.Sorted(maps.Keys(fields))
	return out
}

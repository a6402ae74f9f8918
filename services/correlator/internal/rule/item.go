package rule

import (
	"strconv"
	"strings"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/condition"
	"go.yaml.in/yaml/v3"
)

// engineVersion is the release of Falco's rule engine whose language this is, as major.minor.
const engineVersion = "0.57"

// syscallSource is the only source of events there is.
const syscallSource = "syscall"

// definition is a rule as written, with what was appended to it.
type definition struct {
	name        string
	place       place
	condition   text
	output      text
	description string
	priority    findingv1.Priority
	effect      findingv1.Effect
	tags        []string
	source      string
	enabled     bool
	warnTypes   bool
	skipUnknown bool
	exceptions  []exception
	window      Window
	incident    string
	samples     samples
}

// Keys of a rule, and which of them override may name.
var (
	ruleKeys = []string{
		"rule", "desc", "condition", "output", "priority", "enabled", "tags", "source", "effect", "window", "incident", "samples",
		"exceptions", "append", "override", "warn_evttypes", "skip-if-unknown-filter",
		"capture", "capture_duration",
	}
	appendable  = []string{"condition", "output", "desc", "tags", "exceptions", "samples"}
	replaceable = []string{
		"condition", "output", "desc", "tags", "exceptions", "priority", "enabled", "effect", "window", "incident", "samples",
		"warn_evttypes", "skip-if-unknown-filter",
	}
)

// priorities are Falco's names.
var priorities = map[string]findingv1.Priority{
	"emergency":     findingv1.Priority_PRIORITY_EMERGENCY,
	"alert":         findingv1.Priority_PRIORITY_ALERT,
	"critical":      findingv1.Priority_PRIORITY_CRITICAL,
	"error":         findingv1.Priority_PRIORITY_ERROR,
	"warning":       findingv1.Priority_PRIORITY_WARNING,
	"notice":        findingv1.Priority_PRIORITY_NOTICE,
	"info":          findingv1.Priority_PRIORITY_INFORMATIONAL,
	"informational": findingv1.Priority_PRIORITY_INFORMATIONAL,
	"debug":         findingv1.Priority_PRIORITY_DEBUG,
}

// effects are the words of ARCHITECTURE "Effects".
var effects = map[string]findingv1.Effect{
	"disable": findingv1.Effect_EFFECT_DISABLE,
	"alert":   findingv1.Effect_EFFECT_ALERT,
	"prevent": findingv1.Effect_EFFECT_PREVENT,
	"block":   findingv1.Effect_EFFECT_BLOCK,
}

// read takes in one file.
func (l *loader) read(src Source, f *file) {
	l.aliased, l.flooded = 0, false
	l.files = append(l.files, FileCount{Name: f.name})
	for _, root := range l.documents(src, f) {
		switch {
		case root.ShortTag() == "!!null":
			continue
		case root.Kind != yaml.SequenceNode:
			l.fail(span{f, root}.place(), "a rule file is a sequence of lists, macros and rules")
			continue
		}
		for _, node := range root.Content {
			if node.ShortTag() != "!!null" {
				l.item(f, node)
			}
		}
	}
}

// item takes in one element of a file.
func (l *loader) item(f *file, node *yaml.Node) {
	m, ok := l.mapping(f, node, "item")
	count := &l.files[len(l.files)-1]
	switch {
	case !ok:
	case m.has("rule"):
		count.Rules++
		l.rule(m)
	case m.has("macro"):
		count.Macros++
		l.macro(m)
	case m.has("list"):
		count.Lists++
		l.list(m)
	case m.has("required_engine_version"):
		l.engine(m)
	case m.has("required_plugin_versions"):
		l.plugins(m)
	default:
		l.fail(m.place(), "item is no rule, macro, list, required_engine_version or required_plugin_versions")
	}
}

// engine notes a file that asks for a newer engine than the one this package follows.
func (l *loader) engine(m mapping) {
	l.only(m, "required_engine_version", "required_engine_version")
	s, ok := l.scalar(m, "required_engine_version")
	if !ok {
		return
	}
	want := s.node.Value
	if !strings.Contains(want, ".") {
		want = "0." + want + ".0" // the numbering until 0.26
	}
	major, minor, ok := version(want)
	if !ok {
		l.fail(s.place(), "%q is no version number", s.node.Value)
		return
	}
	haveMajor, haveMinor, _ := version(engineVersion)
	if major > haveMajor || major == haveMajor && minor > haveMinor {
		l.warn(Warning{Position: s.place().position(), Msg: "file asks for rule engine " + s.node.Value + ", this one follows " + engineVersion})
	}
}

// version reads the first two numbers of major.minor.patch.
func version(s string) (major, minor uint64, ok bool) {
	parts := strings.Split(s, ".")
	if len(parts) < 2 || len(parts) > 3 {
		return 0, 0, false
	}
	numbers := [3]uint64{}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 32)
		if err != nil {
			return 0, 0, false
		}
		numbers[i] = n
	}
	return numbers[0], numbers[1], true
}

// plugins checks the shape only: there are no plugins, and what they would provide is a field that
// is reported where it is used.
func (l *loader) plugins(m mapping) {
	l.only(m, "required_plugin_versions", "required_plugin_versions")
	l.pluginList(m, "required_plugin_versions", "alternatives")
}

func (l *loader) pluginList(m mapping, key string, nested ...string) {
	node := m.values[key]
	if node.Kind != yaml.SequenceNode {
		l.fail(span{m.file, node}.place(), "%s must be a sequence", key)
		return
	}
	for _, entry := range node.Content {
		p, ok := l.mapping(m.file, entry, "plugin")
		if !ok || !l.only(p, "plugin", append([]string{"name", "version"}, nested...)...) {
			continue
		}
		l.required(p, "plugin", "name")
		l.required(p, "plugin", "version")
		if len(nested) > 0 && p.has(nested[0]) {
			l.pluginList(p, nested[0])
		}
	}
}

// name reads the name of an item, from the key that says what it is.
func (l *loader) name(m mapping, kind string, valid func(string) bool) (string, bool) {
	s, ok := l.scalar(m, kind)
	if !ok {
		return "", false
	}
	if !valid(s.node.Value) {
		l.fail(s.place(), "%q can not be the name of a %s", s.node.Value, kind)
		return "", false
	}
	return s.node.Value, true
}

func (l *loader) list(m mapping) {
	good := l.only(m, "list", "list", "items", "append", "override")
	name, ok := l.name(m, "list", condition.IsListName)
	if !m.has("items") {
		l.fail(m.place(), "list has no items")
		return
	}
	items := l.scalars(m, "items")
	add, addOK := l.appends(m, "items")
	if !good || !ok || !addOK {
		return
	}
	old, defined := l.lists[name]
	if !add {
		l.lists[name] = &list{items: items}
		return
	}
	if !defined {
		l.fail(m.place(), "list %q is not defined above, so nothing can be appended to it", name)
		return
	}
	old.items = append(old.items, items...)
}

func (l *loader) macro(m mapping) {
	good := l.only(m, "macro", "macro", "condition", "append", "override")
	name, ok := l.name(m, "macro", condition.IsName)
	cond, condOK := l.required(m, "macro", "condition")
	add, addOK := l.appends(m, "condition")
	if !good || !ok || !condOK || !addOK {
		return
	}
	old, defined := l.macros[name]
	if !add {
		l.macros[name] = &macro{name: name, text: newText(cond)}
		return
	}
	if !defined {
		l.fail(m.place(), "macro %q is not defined above, so nothing can be appended to it", name)
		return
	}
	old.text = old.text.with(cond)
}

// appends says whether a list or macro, which has one key that matters, is to be appended.
func (l *loader) appends(m mapping, key string) (add, ok bool) {
	add = l.boolean(m, "append", false)
	over, ok := l.override(m, []string{key}, []string{key})
	if add && len(over) > 0 {
		l.fail(m.keyPlace("append"), "append and override exclude each other")
		return false, false
	}
	return add || over[key] == opAppend, ok
}

// What override does with a key.
const (
	opAppend  = "append"
	opReplace = "replace"
)

// override reads the operation for each key. Every key named must be there.
func (l *loader) override(m mapping, appendable, replaceable []string) (map[string]string, bool) {
	if !m.has("override") {
		return nil, true
	}
	o, ok := l.mapping(m.file, m.values["override"], "override")
	if !ok {
		return nil, false
	}
	allowed := map[string][]string{opAppend: appendable, opReplace: replaceable}
	ops := map[string]string{}
	for key := range o.values {
		op, isScalar := l.scalar(o, key)
		switch {
		case !isScalar:
			ok = false
		case allowed[op.node.Value] == nil:
			l.fail(op.place(), "override of %s is %q, must be append or replace", key, op.node.Value)
			ok = false
		case !contains(allowed[op.node.Value], key):
			l.fail(o.keyPlace(key), "key %q can not be overridden by %s", key, op.node.Value)
			ok = false
		case !m.has(key):
			l.fail(o.keyPlace(key), "override names %s, but there is no %s here", key, key)
			ok = false
		default:
			ops[key] = op.node.Value
		}
	}
	return ops, ok
}

package rule

import (
	"slices"
	"strconv"
	"strings"
	"time"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/condition"
)

func contains(keys []string, key string) bool { return slices.Contains(keys, key) }

// rule takes in a rule: a definition, or a change of one that stands above.
func (l *loader) rule(m mapping) {
	good := l.only(m, "rule", ruleKeys...)
	name, ok := l.name(m, "rule", func(s string) bool { return s != "" })
	add := l.boolean(m, "append", false)
	over, overOK := l.override(m, appendable, replaceable)
	if !good || !ok || !overOK {
		return
	}
	for _, key := range []string{"capture", "capture_duration"} {
		if m.has(key) {
			l.warn(Warning{Position: m.keyPlace(key).position(), Rule: name, Msg: key + " is not supported; the flight recorder serves instead"})
		}
	}
	old := l.defined(name)
	onlyEnabled := m.has("enabled") && !m.has("condition") && !m.has("output") && !m.has("desc") && !m.has("priority") && len(over) == 0 && !add
	switch {
	case add && len(over) > 0:
		l.fail(m.keyPlace("append"), "append and override exclude each other")
	case !add && len(over) == 0 && !onlyEnabled:
		l.define(m, name, old)
	case old == nil:
		l.fail(m.place(), "rule %q is not defined above, so it can not be changed", name)
	case add:
		l.appendTo(old, m)
	case onlyEnabled:
		old.enabled = l.boolean(m, "enabled", true)
	default:
		l.overrideIn(old, m, over)
	}
}

// defined is the definition of that name, nil if there is none.
func (l *loader) defined(name string) *definition {
	if i, ok := l.ruleIndex[name]; ok {
		return l.rules[i]
	}
	return nil
}

// define takes in a whole rule. A second one of the same name takes the place of the first.
func (l *loader) define(m mapping, name string, old *definition) {
	d := &definition{name: name, place: m.place(), source: syscallSource, effect: findingv1.Effect_EFFECT_ALERT}
	cond, condOK := l.required(m, "rule", "condition")
	output, outputOK := l.required(m, "rule", "output")
	desc, descOK := l.required(m, "rule", "desc")
	_, priorityOK := l.required(m, "rule", "priority")
	d.enabled = l.boolean(m, "enabled", true)
	d.warnTypes = l.boolean(m, "warn_evttypes", true)
	d.skipUnknown = l.boolean(m, "skip-if-unknown-filter", false)
	d.tags = l.tags(m)
	if s, ok := l.scalar(m, "source"); ok {
		d.source = s.node.Value
	}
	l.setPriority(d, m)
	l.setEffect(d, m)
	l.setWindow(d, m)
	l.setIncident(d, m)
	d.samples = l.samples(m, samples{})
	d.exceptions = l.exceptions(m, nil)
	if !condOK || !outputOK || !descOK || !priorityOK {
		return
	}
	d.condition, d.output = newText(cond), newText(output)
	d.description = strings.TrimSpace(desc.node.Value)
	if old != nil {
		*old = *d
		return
	}
	l.ruleIndex[name] = len(l.rules)
	l.rules = append(l.rules, d)
}

func (l *loader) tags(m mapping) []string {
	var tags []string
	for _, s := range l.scalars(m, "tags") {
		if !contains(tags, s.node.Value) {
			tags = append(tags, s.node.Value)
		}
	}
	return tags
}

func (l *loader) setPriority(d *definition, m mapping) {
	s, ok := l.scalar(m, "priority")
	if !ok {
		return
	}
	if d.priority, ok = priorities[strings.ToLower(strings.TrimSpace(s.node.Value))]; !ok {
		l.fail(s.place(), "unknown priority %q", s.node.Value)
	}
}

func (l *loader) setEffect(d *definition, m mapping) {
	s, ok := l.scalar(m, "effect")
	if !ok {
		return
	}
	if d.effect, ok = effects[s.node.Value]; !ok {
		l.fail(s.place(), "unknown effect %q, must be alert, prevent, block or disable", s.node.Value)
	}
}

// Limits of a window.
const (
	maxTimes  = 1000
	maxWithin = 24 * time.Hour
)

// setWindow reads {times: N, within: DURATION}.
func (l *loader) setWindow(d *definition, m mapping) {
	if !m.has("window") {
		return
	}
	w, ok := l.mapping(m.file, m.values["window"], "window")
	if !ok || !l.only(w, "window", "times", "within") {
		return
	}
	times, timesOK := l.required(w, "window", "times")
	within, withinOK := l.required(w, "window", "within")
	if !timesOK || !withinOK {
		return
	}
	n, err := strconv.Atoi(times.node.Value)
	if err != nil || n < 2 || n > maxTimes {
		l.fail(times.place(), "times must be a number from 2 to %d, not %q", maxTimes, times.node.Value)
		return
	}
	t, err := time.ParseDuration(within.node.Value)
	if err != nil || t <= 0 || t > maxWithin {
		l.fail(within.place(), "within must be a time above 0 and at most 24h, as in 30s or 5m, not %q", within.node.Value)
		return
	}
	d.window = Window{Times: n, Within: t}
}

func (l *loader) setIncident(d *definition, m mapping) {
	s, ok := l.scalar(m, "incident")
	if !ok {
		return
	}
	if !condition.IsName(s.node.Value) {
		l.fail(s.place(), "incident must be one word of letters, digits and _, not %q", s.node.Value)
		return
	}
	d.incident = s.node.Value
}

// appendTo is the older form of appending, which knows two keys. Falco passes over the others, so
// they are only warned of.
func (l *loader) appendTo(d *definition, m mapping) {
	for key := range m.values {
		if !contains([]string{"rule", "append", "condition", "exceptions"}, key) {
			l.warn(Warning{Position: m.keyPlace(key).position(), Rule: d.name, Msg: "append: true passes over " + key + "; use override"})
		}
	}
	if !m.has("condition") && !m.has("exceptions") {
		l.fail(m.place(), "append needs a condition or exceptions")
		return
	}
	if s, ok := l.scalar(m, "condition"); ok {
		d.condition = d.condition.with(s)
	}
	d.exceptions = l.exceptions(m, d.exceptions)
}

// overrideIn changes the keys that override names. A key that is there without being named is an
// error: nobody could tell what it is to do.
func (l *loader) overrideIn(d *definition, m mapping, over map[string]string) {
	for key := range m.values {
		if over[key] == "" && key != "rule" && key != "override" {
			l.fail(m.keyPlace(key), "key %q is not named in override", key)
			return
		}
	}
	l.setPriority(d, m)
	l.setEffect(d, m)
	l.setWindow(d, m)
	l.setIncident(d, m)
	switch over["samples"] {
	case opReplace:
		d.samples = l.samples(m, samples{})
	case opAppend:
		d.samples = l.samples(m, d.samples)
	}
	d.enabled = l.boolean(m, "enabled", d.enabled)
	d.warnTypes = l.boolean(m, "warn_evttypes", d.warnTypes)
	d.skipUnknown = l.boolean(m, "skip-if-unknown-filter", d.skipUnknown)
	d.condition = l.overrideText(d.condition, m, "condition", over)
	d.output = l.overrideText(d.output, m, "output", over)
	if s, ok := l.scalar(m, "desc"); ok {
		desc := strings.TrimSpace(s.node.Value)
		if over["desc"] == opAppend {
			desc = d.description + " " + desc
		}
		d.description = desc
	}
	switch over["tags"] {
	case opReplace:
		d.tags = l.tags(m)
	case opAppend:
		for _, tag := range l.tags(m) {
			if !contains(d.tags, tag) {
				d.tags = append(d.tags, tag)
			}
		}
	}
	switch over["exceptions"] {
	case opReplace:
		d.exceptions = l.exceptions(m, nil)
	case opAppend:
		d.exceptions = l.exceptions(m, d.exceptions)
	}
}

func (l *loader) overrideText(old text, m mapping, key string, over map[string]string) text {
	s, ok := l.scalar(m, key)
	switch {
	case !ok:
		return old
	case over[key] == opAppend:
		return old.with(s)
	}
	return newText(s)
}

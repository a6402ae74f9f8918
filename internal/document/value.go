package document

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Value is a node of the document that is asked for a type. What it cannot give it reports, and gives the zero value instead.
type Value struct {
	file *File
	node *yaml.Node
	key  *yaml.Node
	what string
}

// Present says whether there is a value. One that is null is: it was written, and is no string, mapping or sequence.
func (v Value) Present() bool { return v.node != nil }

// Position is where the value stands, or the beginning of the file if it is absent.
func (v Value) Position() Position { return v.PositionAt(0) }

// PositionAt is where the byte of a scalar's value stands.
func (v Value) PositionAt(offset int) Position {
	switch {
	case v.node == nil:
		return Position{File: v.file.name, Line: 1, Column: 1}
	case v.node.Kind != yaml.ScalarNode:
		return Position{File: v.file.name, Line: v.node.Line, Column: v.node.Column}
	case offset == 0 && v.node.Style&(yaml.LiteralStyle|yaml.FoldedStyle) == 0:
		return Position{File: v.file.name, Line: max(v.node.Line, 1), Column: max(v.node.Column, 1)}
	}
	line, column := At(v.file.lines, v.node, offset)
	return Position{File: v.file.name, Line: line, Column: column}
}

// Fail reports a fault of the value.
func (v Value) Fail(format string, args ...any) { v.FailAt(0, format, args...) }

// FailAt reports a fault at a byte of a scalar's value.
func (v Value) FailAt(offset int, format string, args ...any) {
	p := v.PositionAt(offset)
	v.file.fail(p.Line, p.Column, format, args...)
}

// scalar is the value's text, if it has any.
func (v Value) scalar() (string, bool) {
	switch {
	case !v.Present():
		return "", false
	case v.node.Kind == yaml.AliasNode:
		v.Fail("%s is an alias: write its value out", v.what)
		return "", false
	case v.node.Kind != yaml.ScalarNode:
		v.Fail("%s must be a word or a text", v.what)
		return "", false
	case v.node.ShortTag() == "!!null" || strings.TrimSpace(v.node.Value) == "":
		v.Fail("%s is empty", v.what)
		return "", false
	}
	return v.node.Value, true
}

// Text is a scalar with something in it. Numbers and the like are taken as they are written.
func (v Value) Text() string {
	text, _ := v.scalar()
	return text
}

// Bool is true or false.
func (v Value) Bool() bool {
	text, ok := v.scalar()
	if ok && text != "true" && text != "false" {
		v.Fail("%s: %q is not true or false", v.what, short(text))
	}
	return text == "true"
}

// Int is a whole number from low to high.
func (v Value) Int(low, high int) int {
	text, ok := v.scalar()
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		v.Fail("%s: %q is not a whole number from %d to %d", v.what, short(text), low, high)
		return 0
	}
	return n
}

// Word is one of the words allowed.
func (v Value) Word(allowed ...string) string {
	text, ok := v.scalar()
	if !ok {
		return ""
	}
	if !slices.Contains(allowed, text) {
		v.Fail("%s: %q is not one of %s", v.what, short(text), strings.Join(allowed, ", "))
		return ""
	}
	return text
}

// Until is a time until which something holds: a day, as in 2026-12-31, which counts to its end in UTC, or an instant as in RFC 3339.
func (v Value) Until() time.Time {
	text, ok := v.scalar()
	if !ok {
		return time.Time{}
	}
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return day.AddDate(0, 0, 1)
	}
	instant, err := time.Parse(time.RFC3339, text)
	if err != nil {
		v.Fail("%s: %q is neither a day, as in 2026-12-31, nor a time, as in 2026-12-31T12:00:00Z", v.what, short(text))
		return time.Time{}
	}
	return instant
}

// Items are the values of a sequence. Absent gives none.
func (v Value) Items() []Value {
	if !v.Present() {
		return nil
	}
	if v.node.Kind != yaml.SequenceNode {
		v.Fail("%s must be a sequence", v.what)
		return nil
	}
	items := make([]Value, 0, len(v.node.Content))
	for _, node := range v.node.Content {
		items = append(items, Value{file: v.file, node: node, what: "an item of " + v.what})
	}
	return items
}

// Texts are the texts of a sequence, or the one text in its stead. A sequence without items is reported: it is most likely unfinished.
func (v Value) Texts() []string {
	if !v.Present() {
		return nil
	}
	if v.node.Kind == yaml.ScalarNode {
		if text, ok := v.scalar(); ok {
			return []string{text}
		}
		return nil
	}
	items := v.Items()
	if v.node.Kind == yaml.SequenceNode && len(items) == 0 {
		v.Fail("%s has no items", v.what)
	}
	var texts []string
	for _, item := range items {
		if text, ok := item.scalar(); ok {
			texts = append(texts, text)
		}
	}
	return texts
}

// short keeps a message to a line, whatever stands in the file.
func short(text string) string {
	const most = 60
	if len(text) <= most {
		return text
	}
	return cutRunes(text, most) + "…"
}

package document

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Mapping is a YAML mapping with distinct words for keys. A Mapping of what is none has no keys.
type Mapping struct {
	file   *File
	node   *yaml.Node
	keys   map[string]*yaml.Node
	values map[string]*yaml.Node
	order  []string
}

// Position is where the mapping begins.
func (m Mapping) Position() Position {
	if m.node == nil {
		return Position{File: m.file.name, Line: 1, Column: 1}
	}
	return Position{File: m.file.name, Line: m.node.Line, Column: m.node.Column}
}

// Fail reports a fault of the mapping as a whole.
func (m Mapping) Fail(format string, args ...any) {
	p := m.Position()
	m.file.fail(p.Line, p.Column, format, args...)
}

// Has says whether the key is there, with whatever value.
func (m Mapping) Has(key string) bool { return m.values[key] != nil }

// Keys are the keys as they stand in the file.
func (m Mapping) Keys() []string { return m.order }

// Value is the value of a key. That of an absent key is absent.
func (m Mapping) Value(key string) Value {
	return Value{file: m.file, node: m.values[key], key: m.keys[key], what: key}
}

// Require is Value, with absence reported. what names the mapping, as in "rule".
func (m Mapping) Require(what, key string) Value {
	if !m.Has(key) && m.node != nil {
		m.Fail("%s has no %s", what, key)
	}
	return m.Value(key)
}

// Only reports every key that is not one of those allowed, and says which are. what names the mapping.
func (m Mapping) Only(what string, allowed ...string) {
	for _, key := range m.order {
		if !slices.Contains(allowed, key) {
			at := m.keys[key]
			m.file.fail(at.Line, at.Column, "unknown key %q in %s: there are %s", short(key), what, strings.Join(allowed, ", "))
		}
	}
}

// Mapping reads the value as a mapping, and reports what is none.
func (v Value) Mapping() Mapping {
	m := Mapping{file: v.file, keys: map[string]*yaml.Node{}, values: map[string]*yaml.Node{}}
	if !v.Present() {
		return m
	}
	if v.node.Kind != yaml.MappingNode {
		v.Fail("%s must be a mapping", v.what)
		return m
	}
	m.node = v.node
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key, value := v.node.Content[i], v.node.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode:
			v.file.fail(key.Line, key.Column, "a key must be a word")
		case m.keys[key.Value] != nil:
			v.file.fail(key.Line, key.Column, "key %q is here twice", short(key.Value))
		default:
			m.keys[key.Value], m.values[key.Value] = key, value
			m.order = append(m.order, key.Value)
		}
	}
	return m
}

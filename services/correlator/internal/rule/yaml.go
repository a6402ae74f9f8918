package rule

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/palisade-sec/palisade/internal/document"
)

// Limits on one file, against files made to exhaust memory.
const (
	maxFileBytes  = 8 << 20
	maxAliasNodes = 100_000
)

// documents parses the file into its documents' root nodes. A syntax error is reported and ends it.
func (l *loader) documents(src Source, f *file) []*yaml.Node {
	if len(src.Data) > maxFileBytes {
		l.fail(place{f, 1, 1}, "file is larger than %d bytes", maxFileBytes)
		return nil
	}
	var roots []*yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(src.Data))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return roots
		}
		if err != nil {
			line, column, msg := document.SyntaxError(f.lines, err)
			l.fail(place{f, line, column}, "%s", msg)
			return roots
		}
		if len(doc.Content) > 0 {
			roots = append(roots, doc.Content[0])
		}
	}
}

// mapping is a YAML mapping whose keys have been checked.
type mapping struct {
	file   *file
	node   *yaml.Node
	keys   map[string]*yaml.Node
	values map[string]*yaml.Node
}

func (m mapping) place() place { return span{m.file, m.node}.place() }

func (m mapping) has(key string) bool { return m.values[key] != nil }

// keyPlace is where the key stands.
func (m mapping) keyPlace(key string) place { return span{m.file, m.keys[key]}.place() }

// mapping reads a mapping with distinct scalar keys. Other nodes are reported.
func (l *loader) mapping(f *file, node *yaml.Node, what string) (mapping, bool) {
	node = l.deref(f, node)
	m := mapping{f, node, map[string]*yaml.Node{}, map[string]*yaml.Node{}}
	if node.Kind != yaml.MappingNode {
		l.fail(m.place(), "%s must be a mapping", what)
		return m, false
	}
	good := true
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode:
			l.fail(span{f, key}.place(), "key must be a word")
			good = false
		case m.keys[key.Value] != nil:
			l.fail(span{f, key}.place(), "key %q is here twice", key.Value)
			good = false
		default:
			m.keys[key.Value] = key
			m.values[key.Value] = l.deref(f, node.Content[i+1])
		}
	}
	return m, good
}

// only reports every key that is not one of those allowed.
func (l *loader) only(m mapping, what string, allowed ...string) bool {
	good := true
	for i := 0; i+1 < len(m.node.Content); i += 2 {
		key := m.node.Content[i]
		if key.Kind == yaml.ScalarNode && !slices.Contains(allowed, key.Value) {
			l.fail(span{m.file, key}.place(), "unknown key %q in %s", key.Value, what)
			good = false
		}
	}
	return good
}

// deref follows an alias, for as long as the file's aliases do not add up to a flood.
func (l *loader) deref(f *file, node *yaml.Node) *yaml.Node {
	if node.Kind != yaml.AliasNode || node.Alias == nil {
		return node
	}
	l.aliased += 1 + len(node.Alias.Content)
	if l.aliased > maxAliasNodes {
		if !l.flooded {
			l.fail(span{f, node}.place(), "aliases stand for more than %d nodes", maxAliasNodes)
		}
		l.flooded = true
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Line: node.Line, Column: node.Column}
	}
	return node.Alias
}

// scalar reads a value that must be a scalar with something in it. Absent is not reported.
func (l *loader) scalar(m mapping, key string) (span, bool) {
	node := m.values[key]
	if node == nil {
		return span{}, false
	}
	s := span{m.file, node}
	switch {
	case node.Kind != yaml.ScalarNode:
		l.fail(s.place(), "%s must be a string", key)
		return s, false
	case node.ShortTag() == "!!null" || strings.TrimSpace(node.Value) == "":
		l.fail(m.keyPlace(key), "%s is empty", key)
		return s, false
	}
	return s, true
}

// required is scalar, with absence reported.
func (l *loader) required(m mapping, what, key string) (span, bool) {
	if !m.has(key) {
		l.fail(m.place(), "%s has no %s", what, key)
		return span{}, false
	}
	return l.scalar(m, key)
}

// boolean reads true or false, or keeps the value given if the key is absent.
func (l *loader) boolean(m mapping, key string, value bool) bool {
	s, ok := l.scalar(m, key)
	if !ok {
		return value
	}
	switch strings.ToLower(s.node.Value) {
	case "true", "yes", "on":
		return true
	case "false", "no", "off":
		return false
	}
	l.fail(s.place(), "%s must be true or false, not %q", key, s.node.Value)
	return value
}

// scalars reads a sequence of scalars. Absent gives none; null is an empty sequence.
func (l *loader) scalars(m mapping, key string) []span {
	node := m.values[key]
	if node == nil || node.ShortTag() == "!!null" {
		return nil
	}
	if node.Kind != yaml.SequenceNode {
		l.fail(span{m.file, node}.place(), "%s must be a sequence", key)
		return nil
	}
	var items []span
	for _, item := range node.Content {
		s := span{m.file, l.deref(m.file, item)}
		if s.node.Kind != yaml.ScalarNode || s.node.ShortTag() == "!!null" {
			l.fail(span{m.file, item}.place(), "%s must hold strings only", key)
			continue
		}
		items = append(items, s)
	}
	return items
}

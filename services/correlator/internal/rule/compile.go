package rule

import (
	"encoding/base64"
	"strings"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/byname"
	"github.com/palisade-sec/palisade/services/correlator/internal/condition"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/interest"
)

// predicate is a compiled condition.
type predicate func(*field.Context) bool

// knowledge is what is known of a condition before any event.
type knowledge uint8

const (
	depends knowledge = iota
	never
	always
)

// compiled is a condition for the kinds of event of its compiler.
type compiled struct {
	known knowledge
	match predicate // set if known is depends
	size  int       // checks, those of macros counted each time
	notes []note
	// needs is what must be recorded for the condition to have what it compares, if known is depends.
	needs field.Needs
	// paths hold every file of whose opening the condition can be true, if known is depends.
	paths interest.Paths
	// peers hold the far end of every outgoing connection of which it can be, if known is depends.
	peers interest.Peers
	// names hold those of every process of whose events it can be, if known is depends.
	names byname.Names
	// text is set if the condition is a comparison of one string with constants, and match is no more than that.
	text *textCheck
}

// bound is what a condition of which so much is known can be true of, if it can be of some when that depends on the event.
func bound[S any](known knowledge, all, some S) S {
	var none S
	switch known {
	case never:
		return none
	case always:
		return all
	default:
		return some
	}
}

// reach is the files of whose opening the condition can be true.
func (c compiled) reach() interest.Paths { return bound(c.known, interest.Everything(), c.paths) }

// reachPeers is the far ends of the outgoing connections of which the condition can be true.
func (c compiled) reachPeers() interest.Peers { return bound(c.known, interest.Everybody(), c.peers) }

// reachNames is the names of the processes of whose events the condition can be true.
func (c compiled) reachNames() byname.Names { return bound(c.known, byname.Any(), c.names) }

// within is the condition with a look at the path first, which is cheaper than most conditions.
func (c compiled) within(paths interest.Paths) compiled {
	if match := c.match; c.known == depends && !paths.All {
		c.match = func(c *field.Context) bool { return paths.Has(c.Event.GetFileOpen().GetFile().GetPath()) && match(c) }
	}
	return c
}

// predicate is the condition as a function, whatever is known of it.
func (c compiled) predicate() predicate {
	if c.known == depends {
		return c.match
	}
	result := c.known == always
	return func(*field.Context) bool { return result }
}

// compiler compiles conditions for a set of kinds. For a single kind evt.type is a constant, and
// so is every check of a field that the kind lacks.
type compiler struct {
	*loader
	kinds field.Kinds
	// sample is an open of the access that is looked at, nil if all are. What depends on nothing else is then a constant,
	// and paths are worked out.
	sample *field.Context
	macros map[*macro]compiled
	depth  int
	text   text
}

func newCompiler(l *loader, kinds field.Kinds) *compiler {
	return &compiler{loader: l, kinds: kinds, macros: map[*macro]compiled{}}
}

// newAccessCompiler compiles for opens of one kind of access.
func newAccessCompiler(l *loader, access interest.Access) *compiler {
	c := newCompiler(l, field.KindFileOpen)
	c.sample = &field.Context{Event: &eventv1.Event{Kind: &eventv1.Event_FileOpen{FileOpen: &eventv1.FileOpen{Flags: access.Flags()}}}}
	return c
}

// rule compiles a rule's condition and exceptions.
func (c *compiler) rule(trees []located) compiled {
	terms := make([]compiled, 0, len(trees))
	for _, t := range trees {
		if t.tree == nil {
			continue
		}
		c.text = t.text
		term := c.node(t.tree)
		if t.negated {
			term = not(term)
		}
		terms = append(terms, term)
	}
	result := all(terms)
	if result.size > maxChecks && len(trees) > 0 {
		c.fail(trees[0].text.place(0), "condition comes to more than %d checks", maxChecks)
	}
	return result
}

// node compiles a part of the tree, whose offsets are in c.text.
func (c *compiler) node(n condition.Node) compiled {
	switch n := n.(type) {
	case *condition.And:
		return all(c.nodes(n.Terms, never))
	case *condition.Or:
		return oneOf(c.nodes(n.Terms, always))
	case *condition.Not:
		return not(c.node(n.Term))
	case *condition.Macro:
		return c.reference(n)
	case *condition.Check:
		return c.check(n)
	}
	return compiled{known: never}
}

// nodes compiles terms, up to one that decides. Of all kinds at once it compiles every term, to find what is wrong.
func (c *compiler) nodes(terms []condition.Node, decides knowledge) []compiled {
	out := make([]compiled, 0, len(terms))
	for _, t := range terms {
		term := c.node(t)
		out = append(out, term)
		if term.known == decides && c.kinds != field.AllKinds {
			break
		}
	}
	return out
}

// reference compiles the macro that is named.
func (c *compiler) reference(n *condition.Macro) compiled {
	m := c.loader.macros[n.Name]
	switch {
	case m == nil:
		c.fail(c.text.place(n.Offset), "unknown macro %q", n.Name)
		return compiled{known: never}
	case m.busy:
		c.fail(c.text.place(n.Offset), "macro %q refers to itself", n.Name)
		return compiled{known: never}
	case c.depth >= maxMacroDepth:
		c.fail(c.text.place(n.Offset), "macros are nested more than %d deep", maxMacroDepth)
		return compiled{known: never}
	}
	return c.macro(m)
}

// macro compiles a macro once. Rules share the result.
func (c *compiler) macro(m *macro) compiled {
	if done, ok := c.macros[m]; ok {
		return done
	}
	tree := c.tree(m)
	if tree == nil {
		return compiled{known: never}
	}
	outer := c.text
	c.text, m.busy = m.text, true
	c.depth++
	result := c.node(tree)
	c.depth--
	c.text, m.busy = outer, false
	if result.size > maxChecks {
		c.fail(m.text.place(0), "macro %q comes to more than %d checks", m.name, maxChecks)
		result = compiled{known: never}
	}
	c.macros[m] = result
	return result
}

// all is true if every term is. Terms known to be true drop out; one known to be false decides.
func all(terms []compiled) compiled {
	out := compiled{known: always, paths: interest.Everything(), peers: interest.Everybody(), names: byname.Any()}
	var rest []predicate
	for _, t := range terms {
		out.size += t.size
		out.paths, out.peers = out.paths.And(t.reach()), out.peers.And(t.reachPeers())
		out.names = out.names.And(t.reachNames())
		out.notes = appendNotes(out.notes, t.notes)
		switch {
		case t.known == never:
			out.known = never
		case t.known == depends && out.known != never:
			out.known = depends
			out.needs = out.needs.Or(t.needs)
			rest = append(rest, t.match)
		}
	}
	if out.known != depends {
		return out
	}
	switch len(rest) {
	case 1:
		out.match = rest[0]
	case 2:
		a, b := rest[0], rest[1]
		out.match = func(c *field.Context) bool { return a(c) && b(c) }
	default:
		out.match = func(c *field.Context) bool {
			for _, t := range rest {
				if !t(c) {
					return false
				}
			}
			return true
		}
	}
	return out
}

// oneOf is true if any term is: the opposite of all of the opposites, written out because it is
// evaluated for every event.
func oneOf(terms []compiled) compiled {
	out := compiled{known: never}
	var same sameText
	for _, t := range terms {
		out.size += t.size
		out.paths, out.peers = out.paths.Or(t.reach()), out.peers.Or(t.reachPeers())
		out.names = out.names.Or(t.reachNames())
		out.notes = appendNotes(out.notes, t.notes)
		switch {
		case t.known == always:
			out.known = always
		case t.known == depends && out.known != always:
			out.known = depends
			out.needs = out.needs.Or(t.needs)
			same.add(t)
		}
	}
	if out.known != depends {
		return out
	}
	switch rest := same.predicates(); len(rest) {
	case 1:
		out.match = rest[0]
	case 2:
		a, b := rest[0], rest[1]
		out.match = func(c *field.Context) bool { return a(c) || b(c) }
	default:
		out.match = func(c *field.Context) bool {
			for _, t := range rest {
				if t(c) {
					return true
				}
			}
			return false
		}
	}
	return out
}

// not may be true of any file or peer: its term holds more of them than those of which the condition is true.
func not(t compiled) compiled {
	t.paths, t.peers, t.names, t.text = interest.Everything(), interest.Everybody(), byname.Any(), nil
	switch t.known {
	case never:
		t.known = always
	case always:
		t.known = never
	case depends:
		match := t.match
		t.match = func(c *field.Context) bool { return !match(c) }
	}
	return t
}

// values are the constants of a check, with names of lists replaced by their items.
func (c *compiler) values(n *condition.Check) []string {
	values := make([]string, 0, len(n.Values))
	for _, v := range n.Values {
		if n.Op.List() && !v.Quoted {
			if c.lists[v.Text] != nil {
				values = append(values, c.resolve(v.Text, 0)...)
				continue
			}
			if n.Named {
				c.fail(c.text.place(v.Offset), "unknown list %q", v.Text)
			}
		}
		values = append(values, v.Text)
	}
	return values
}

// transformed is an operand's value after its functions.
func (c *compiler) transformed(f field.Field, o condition.Operand) field.Field {
	for _, name := range o.Transforms {
		apply := stringTransforms[name]
		switch {
		case f.Str == nil && f.AnyStr == nil || f.Type != field.String && f.Type != field.Name:
			c.fail(c.text.place(o.Offset), "%s applies to strings, %s is %s", name, o.Field, f.Type)
			return f
		case name == "len":
			f = length(f)
		default:
			f = mapped(f, apply)
		}
	}
	return f
}

// stringTransforms are the functions from string to string. One that fails leaves no value.
var stringTransforms = map[string]func(string) (string, bool){
	"tolower":  func(s string) (string, bool) { return strings.ToLower(s), true },
	"toupper":  func(s string) (string, bool) { return strings.ToUpper(s), true },
	"basename": func(s string) (string, bool) { return s[strings.LastIndexByte(s, '/')+1:], true },
	"b64":      fromBase64,
}

// fromBase64 decodes with or without padding.
func fromBase64(s string) (string, bool) {
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
	return string(raw), err == nil
}

// mapped is the field with its values changed. Its kind of string and its known values are those
// of the field no longer.
func mapped(f field.Field, apply func(string) (string, bool)) field.Field {
	out := field.Field{Type: field.String, Kinds: f.Kinds, Needs: f.Needs, AllNotEqual: f.AllNotEqual, Deprecated: f.Deprecated}
	if str := f.Str; str != nil {
		out.Str = func(c *field.Context) (string, bool) {
			s, ok := str(c)
			if !ok {
				return "", false
			}
			return apply(s)
		}
	}
	if anyStr := f.AnyStr; anyStr != nil {
		out.AnyStr = func(c *field.Context, match func(string) bool) bool {
			return anyStr(c, func(s string) bool {
				s, ok := apply(s)
				return ok && match(s)
			})
		}
	}
	return out
}

// length is the number of bytes of a string field.
func length(f field.Field) field.Field {
	out := field.Field{Type: field.Number, Kinds: f.Kinds, Needs: f.Needs, AllNotEqual: f.AllNotEqual, Deprecated: f.Deprecated}
	if str := f.Str; str != nil {
		out.Num = func(c *field.Context) (int64, bool) {
			s, ok := str(c)
			return int64(len(s)), ok
		}
	}
	if anyStr := f.AnyStr; anyStr != nil {
		out.AnyNum = func(c *field.Context, match func(int64) bool) bool {
			return anyStr(c, func(s string) bool { return match(int64(len(s))) })
		}
	}
	return out
}

package condition

import (
	"slices"
	"strings"
)

// maxExpanded bounds an expanded condition, in bytes.
const maxExpanded = 1 << 16

// Format writes a tree as a condition, on one line. expand gives the tree of a macro, which then stands in parentheses in its
// place; where it gives none, the name stays. Beyond 64 KiB it ends with three dots.
func Format(n Node, expand func(name string) Node) string {
	f := formatter{expand: expand}
	f.node(n, false)
	text := f.b.String()
	if len(text) > maxExpanded {
		return text[:maxExpanded] + "..."
	}
	return text
}

// Walk calls visit for every check of the tree, and for those of the macros that expand gives.
func Walk(n Node, expand func(name string) Node, visit func(*Check)) {
	switch n := n.(type) {
	case *And:
		for _, t := range n.Terms {
			Walk(t, expand, visit)
		}
	case *Or:
		for _, t := range n.Terms {
			Walk(t, expand, visit)
		}
	case *Not:
		Walk(n.Term, expand, visit)
	case *Macro:
		if tree := expand(n.Name); tree != nil { // not one that refers to itself: that is no condition
			Walk(tree, expand, visit)
		}
	case *Check:
		visit(n)
	}
}

type formatter struct {
	b      strings.Builder
	expand func(string) Node
}

// node writes a part; tight puts what has several terms in parentheses.
func (f *formatter) node(n Node, tight bool) {
	if f.b.Len() > maxExpanded {
		return
	}
	switch n := n.(type) {
	case *And:
		f.terms(n.Terms, " and ", tight)
	case *Or:
		f.terms(n.Terms, " or ", tight)
	case *Not:
		f.b.WriteString("not ")
		f.node(n.Term, true)
	case *Macro:
		if tree := f.expand(n.Name); tree != nil {
			f.node(tree, tight)
			return
		}
		f.b.WriteString(n.Name)
	case *Check:
		f.check(n)
	}
}

func (f *formatter) terms(terms []Node, between string, tight bool) {
	if tight {
		f.b.WriteByte('(')
	}
	for i, t := range terms {
		if i > 0 {
			f.b.WriteString(between)
		}
		f.node(t, true)
	}
	if tight {
		f.b.WriteByte(')')
	}
}

func (f *formatter) check(c *Check) {
	f.b.WriteString(c.Left.String() + " " + c.Op.String())
	switch {
	case c.Op == Exists:
	case c.Right != nil && len(c.Right.Transforms) > 0:
		f.b.WriteString(" " + c.Right.String())
	case c.Right != nil:
		f.b.WriteString(" val(" + c.Right.String() + ")")
	case c.Op.List():
		values := make([]string, len(c.Values))
		for i, v := range c.Values {
			values[i] = v.String()
		}
		f.b.WriteString(" (" + strings.Join(values, ", ") + ")")
	default:
		f.b.WriteString(" " + c.Values[0].String())
	}
}

// String is the operand as a condition has it.
func (o Operand) String() string {
	s := o.Field
	if o.HasArg {
		arg := o.Arg
		if strings.ContainsAny(arg, bareArgStop) || arg == "" {
			arg = quote(arg)
		}
		s += "[" + arg + "]"
	}
	for _, name := range o.Transforms {
		s = name + "(" + s + ")"
	}
	return s
}

// String is the constant as a condition has it: in quotes where it had some, or needs them.
func (v Value) String() string {
	if !v.Quoted && v.Text != "" && !strings.ContainsAny(v.Text, bareStops) {
		return v.Text
	}
	return quote(v.Text)
}

// quote puts a text in quotes, with the escapes that it then needs.
func quote(text string) string {
	escaped := make([]byte, 0, len(text)+2)
	for _, b := range []byte(text) {
		if i := slices.Index([]byte("\b\f\n\r\t\\\""), b); i >= 0 {
			escaped = append(escaped, '\\', `bfnrt\"`[i])
			continue
		}
		escaped = append(escaped, b)
	}
	return `"` + string(escaped) + `"`
}

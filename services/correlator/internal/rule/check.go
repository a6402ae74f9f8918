package rule

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/palisade-sec/palisade/services/correlator/internal/byname"
	"github.com/palisade-sec/palisade/services/correlator/internal/condition"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/interest"
)

// check compiles one comparison.
func (c *compiler) check(n *condition.Check) compiled {
	out := compiled{known: never, size: 1, paths: interest.Everything(), peers: interest.Everybody(), names: byname.Any()}
	f, ok := c.operand(n.Left, &out)
	if !ok {
		return out
	}
	if f.Deprecated != "" {
		out.notes = append(out.notes, note{place: c.text.place(n.Left.Offset), field: n.Left.Field, msg: n.Left.Field + " is deprecated: " + f.Deprecated})
	}
	var right *field.Field
	if n.Right != nil {
		r, ok := c.operand(*n.Right, &out)
		if !ok {
			return out
		}
		right = &r
	}
	if f.Kinds != 0 && !f.Kinds.Has(c.kinds) || right != nil && right.Kinds != 0 && !right.Kinds.Has(c.kinds) {
		return out // these kinds of event never have the field
	}
	switch {
	case n.Op == condition.Exists:
		out.known, out.match = depends, exists(f)
	case right != nil:
		out.match = c.compareFields(n, f, *right)
	case f.Type == field.EventType:
		out.known, out.match = c.eventTypes(n, &out)
	case n.Op.List() && len(n.Values) == 0: // of an empty list nothing is a member
	case f.Type == field.Number:
		out.match = c.numbers(n, f, &out)
	case f.Type == field.Bool:
		out.match = c.booleans(n, f)
	case f.Type == field.Address || f.Type == field.Network:
		out.match = c.addresses(n, f, &out)
	default:
		out.match = c.strings(n, f, &out)
	}
	if out.match != nil {
		out.known = depends
	}
	if c.sample != nil && f.ByAccess && right == nil && out.known == depends {
		out.known = never
		if out.match(c.sample) {
			out.known = always
		}
	}
	return out
}

// operand looks a field up. One that is not provided becomes a note of out.
func (c *compiler) operand(o condition.Operand, out *compiled) (field.Field, bool) {
	at := c.text.place(o.Offset)
	f, err := field.Lookup(o.Field, o.Arg, o.HasArg)
	if lack := lackOf(err); lack != Nothing {
		out.notes = append(out.notes, note{place: at, field: o.Field, msg: err.Error(), lacks: lack})
		return f, false
	}
	if err != nil {
		c.fail(at, "%v", err)
		return f, false
	}
	out.needs = out.needs.Or(f.Needs)
	return c.transformed(f, o), true
}

// lackOf says which kind of missing field an error of field.Lookup is about, Nothing if it is no such error.
func lackOf(err error) Lack {
	switch {
	case errors.Is(err, field.ErrUnknown):
		return UnknownField
	case errors.Is(err, field.ErrNoSource):
		return FieldWithoutSource
	}
	return Nothing
}

// wrongOp reports an operator that the field's type does not have.
func (c *compiler) wrongOp(n *condition.Check, f field.Field) predicate {
	c.fail(c.text.place(n.OpOffset), "operator %s does not apply to %s, which is %s", n.Op, n.Left.Field, f.Type)
	return nil
}

func exists(f field.Field) predicate {
	switch {
	case f.Str != nil:
		return func(c *field.Context) bool { _, ok := f.Str(c); return ok }
	case f.Num != nil && f.Sign != nil:
		return func(c *field.Context) bool { _, ok := f.Sign(c); return ok }
	case f.Num != nil:
		return func(c *field.Context) bool { _, ok := f.Num(c); return ok }
	case f.IP != nil:
		return func(c *field.Context) bool { _, ok := f.IP(c); return ok }
	case f.AnyStr != nil:
		return func(c *field.Context) bool { return f.AnyStr(c, func(string) bool { return true }) }
	case f.AnyNum != nil:
		return func(c *field.Context) bool { return f.AnyNum(c, func(int64) bool { return true }) }
	}
	return func(c *field.Context) bool { return f.AnyIP(c, func(netip.Addr) bool { return true }) }
}

// eventTypes decides evt.type from the kind alone. Every name of a family stands for the kind, so
// != is true only if none of the kind's names is the one given.
func (c *compiler) eventTypes(n *condition.Check, out *compiled) (knowledge, predicate) {
	op := n.Op
	if op == condition.NotEqual {
		op = condition.Equal
	}
	values := c.values(n)
	match, err := condition.StringMatcher(op, values, false)
	if err != nil {
		c.fail(c.text.place(n.OpOffset), "%v", err)
		return never, nil
	}
	kinds := field.KindsNamed(match)
	if op == condition.Equal || op == condition.In || op == condition.Intersects {
		var unknown []string
		for _, v := range values {
			if field.KindsNamed(func(name string) bool { return name == v }) == 0 {
				unknown = append(unknown, v)
			}
		}
		if len(unknown) > 0 {
			out.notes = append(out.notes, note{place: c.text.place(n.Left.Offset), field: n.Left.Field, msg: "events " + quoteList(unknown) + " are not collected"})
		}
	}
	if n.Op == condition.NotEqual {
		kinds = field.AllKinds &^ kinds
	}
	switch kinds & c.kinds {
	case 0:
		return never, nil
	case c.kinds:
		return always, nil
	default:
		return depends, func(c *field.Context) bool { return field.KindOf(c.Event).Has(kinds) }
	}
}

func (c *compiler) strings(n *condition.Check, f field.Field, out *compiled) predicate {
	values := c.values(n)
	if f.Knows != nil && (n.Op == condition.Equal || n.Op.List()) {
		if unknown := slices.DeleteFunc(slices.Clone(values), f.Knows); len(unknown) > 0 {
			msg := n.Left.Field + " is never " + quoteList(unknown) + ": " + f.Doc
			if f.Otherwise != "" {
				msg = n.Left.Field + " is " + quoteList(unknown) + " " + f.Otherwise
			}
			out.notes = append(out.notes, note{place: c.text.place(n.Left.Offset), field: n.Left.Field, msg: msg})
		}
	}
	match, err := condition.StringMatcher(n.Op, values, f.Type == field.Name)
	if err != nil {
		c.fail(c.text.place(n.Values[0].Offset), "%v", err)
		return nil
	}
	if f.Own && (n.Op == condition.Equal || n.Op == condition.In || n.Op == condition.Intersects) {
		out.names = byname.Of(values)
	}
	if c.sample != nil {
		out.paths = interest.Matching(f.Path, n.Op, values)
	}
	switch {
	case f.AnyStr != nil && f.AllNotEqual && n.Op == condition.NotEqual:
		equal := func(s string) bool { return !match(s) }
		present := exists(f)
		return func(c *field.Context) bool { return present(c) && !f.AnyStr(c, equal) }
	case f.AnyStr != nil:
		return func(c *field.Context) bool { return f.AnyStr(c, match) }
	}
	get := f.Str
	out.text = &textCheck{operand: fmt.Sprintf("%q", append([]string{n.Left.Field, n.Left.Arg}, n.Left.Transforms...)), get: get, match: match}
	return func(c *field.Context) bool {
		s, ok := get(c)
		return ok && match(s)
	}
}

// numbers compares with constants. Where only a number's sign is known, a comparison that asks for
// no more is answered, and another is warned of.
func (c *compiler) numbers(n *condition.Check, f field.Field, out *compiled) predicate {
	if !n.Op.List() && !n.Op.Ordered() && n.Op != condition.Equal && n.Op != condition.NotEqual || n.Op == condition.PathMatch {
		return c.wrongOp(n, f)
	}
	var values []int64
	for _, s := range c.values(n) {
		v, ok := numberOf(s, f)
		if !ok {
			c.fail(c.text.place(n.Values[0].Offset), "%s is a number, %q is none", n.Left.Field, s)
			return nil
		}
		values = append(values, v)
	}
	if len(values) == 0 { // only names of empty lists
		return nil
	}
	get := f.Num
	if f.Sign != nil {
		if asksForSign(n.Op, values) {
			get = f.Sign
		} else {
			msg := n.Left.Field + " is not always known: " + f.Doc
			out.notes = append(out.notes, note{place: c.text.place(n.Left.Offset), field: n.Left.Field, msg: msg, kinds: field.SignOnly})
		}
	}
	out.peers = interest.MatchingPorts(f.Peer, n.Op, values)
	match := numberMatcher(n.Op, values)
	switch {
	case f.AnyNum != nil && f.AllNotEqual && n.Op == condition.NotEqual:
		equal := numberMatcher(condition.Equal, values)
		present := exists(f)
		return func(c *field.Context) bool { return present(c) && !f.AnyNum(c, equal) }
	case f.AnyNum != nil:
		return func(c *field.Context) bool { return f.AnyNum(c, match) }
	}
	return func(c *field.Context) bool {
		v, ok := get(c)
		return ok && match(v)
	}
}

// numberOf reads a number, or a word that the field takes for one.
func numberOf(s string, f field.Field) (int64, bool) {
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		v, err = strconv.ParseInt(s, 0, 64)
	}
	if err != nil && f.Word != nil {
		return f.Word(s)
	}
	return v, err == nil
}

// asksForSign says whether the comparison has the same answer for every number that is not
// negative.
func asksForSign(op condition.Op, values []int64) bool {
	limit := int64(-1)
	if op == condition.GreaterEqual || op == condition.Less {
		limit = 0
	}
	return slices.Max(values) <= limit
}

func numberMatcher(op condition.Op, values []int64) func(int64) bool {
	if op.List() {
		return func(n int64) bool { return slices.Contains(values, n) }
	}
	v := values[0]
	return func(n int64) bool { return compareNumbers(op, n, v) }
}

func compareNumbers(op condition.Op, a, b int64) bool {
	switch op {
	case condition.Equal, condition.In, condition.Intersects:
		return a == b
	case condition.NotEqual:
		return a != b
	case condition.Less:
		return a < b
	case condition.LessEqual:
		return a <= b
	case condition.Greater:
		return a > b
	case condition.GreaterEqual:
		return a >= b
	default: // numbers have no other
		return false
	}
}

func (c *compiler) booleans(n *condition.Check, f field.Field) predicate {
	if n.Op != condition.Equal && n.Op != condition.NotEqual && n.Op != condition.In && n.Op != condition.Intersects {
		return c.wrongOp(n, f)
	}
	var values []int64
	for _, s := range c.values(n) {
		switch s {
		case "true", "1":
			values = append(values, 1)
		case "false", "0":
			values = append(values, 0)
		default:
			c.fail(c.text.place(n.Values[0].Offset), "%s is true or false, %q is neither", n.Left.Field, s)
			return nil
		}
	}
	match := numberMatcher(n.Op, values)
	return func(c *field.Context) bool {
		v, ok := f.Num(c)
		return ok && match(v)
	}
}

func (c *compiler) addresses(n *condition.Check, f field.Field, out *compiled) predicate {
	if n.Op != condition.Equal && n.Op != condition.NotEqual && n.Op != condition.In && n.Op != condition.Intersects {
		return c.wrongOp(n, f)
	}
	var nets []netip.Prefix
	for _, s := range c.values(n) {
		p, err := parseNet(s)
		if err != nil {
			c.fail(c.text.place(n.Values[0].Offset), "%s is %s, %q is none", n.Left.Field, f.Type, s)
			return nil
		}
		nets = append(nets, p)
	}
	out.peers = interest.MatchingAddresses(f.Peer, n.Op, nets)
	inAny := func(ip netip.Addr) bool {
		for _, p := range nets {
			if p.Contains(ip) {
				return true
			}
		}
		return false
	}
	if f.AnyIP != nil {
		if n.Op == condition.NotEqual {
			present := exists(f)
			return func(c *field.Context) bool { return present(c) && !f.AnyIP(c, inAny) }
		}
		return func(c *field.Context) bool { return f.AnyIP(c, inAny) }
	}
	want := n.Op != condition.NotEqual
	return func(c *field.Context) bool {
		ip, ok := f.IP(c)
		return ok && inAny(ip) == want
	}
}

// parseNet reads an address, or a network with a prefix length.
func parseNet(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen()), nil
}

// compareFields compares two fields of the same event.
func (c *compiler) compareFields(n *condition.Check, a, b field.Field) predicate {
	switch {
	case n.Op == condition.PathMatch || n.Op == condition.Glob || n.Op == condition.IGlob || n.Op == condition.Regex ||
		n.Op == condition.BContains || n.Op == condition.BStartsWith:
		c.fail(c.text.place(n.OpOffset), "operator %s needs a constant to its right", n.Op)
	case a.Type == field.EventType || b.Type == field.EventType || a.Str != nil != (b.Str != nil) || a.Num != nil != (b.Num != nil):
		c.fail(c.text.place(n.OpOffset), "%s and %s can not be compared", n.Left.Field, n.Right.Field)
	case a.Str != nil:
		op := n.Op
		return func(c *field.Context) bool {
			x, okX := a.Str(c)
			y, okY := b.Str(c)
			return okX && okY && condition.CompareStrings(op, x, y)
		}
	case a.Num != nil && (n.Op == condition.Equal || n.Op == condition.NotEqual || n.Op.Ordered() || n.Op.List()):
		op := n.Op
		return func(c *field.Context) bool {
			x, okX := a.Num(c)
			y, okY := b.Num(c)
			return okX && okY && compareNumbers(op, x, y)
		}
	case a.IP != nil && b.IP != nil && (n.Op == condition.Equal || n.Op == condition.NotEqual):
		want := n.Op == condition.Equal
		return func(c *field.Context) bool {
			x, okX := a.IP(c)
			y, okY := b.IP(c)
			return okX && okY && (x == y) == want
		}
	default:
		c.fail(c.text.place(n.OpOffset), "%s and %s can not be compared by %s", n.Left.Field, n.Right.Field, n.Op)
	}
	return nil
}

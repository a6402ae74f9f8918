package field

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Errors of Lookup.
var (
	// ErrUnknown: no field of this name is provided.
	ErrUnknown = errors.New("not a field that Palisade provides")
	// ErrNoSource: the field is Falco's, but nothing tells us its value yet.
	ErrNoSource = errors.New("no source yet")
	// ErrArgument: the field is provided, but not with this argument.
	ErrArgument = errors.New("wrong field argument")
)

// Type is what a field's value is compared as.
type Type uint8

// The types of fields.
const (
	String Type = iota
	// Name is a String that holds a program's name. Rules written for Falco know such names only
	// as the kernel's 15-byte comm, so a constant of exactly 15 bytes also equals a longer name
	// that begins with it.
	Name
	Number
	Bool // a Number that is 0 or 1
	Address
	// Network is an Address that is compared with prefixes.
	Network
	// EventType is evt.type: decided from the event's kind, see KindsNamed.
	EventType
)

// String names the type for error messages.
func (t Type) String() string {
	switch t {
	case String, Name:
		return "a string"
	case Number:
		return "a number"
	case Bool:
		return "true or false"
	case Address:
		return "an IP address"
	case Network:
		return "an IP network"
	case EventType:
		return "an event type"
	}
	return "unknown"
}

// Needs is what the value of a field comes from besides the record of the event at hand as it always is.
type Needs struct {
	// Kinds are other events.
	Kinds Kinds
	// GivenPath: an open's record with the path as the caller wrote it.
	GivenPath bool
}

// Or is what either needs.
func (n Needs) Or(other Needs) Needs {
	return Needs{Kinds: n.Kinds | other.Kinds, GivenPath: n.GivenPath || other.GivenPath}
}

// argument says what may stand in brackets after a field's name.
type argument uint8

const (
	noArgument argument = iota
	// optionalIndex: with an index one ancestor, without it any ancestor.
	optionalIndex
	// requiredKey: the name of one of many strings.
	requiredKey
)

// PathPart is a part of the path of an open file.
type PathPart uint8

// The parts.
const (
	// NoPath: the field says nothing of the path.
	NoPath PathPart = iota
	WholePath
	// Directory is the path up to its last slash, without it.
	Directory
)

// PeerPart is a part of the far end of a connection that is made, or of a datagram that is sent.
type PeerPart uint8

// The parts.
const (
	// NoPeer: the field says nothing of the far end.
	NoPeer PeerPart = iota
	PeerAddress
	PeerPort
)

// Field is one name a rule may use. Exactly one of the getters for its type is set: the plain one
// answers one value or none, the Any one says whether any of several values satisfies match.
// Getters read nothing but the Context, and are asked only of events of the field's Kinds. Those of composed values
// allocate, once for each event.
type Field struct {
	Doc  string
	Type Type
	// Kinds are the only kinds of event for which the field has a value; zero means all.
	Kinds Kinds

	Str func(*Context) (string, bool)
	Num func(*Context) (int64, bool)
	IP  func(*Context) (netip.Addr, bool)

	AnyStr func(c *Context, match func(string) bool) bool
	AnyNum func(c *Context, match func(int64) bool) bool
	AnyIP  func(c *Context, match func(netip.Addr) bool) bool
	// AllNotEqual: `!=` is true only if no value equals, instead of if one differs.
	AllNotEqual bool
	// Show appends several values as text, and says whether there are any. Nil for a field that cannot be shown.
	Show func(dst []byte, c *Context) ([]byte, bool)

	// Sign answers where the value's sign is known but the value is not, of events of SignOnly: any number of the same
	// sign. It serves comparisons that only ask for the sign.
	Sign func(*Context) (int64, bool)
	// Knows says whether the field can ever hold this constant. Nil means any.
	Knows func(constant string) bool
	// Otherwise says where the field can hold what it does not know, empty if nowhere.
	Otherwise string
	// Word reads a constant that a rule may write in place of a Number. Nil means none.
	Word func(constant string) (int64, bool)
	// ByAccess: of an open, the value depends on nothing but the file's access mode.
	ByAccess bool
	// Own: the value is the name of the acting process, by which rules are found.
	Own bool
	// Path says what of an open's path the field holds.
	Path PathPart
	// Peer says what of an outgoing connection's far end the field holds.
	Peer PeerPart
	// Needs is what must be recorded besides for the field to have its value.
	Needs Needs
	// Deprecated says why a rule should not use the field.
	Deprecated string

	arg   argument
	strAt func(c *Context, n int) (string, bool)
	numAt func(c *Context, n int) (int64, bool)
	// strKey is a getter by the argument's text.
	strKey func(c *Context, key string) (string, bool)
}

// Lookup finds a field by its name and what stood in brackets after it. The error wraps
// ErrUnknown, ErrNoSource or ErrArgument.
func Lookup(name, arg string, hasArg bool) (Field, error) {
	if dotted, ok := strings.CutPrefix(name, "container.label."); ok && !hasArg {
		name, arg, hasArg = "container.label", dotted, true // Falco's older form
	}
	f, ok := find(name)
	switch {
	case !ok && withoutSource(name) != "":
		return Field{}, fmt.Errorf("%s: %w: %s", name, ErrNoSource, withoutSource(name))
	case !ok:
		return Field{}, fmt.Errorf("%s: %w", name, ErrUnknown)
	case f.arg == requiredKey && arg == "":
		return Field{}, fmt.Errorf("%s needs a name in brackets: %w", name, ErrArgument)
	case f.arg == requiredKey:
		f.Str = func(c *Context) (string, bool) { return f.strKey(c, arg) }
		return f, nil
	case !hasArg:
		return f, nil
	case f.arg == noArgument:
		return Field{}, fmt.Errorf("%s takes no argument: %w", name, ErrArgument)
	}
	n, err := strconv.ParseUint(arg, 10, 16)
	if err != nil {
		return Field{}, fmt.Errorf("%s[%s]: index is not a number below 65536: %w", name, arg, ErrArgument)
	}
	return f.at(int(n)), nil
}

// find looks the name up in the tables.
func find(name string) (Field, bool) {
	for _, table := range tables {
		if f, ok := table[name]; ok {
			return f, true
		}
	}
	return Field{}, false
}

// tables are all fields, by the file that holds them.
var tables = [...]map[string]Field{eventFields, argumentFields, processFields, groupFields, fileFields, networkFields, dnsFields, workloadFields, mountFields}

// Names lists every field's name, in no order.
func Names() []string {
	var names []string
	for _, table := range tables {
		for name := range table {
			names = append(names, name)
		}
	}
	return names
}

// at is the field of the n-th ancestor alone.
func (f Field) at(n int) Field {
	f.AnyStr, f.AnyNum = nil, nil
	if strAt := f.strAt; strAt != nil {
		f.Str = func(c *Context) (string, bool) { return strAt(c, n) }
	}
	if numAt := f.numAt; numAt != nil {
		f.Num = func(c *Context) (int64, bool) { return numAt(c, n) }
	}
	return f
}

// AppendText appends the field's value as text, and says whether there is one. An event of a kind that the field is not
// declared for has none, whatever the getter would say.
func (f Field) AppendText(dst []byte, c *Context) ([]byte, bool) {
	switch {
	case f.Kinds != 0 && !f.Kinds.Has(KindOf(c.Event)):
		return dst, false
	case f.Show != nil:
		return f.Show(dst, c)
	case f.Str != nil:
		s, ok := f.Str(c)
		if !ok {
			return dst, false
		}
		return append(dst, s...), true
	case f.Num != nil:
		n, ok := f.Num(c)
		if !ok {
			return dst, false
		}
		if f.Type == Bool {
			return strconv.AppendBool(dst, n != 0), true
		}
		return strconv.AppendInt(dst, n, 10), true
	case f.IP != nil:
		ip, ok := f.IP(c)
		if !ok {
			return dst, false
		}
		return ip.AppendTo(dst), true
	}
	return dst, false
}

// flag is a getter's answer for a Bool that is known.
func flag(set bool) (int64, bool) {
	if set {
		return 1, true
	}
	return 0, true
}

// text is a getter's answer for a string that is missing if it is empty.
func text(s string) (string, bool) { return s, s != "" }

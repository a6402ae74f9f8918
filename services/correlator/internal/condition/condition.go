// Package condition reads Falco's condition language: text in, syntax tree out. It also holds the
// string operators. It knows neither which fields exist nor what macros and lists mean.
//
//	Expr      = And { "or" And }
//	And       = Not { "and" Not }
//	Not       = { "not" } ( "(" Expr ")" | Check | macro )
//	Check     = Operand ( "exists" | operator Right )
//	Operand   = field [ "[" argument "]" ] | transformer "(" Operand ")"
//	Right     = value | "(" [ value { "," value } ] ")" | list | "val" "(" Operand ")" | Operand with transformer
//	value     = "quoted" | 'quoted' | bare
//
// A bare value runs up to a blank or one of ()"'=, so it may hold dots, slashes, colons, brackets
// and <>. In quotes \b \f \n \r \t \/ \\ \" \' are escapes and any other is an error.
package condition

import "fmt"

// Node is a part of the tree: *And, *Or, *Not, *Macro or *Check.
type Node interface{ node() }

// And is true if every term is. It has at least two.
type And struct{ Terms []Node }

// Or is true if a term is. It has at least two.
type Or struct{ Terms []Node }

// Not is true if its term is not.
type Not struct{ Term Node }

// Macro stands for the condition of that name.
type Macro struct {
	Offset int
	Name   string
}

// Check compares an operand with constants or with another operand.
type Check struct {
	Left Operand
	// OpOffset is where the operator stands.
	OpOffset int
	Op       Op
	// Values are the constants to the right; none for Exists. A List operator has any number of
	// them, the others one.
	Values []Value
	// Named: Values is the bare name of a list, not in parentheses.
	Named bool
	// Right is set instead of Values for val(field) and transformer(field).
	Right *Operand
}

// Operand is a field and what is done to its value, innermost first.
type Operand struct {
	Offset     int
	Field      string
	Arg        string
	HasArg     bool
	Transforms []string
}

// Value is a constant. A bare one in the place of a list, or inside one, may be a list's name.
type Value struct {
	Offset int
	Text   string
	Quoted bool
}

func (*And) node()   {}
func (*Or) node()    {}
func (*Not) node()   {}
func (*Macro) node() {}
func (*Check) node() {}

// Op is a comparison.
type Op uint8

// The operators.
const (
	Exists Op = iota
	Equal
	NotEqual
	Less
	LessEqual
	Greater
	GreaterEqual
	In
	Intersects
	PathMatch
	Contains
	IContains
	BContains
	StartsWith
	BStartsWith
	EndsWith
	Glob
	IGlob
	Regex
)

// operator is a spelling of an Op.
type operator struct {
	text string
	op   Op
}

// symbols are the operators that need no blank around them, longer ones before their prefixes.
var symbols = [...]operator{
	{"==", Equal}, {"!=", NotEqual}, {"<=", LessEqual}, {">=", GreaterEqual},
	{"=", Equal}, {"<", Less}, {">", Greater},
}

// words are the operators that are words.
var words = [...]operator{
	{"exists", Exists}, {"in", In}, {"intersects", Intersects}, {"pmatch", PathMatch},
	{"contains", Contains}, {"icontains", IContains}, {"bcontains", BContains},
	{"startswith", StartsWith}, {"bstartswith", BStartsWith}, {"endswith", EndsWith},
	{"glob", Glob}, {"iglob", IGlob}, {"regex", Regex},
}

// transformers are the functions of one operand, by name.
var transformers = [...]string{"tolower", "toupper", "b64", "basename", "len"}

// List says whether the operator takes a list.
func (o Op) List() bool { return o == In || o == Intersects || o == PathMatch }

// Ordered says whether the operator asks for greater or less.
func (o Op) Ordered() bool { return o >= Less && o <= GreaterEqual }

// String is how the operator is written.
func (o Op) String() string {
	for _, w := range words {
		if w.op == o {
			return w.text
		}
	}
	for _, s := range symbols {
		if s.op == o && s.text != "==" {
			return s.text
		}
	}
	return "unknown"
}

// ParseOp reads an operator by itself, as in an exception's comps.
func ParseOp(text string) (Op, bool) {
	for _, s := range symbols {
		if s.text == text {
			return s.op, true
		}
	}
	for _, w := range words {
		if w.text == text {
			return w.op, true
		}
	}
	return 0, false
}

// Error is what is wrong with a condition, and at which byte of its text.
type Error struct {
	Offset int
	Msg    string
}

// Error is the message without the place, which only the caller can put in terms of a file.
func (e *Error) Error() string { return e.Msg }

func errorf(offset int, format string, args ...any) *Error {
	return &Error{Offset: offset, Msg: fmt.Sprintf(format, args...)}
}

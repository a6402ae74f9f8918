package condition_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/services/correlator/internal/condition"
)

// show writes a tree with every parenthesis.
func show(n condition.Node) string {
	join := func(terms []condition.Node, word string) string {
		var parts []string
		for _, t := range terms {
			parts = append(parts, show(t))
		}
		return "(" + strings.Join(parts, word) + ")"
	}
	operand := func(o condition.Operand) string {
		s := o.Field
		if o.HasArg {
			s += "[" + o.Arg + "]"
		}
		for _, t := range o.Transforms {
			s = t + "(" + s + ")"
		}
		return s
	}
	switch n := n.(type) {
	case *condition.And:
		return join(n.Terms, " and ")
	case *condition.Or:
		return join(n.Terms, " or ")
	case *condition.Not:
		return "!" + show(n.Term)
	case *condition.Macro:
		return "@" + n.Name
	case *condition.Check:
		s := operand(n.Left) + " " + n.Op.String()
		if n.Right != nil {
			return s + " " + operand(*n.Right)
		}
		for _, v := range n.Values {
			s += fmt.Sprintf(" %q", v.Text)
		}
		return s
	}
	return "?"
}

func TestParse(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"macro", "container", "@container"},
		{"precedence", "a or b and not c", "(@a or (@b and !@c))"},
		{"parentheses", "(a or b) and c", "((@a or @b) and @c)"},
		{"words against parentheses", "a and(b or c)or(d)and not(e)", "((@a and (@b or @c)) or (@d and !@e))"},
		{"even number of nots", "not not a", "@a"},
		{"odd number of nots", "not not not a", "!@a"},
		{"macro named like a word", "android and oracle or nothing", "((@android and @oracle) or @nothing)"},
		{"no blanks around a symbol", "proc.name=cat", `proc.name = "cat"`},
		{"double equals", "evt.num == 3", `evt.num = "3"`},
		{"orders", "a.b<1 and a.b<=2 and a.b>3 and a.b>=4 and a.b!=5", `(a.b < "1" and a.b <= "2" and a.b > "3" and a.b >= "4" and a.b != "5")`},
		{"bare value with symbols", "evt.dir=< and proc.name in (runc:[0:PARENT], x-1.2)", `(evt.dir = "<" and proc.name in "runc:[0:PARENT]" "x-1.2")`},
		{"quotes and escapes", `a.b = "x \"y\" \\ \n" and a.c = 'it"s'`, `(a.b = "x \"y\" \\ \n" and a.c = "it\"s")`},
		{"argument", `proc.aname[2]=x and proc.env["A B"] exists`, `(proc.aname[2] = "x" and proc.env[A B] exists)`},
		{"list operators", "a.b in(x,y) and a.b pmatch (/etc) and a.b intersects ()", `(a.b in "x" "y" and a.b pmatch "/etc" and a.b intersects)`},
		{"list by name", "proc.name in shells", `proc.name in "shells"`},
		{"word operators", "a.b contains x and a.b icontains x and a.b bcontains 00 and a.b startswith x and a.b bstartswith 00 and a.b endswith x and a.b glob x* and a.b iglob x? and a.b regex '.*'", `(a.b contains "x" and a.b icontains "x" and a.b bcontains "00" and a.b startswith "x" and a.b bstartswith "00" and a.b endswith "x" and a.b glob "x*" and a.b iglob "x?" and a.b regex ".*")`},
		{"transformer", "tolower(basename(proc.exe)) = sh and len(proc.args) > 9", `(tolower(basename(proc.exe)) = "sh" and len(proc.args) > "9")`},
		{"field to the right", "proc.name = val(proc.pname) and proc.name = toupper(proc.aname[3])", "(proc.name = proc.pname and proc.name = toupper(proc.aname[3]))"},
		{"line breaks", "a\n  and\n\tb\n", "(@a and @b)"},
		{"nested as deep as allowed", strings.Repeat("(", 100) + "a" + strings.Repeat(")", 100), "@a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, err := condition.Parse(tt.text)
			if err != nil {
				t.Fatalf("Parse(%q) = %v", tt.text, err)
			}
			if got := show(n); got != tt.want {
				t.Errorf("Parse(%q) = %s, want %s", tt.text, got, tt.want)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	tests := []struct {
		name, text string
		offset     int
		want       string
	}{
		{"empty", " \n", 0, "empty"},
		{"nothing behind and", "a and ", 6, "expected a field, a macro or (, found the end"},
		{"two words for one", "a and or b", 6, `found "or"`},
		{"no operator", "proc.name cat", 10, `expected an operator, found "cat"`},
		{"no value", "proc.name =", 11, "expected a value"},
		{"open parenthesis", "(a or b", 7, "expected )"},
		{"close parenthesis", "a)", 1, "expected and, or, or the end"},
		{"open list", "a.b in (x, y", 12, "expected , or )"},
		{"comma at the end", "a.b in (x,)", 10, "expected a value"},
		{"open string", `a.b = "x`, 6, "no closing"},
		{"unknown escape", `a.b = "x\q"`, 8, `unknown escape \q`},
		{"empty argument", "a.b[] = 1", 4, "expected an argument"},
		{"open argument", "a.b[1 = 1", 5, "expected ]"},
		{"unknown transformer", "rot13(a.b) = x", 0, "unknown transformer"},
		{"transformer of a macro", "tolower(a) = x", 8, "expected a field"},
		{"string for a list", `a.b in "x"`, 7, "expected ( or the name of a list"},
		{"too deep", strings.Repeat("(", 5000), 101, "nested more than 100"},
		{"transformers too deep", strings.Repeat("len(", 5000), 400, "nested more than 100"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := condition.Parse(tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.want) || max(condition.OffsetOf(err)-tt.offset, tt.offset-condition.OffsetOf(err)) > 3*(len(tt.text)/5000) {
				t.Errorf("Parse = %v at %d, want %q at %d", err, condition.OffsetOf(err), tt.want, tt.offset)
			}
		})
	}
}

func TestStringMatcher(t *testing.T) {
	tests := []struct {
		op     condition.Op
		values []string
		comm   bool
		yes    []string
		no     []string
	}{
		{condition.Equal, []string{"sh"}, false, []string{"sh"}, []string{"", "shh"}},
		{condition.Equal, []string{"containerd-shim"}, true, []string{"containerd-shim", "containerd-shim-runc-v2"}, []string{"containerd-shi"}},
		{condition.Equal, []string{"containerd"}, true, []string{"containerd"}, []string{"containerd-shim"}},
		{condition.NotEqual, []string{"sh"}, false, []string{"", "shh"}, []string{"sh"}},
		{condition.In, []string{"a", "docker-containe"}, true, []string{"a", "docker-containerd"}, []string{"b", "docker"}},
		{condition.Less, []string{"b"}, false, []string{"a"}, []string{"b", "c"}},
		{condition.GreaterEqual, []string{"b"}, false, []string{"b", "c"}, []string{"a"}},
		{condition.Contains, []string{"bc"}, false, []string{"abcd"}, []string{"aBCd"}},
		{condition.IContains, []string{"bC"}, false, []string{"aBcd", "bc"}, []string{"b", "ac"}},
		{condition.StartsWith, []string{"/etc"}, false, []string{"/etc/x"}, []string{"/et"}},
		{condition.EndsWith, []string{".d"}, false, []string{"a.d"}, []string{"a.dd"}},
		{condition.BContains, []string{"4243"}, false, []string{"ABCD"}, []string{"AB"}},
		{condition.BStartsWith, []string{"41"}, false, []string{"AB"}, []string{"BA"}},
		{condition.PathMatch, []string{"/etc", "/usr/lib/"}, false, []string{"/etc", "/etc/x/y", "/usr/lib", "/usr/lib/a"}, []string{"/etcx", "/usr", "etc"}},
		{condition.PathMatch, []string{"/"}, false, []string{"/", "/a"}, []string{"a"}},
		{condition.Glob, []string{"/home/*/.ssh/*"}, false, []string{"/home/a/b/.ssh/id"}, []string{"/home/.ssh"}},
		{condition.Glob, []string{"a?[b-d][!x]\\*"}, false, []string{"azby*"}, []string{"azbx*", "azby!", "aze"}},
		{condition.Glob, []string{"[ab"}, false, []string{"[ab"}, []string{"a"}},
		{condition.IGlob, []string{"*.SO"}, false, []string{"x.so", "x.So"}, []string{"x.s"}},
		{condition.Regex, []string{"a+|b"}, false, []string{"aa", "b"}, []string{"ab", "xa"}},
	}
	for _, tt := range tests {
		match, err := condition.StringMatcher(tt.op, tt.values, tt.comm)
		if err != nil {
			t.Errorf("StringMatcher(%s, %q) = %v", tt.op, tt.values, err)
			continue
		}
		for _, s := range tt.yes {
			if !match(s) {
				t.Errorf("%q %s %q = false", s, tt.op, tt.values)
			}
		}
		for _, s := range tt.no {
			if match(s) {
				t.Errorf("%q %s %q = true", s, tt.op, tt.values)
			}
		}
	}
	for _, bad := range []string{"(", "a)|(b"} {
		if _, err := condition.StringMatcher(condition.Regex, []string{bad}, false); err == nil {
			t.Errorf("StringMatcher(regex, %q) = no error", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"a or b and not (c)", `proc.name in (a, "b c", runc:[1:X]) and fd.sip != 10.0.0.0/8`,
		"tolower(proc.aname[2]) = val(proc.name) or evt.dir=<", `a.b = "\"`, "((((", "not not", "a.b[\"",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := condition.Parse(text)
		if err != nil {
			if at := condition.OffsetOf(err); at < 0 || at > len(text) {
				t.Errorf("Parse(%q): error at %d of %d", text, at, len(text))
			}
			return
		}
		if show(n) == "" {
			t.Errorf("Parse(%q) = empty tree", text)
		}
		keep := func(string) condition.Node { return nil }
		written := condition.Format(n, keep)
		again, err := condition.Parse(written)
		if err != nil {
			t.Fatalf("Format(%q) = %q, which is no condition: %v", text, written, err)
		}
		if got := condition.Format(again, keep); got != written {
			t.Errorf("Format(%q) = %q, and of that %q", text, written, got)
		}
	})
}

func TestFormatExpandsMacros(t *testing.T) {
	macros := map[string]string{"m": "a.b = 1 or n", "n": `not a.c in (x, "y z")`}
	n, err := condition.Parse(`evt.type = open and m and unknown and tolower(a.d["k k"]) = val(a.e) and a.f exists`)
	if err != nil {
		t.Fatal(err)
	}
	expand := func(name string) condition.Node {
		tree, err := condition.Parse(macros[name])
		if err != nil {
			return nil
		}
		return tree
	}
	want := `evt.type = open and (a.b = 1 or not a.c in (x, "y z")) and unknown and tolower(a.d["k k"]) = val(a.e) and a.f exists`
	if got := condition.Format(n, expand); got != want {
		t.Errorf("Format =\n%s\nwant\n%s", got, want)
	}
	fields := ""
	condition.Walk(n, expand, func(c *condition.Check) { fields += c.Left.Field + " " })
	if want := "evt.type a.b a.c a.d a.f "; fields != want {
		t.Errorf("Walk visits %s, want %s", fields, want)
	}
}

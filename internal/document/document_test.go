package document

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sampleRead asks for one key of each type.
func sampleRead(m Mapping) (texts []string, until time.Time) {
	m.Only("file", "name", "on", "days", "effect", "until", "images", "nested")
	m.Require("file", "name").Text()
	m.Value("on").Bool()
	m.Value("days").Int(0, 365)
	m.Value("effect").Word("alert", "block")
	nested := m.Value("nested").Mapping()
	nested.Only("nested", "a")
	nested.Value("a").Items()
	return m.Value("images").Texts(), m.Value("until").Until()
}

func TestFaults(t *testing.T) {
	tests := []struct {
		name string
		yaml string
		want []string // first lines of the faults
	}{
		{name: "all is well", yaml: "name: x\non: true\ndays: 7\neffect: block\nuntil: 2026-12-31\nimages: [a, b]\nnested: {a: [1]}\n"},
		{name: "an unknown key, and which there are", yaml: "name: x\nnested:\n  b: 1\n",
			want: []string{`f:3:3: unknown key "b" in nested: there are a`}},
		{name: "a key twice", yaml: "name: x\nname: y\n", want: []string{`f:2:1: key "name" is here twice`}},
		{name: "a key absent", yaml: "on: true\n", want: []string{"f:1:1: file has no name"}},
		{name: "every fault is told", yaml: "name: x\non: maybe\ndays: 400\neffect: kill\n", want: []string{
			`f:2:5: on: "maybe" is not true or false`, `f:3:7: days: "400" is not a whole number from 0 to 365`,
			`f:4:9: effect: "kill" is not one of alert, block`}},
		{name: "yes is no boolean", yaml: "name: x\non: yes\n", want: []string{`f:2:5: on: "yes" is not true or false`}},
		{name: "no such day", yaml: "name: x\nuntil: 2026-02-30\n", want: []string{`f:2:8: until: "2026-02-30" is neither a day`}},
		{name: "nothing", yaml: "", want: []string{"f:1:1: file is empty"}},
		{name: "only a comment", yaml: "# nothing\n", want: []string{"f:1:1: file is empty"}},
		{name: "an empty value", yaml: "name:\n", want: []string{"f:1:6: name is empty"}},
		{name: "a sequence without items", yaml: "name: x\nimages: []\n", want: []string{"f:2:9: images has no items"}},
		{name: "a sequence where a word is due", yaml: "name: [x]\n", want: []string{"f:1:7: name must be a word or a text"}},
		{name: "no mapping at the top", yaml: "- x\n", want: []string{"f:1:1: file must be a mapping"}},
		{name: "two documents", yaml: "name: x\n---\nname: y\n", want: []string{"f:1:1: more than one YAML document"}},
		{name: "bad syntax", yaml: "name: x\n  on: [\n", want: []string{"f:2:3: mapping values are not allowed in this context"}},
		{name: "an alias", yaml: "name: &a x\neffect: *a\n", want: []string{"f:2:9: effect is an alias"}},
		{name: "too large", yaml: strings.Repeat("#", maxBytes+1), want: []string{"f:1:1: file is larger than"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, m := Parse("f", []byte(tt.yaml))
			sampleRead(m)
			var got []string
			for i, fault := range Faults(f.Err()) {
				first, _, _ := strings.Cut(fault.Error(), "\n")
				if i < len(tt.want) && strings.HasPrefix(first, tt.want[i]) {
					first = tt.want[i]
				}
				got = append(got, first)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Parse(%q) faults: -want +got\n%s", short(tt.yaml), diff)
			}
			if f.Failed() != (len(tt.want) > 0) {
				t.Errorf("Failed() = %v", f.Failed())
			}
		})
	}
}

func TestFaultsAreBounded(t *testing.T) {
	f, m := Parse("f", []byte(strings.Repeat("- 1\n", 1)+""))
	_ = m
	for range 1000 {
		f.fail(1, 1, "x")
	}
	if n := len(Faults(f.Err())); n != maxFaults+1 {
		t.Errorf("%d faults are kept, want %d and the word that there are more", n, maxFaults)
	}
}

func TestUntil(t *testing.T) {
	_, m := Parse("f", []byte("name: x\nuntil: 2026-12-31\n"))
	if _, got := sampleRead(m); !got.Equal(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("Until() of a day = %v, want its end", got)
	}
	_, m = Parse("f", []byte("name: x\nuntil: 2026-12-31T12:00:00+02:00\nimages: one\n"))
	texts, got := sampleRead(m)
	if !got.Equal(time.Date(2026, 12, 31, 10, 0, 0, 0, time.UTC)) {
		t.Errorf("Until() of an instant = %v", got)
	}
	if !cmp.Equal(texts, []string{"one"}) {
		t.Errorf("Texts() of one word = %q", texts)
	}
}

func TestPositionAt(t *testing.T) {
	tests := []struct {
		name, yaml string
		find       string // the value's part whose place is asked for
		line, col  int
	}{
		{"plain", "name: a == b\n", "b", 1, 12},
		{"quoted", `name: "a == b"` + "\n", "b", 1, 13},
		{"literal", "name: |\n  a ==\n  b\n", "b", 3, 3},
		{"literal's start", "name: |\n  a ==\n  b\n", "a", 2, 3},
		{"folded", "name: >-\n  a\n  == b\n", "b", 3, 6},
		{"a tab in quotes", `name: "x\ty"` + "\n", "y", 1, 11},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, m := Parse("f", []byte(tt.yaml))
			v := m.Value("name")
			if got := v.PositionAt(strings.Index(v.Text(), tt.find)); got.Line != tt.line || got.Column != tt.col {
				t.Errorf("PositionAt(%q in %q) = %v, want %d:%d", tt.find, tt.yaml, got, tt.line, tt.col)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"name: x\non: true\n", "a: &a [*a]\n", "name: |\n  x\n\tb", "name: \"\\x", "? [a]\n: b", "\xff\xfen\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		file, m := Parse("fuzz", raw)
		sampleRead(m)
		v := m.Value("name")
		for i := range min(len(v.Text()), 64) {
			if p := v.PositionAt(i); p.Line < 1 || p.Column < 1 {
				t.Errorf("PositionAt(%d) = %v", i, p)
			}
		}
		if err := file.Err(); err != nil {
			_ = err.Error() // must not panic
		}
	})
}

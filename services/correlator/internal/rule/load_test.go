package rule_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
)

// TestBadFiles loads every file below testdata/bad. The file beside it, of the same name with
// .want, is its first error, as file:line:column: message, without the caret.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 100 {
		t.Fatalf("Glob = %d files, %v, want 100 or more", len(files), err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = rule.Load(rule.Source{Name: "f", Data: data})
			bad, ok := errors.AsType[*rule.Error](err)
			if !ok {
				t.Fatalf("Load = %v, want a *rule.Error", err)
			}
			got := bad.Position.String() + ": " + bad.Msg + "\n"
			want, err := os.ReadFile(strings.TrimSuffix(path, ".yaml") + ".want")
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("Load =\n%swant\n%s", got, want)
			}
		})
	}
}

func TestErrorsAreAllReportedInOrder(t *testing.T) {
	one := rule.Source{Name: "one", Data: []byte("- list: a\n- rule: r\n  what: x\n")}
	two := rule.Source{Name: "two", Data: []byte("- macro: m\n\tcondition: x\n")}
	three := rule.Source{Name: "three", Data: []byte("- macro: m\n  condition:\ta and (b\n")}
	_, _, err := rule.Load(one, two, three)
	want := `one:1:3: list has no items
    - list: a
      ^
one:3:3: unknown key "what" in rule
      what: x
      ^
two:2:2: found a tab character that violates indentation
    	condition: x
    	^
three:2:22: expected ), found the end
      condition:	a and (b
                	        ^`
	if err == nil || err.Error() != want {
		t.Errorf("Load =\n%v\nwant\n%s", err, want)
	}
}

func TestExpansionIsBounded(t *testing.T) {
	// Each list holds the one before twice, each macro too: doubling that must not be carried out.
	var lists, macros strings.Builder
	lists.WriteString("- list: l0\n  items: [a]\n")
	macros.WriteString("- macro: m0\n  condition: evt.num = 1\n")
	for i := range 60 {
		fmt.Fprintf(&lists, "- list: l%d\n  items: [l%d, l%d]\n", i+1, i, i)
		fmt.Fprintf(&macros, "- macro: m%d\n  condition: m%d or m%d\n", i+1, i, i)
	}
	if _, _, err := rule.Load(rule.Source{Name: "l", Data: []byte(lists.String())}); err != nil {
		t.Errorf("Load(doubling lists) = %v, want no error: repetition drops out", err)
	}
	if _, _, err := rule.Load(rule.Source{Name: "m", Data: []byte(macros.String())}); err == nil || !strings.Contains(err.Error(), "comes to more than") {
		t.Errorf("Load(doubling macros) = %v, want a limit", err)
	}
	aliases := "- list: l\n  items: &a [" + strings.Repeat("x,", 1000) + "]\n" + strings.Repeat("- list: k\n  items: *a\n", 1000)
	if _, _, err := rule.Load(rule.Source{Name: "a", Data: []byte(aliases)}); err == nil || !strings.Contains(err.Error(), "aliases stand for more") {
		t.Errorf("Load(flood of aliases) = %v, want a limit", err)
	}
}

func FuzzLoad(f *testing.F) {
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	pack, _ := filepath.Glob("../../rules/*.yaml")
	for _, path := range slices.Concat(files, pack, []string{falcoPath}) {
		if data, err := os.ReadFile(path); err == nil { // Falco's file may not be at hand
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		set, _, err := rule.Load(rule.Source{Name: "f", Data: data})
		if err == nil {
			for _, c := range benchContexts() {
				set.Match(c, func(r *rule.Rule) { _ = r.Output(c) })
			}
			return
		}
		if set != nil {
			t.Errorf("Load = a set and %v", err)
		}
		if bad, ok := errors.AsType[*rule.Error](err); !ok || bad.Position.Line < 1 || bad.Position.Column < 1 {
			t.Errorf("Load error %q has no position", err)
		}
	})
}

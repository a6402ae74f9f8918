package glob_test

import (
	"path"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/glob"
)

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "a/b", true}, {"/proc*", "/proc/1", true}, {"/proc*", "/pro", false},
		{"a?c", "a/c", true}, {"a?c", "ac", false}, {"[!a-c]", "d", true}, {"[!a-c]", "b", false}, {"[]]", "]", true}, {"[a", "[a", true},
		{`\*`, "*", true}, {`\*`, "a", false}, {`a\`, `a\`, true}, {"*a*b", "xaxbxab", true}, {"*a*b", "xaxbxa", false},
	} {
		if got := glob.Match(tt.pattern, tt.text); got != tt.want {
			t.Errorf("Match(%q, %q) = %t", tt.pattern, tt.text, got)
		}
	}
}

// Where both mean the same, which is without slashes, brackets and backslashes, the standard library must agree.
func FuzzMatch(f *testing.F) {
	f.Add("*a?", "xxab")
	f.Add("a*b*c", "aabbcc")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		got := glob.Match(pattern, text)
		if strings.ContainsAny(pattern+text, `/[]\`) || strings.ContainsFunc(pattern+text, func(r rune) bool { return r >= 0x80 }) {
			return
		}
		if want, err := path.Match(pattern, text); err == nil && got != want {
			t.Errorf("Match(%q, %q) = %t, path.Match says %t", pattern, text, got, want)
		}
	})
}

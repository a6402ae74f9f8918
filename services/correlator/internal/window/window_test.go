package window

import (
	"fmt"
	"testing"
)

func TestAdd(t *testing.T) {
	tests := []struct {
		name string
		at   []uint64
		want string // . for no, ! for yes
	}{
		{"three within ten", []uint64{0, 5, 10}, "..!"},
		{"the third too late", []uint64{0, 5, 11}, "..."},
		{"it slides", []uint64{0, 5, 11, 12}, "...!"},
		{"it begins anew", []uint64{1, 2, 3, 4, 5, 6}, "..!..!"},
		{"time goes back", []uint64{5, 6, 4}, "..!"},
	}
	for _, tt := range tests {
		c, got := New(), ""
		for _, now := range tt.at {
			if c.Add(Key{"r", "w"}, now, 3, 10) {
				got += "!"
			} else {
				got += "."
			}
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestWorkloadsAndRulesAreCountedApart(t *testing.T) {
	c := New()
	for _, key := range []Key{{"a", "x"}, {"a", "y"}, {"b", "x"}} {
		if c.Add(key, 1, 2, 10) {
			t.Errorf("the first match of %v is enough", key)
		}
	}
	if !c.Add(Key{"a", "y"}, 2, 2, 10) {
		t.Error("the second match is not enough")
	}
	if c.Add(Key{"b", "x"}, 2, 3, 10) {
		t.Error("a rule that now asks for three is content with two")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	c := New()
	for i := range 3 * maxCounts {
		c.Add(Key{"r", fmt.Sprint(i)}, 1, 1000, 10)
	}
	if len(c.counts) != maxCounts || c.recent.Len() != maxCounts {
		t.Errorf("%d counts in a list of %d, want %d", len(c.counts), c.recent.Len(), maxCounts)
	}
}

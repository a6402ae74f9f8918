package byname

import (
	"fmt"
	"slices"
	"testing"
)

func TestIndex(t *testing.T) {
	index := New([]Entry[string]{
		{Of([]string{"sh", "bash"}), "shells"},
		{Any(), "all"},
		{Of([]string{"bash", "a-name-of-fifteen"}), "bash"},
		{Of([]string{"sh"}).And(Of([]string{"bash"})), "nobody"},
		{Of([]string{"sh"}).Or(Any()), "all too"},
		{Any().And(Of([]string{"zsh"})), "zsh"},
	})
	tests := []struct {
		name string
		want []string
	}{
		{"bash", []string{"shells", "all", "bash", "all too"}},
		{"sh", []string{"shells", "all", "all too"}},
		{"zsh", []string{"all", "all too", "zsh"}},
		{"", []string{"all", "all too"}},
		{"nginx", []string{"all", "all too"}},
		{"a-name-of-fiftyone", []string{"all", "all too"}},
		{"a-name-of-fifteen", []string{"all", "bash", "all too"}},
		{"a-name-of-fifteenth", []string{"all", "bash", "all too"}}, // begins with as much as comm holds
	}
	for _, tt := range tests {
		if got := index.For(tt.name); !slices.Equal(got, tt.want) {
			t.Errorf("For(%q) = %q, want %q", tt.name, got, tt.want)
		}
	}
	if index.Empty() || !(Index[int]{}).Empty() || !New[int](nil).Empty() {
		t.Error("Empty() is wrong")
	}
}

func TestAnIndexOfTooManyNamesLeavesNothingOut(t *testing.T) {
	var entries []Entry[int]
	for i := range maxNames + 1 {
		entries = append(entries, Entry[int]{Of([]string{fmt.Sprint(i)}), i})
	}
	if got := New(entries).For("0"); len(got) != maxNames+1 {
		t.Errorf("%d entries, want all", len(got))
	}
}

package reload

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
	"github.com/palisade-sec/palisade/services/correlator/internal/rulefile"
)

const one = "- rule: one\n  desc: d\n  condition: evt.type = open and fd.name = /a\n  output: o\n  priority: notice\n"

// watch is a watcher of a directory with one rule, and what to write into it.
func watch(t *testing.T) (w *Watcher, write func(name, text string), outcomes func() map[string]float64) {
	t.Helper()
	directory := t.TempDir()
	write = func(name, text string) {
		t.Helper()
		temporary := filepath.Join(t.TempDir(), "x")
		if err := errors.Join(os.WriteFile(temporary, []byte(text), 0o600), os.Rename(temporary, filepath.Join(directory, name))); err != nil {
			t.Fatal(err)
		}
	}
	write("a.yaml", one)
	load := func(context.Context) (*rule.Set, error) {
		sources, err := rulefile.Read([]string{directory})
		if err != nil {
			return nil, err
		}
		set, _, err := rule.Load(sources...)
		return set, err
	}
	registry := prometheus.NewRegistry()
	w, err := New(DefaultConfig(), []string{directory}, load, slog.New(slog.DiscardHandler), registry)
	if err != nil {
		t.Fatal(err)
	}
	w.sets = make(chan *rule.Set, 1)
	return w, write, func() map[string]float64 {
		families, err := registry.Gather()
		if err != nil || len(families) != 1 {
			t.Fatalf("Gather() = %d families, %v, want 1", len(families), err)
		}
		counts := map[string]float64{}
		for _, m := range families[0].GetMetric() {
			counts[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
		return counts
	}
}

// looks is the names of the rules that so many looks bring, nil for none.
func (w *Watcher) looks(t *testing.T, n int) []string {
	t.Helper()
	for range n {
		if err := w.look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case set := <-w.sets:
		names := []string{}
		for _, r := range set.Rules() {
			names = append(names, r.Name)
		}
		return names
	default:
		return nil
	}
}

func TestAChangeIsTakenInOnceItHasSettled(t *testing.T) {
	w, write, _ := watch(t)
	if got := w.looks(t, 3); got != nil {
		t.Errorf("rules %q come of no change", got)
	}
	write("b.yaml", strings.ReplaceAll(one, "one", "two"))
	if got := w.looks(t, 1); got != nil {
		t.Errorf("rules %q at the first look, want none before the files have settled", got)
	}
	if got := w.looks(t, 1); len(got) != 2 || got[1] != "two" {
		t.Errorf("rules = %q, want one and two", got)
	}
	if got := w.looks(t, 3); got != nil {
		t.Errorf("rules %q come twice", got)
	}
}

func TestABadFileLeavesTheOldRulesInForce(t *testing.T) {
	w, write, outcomes := watch(t)
	loaded := w.State().Loaded
	write("b.yaml", "- rule: two\n  desc: d\n  condition: evt.type = open and (fd.nme = /a\n  output: o\n  priority: notice\n")
	if got := w.looks(t, 3); got != nil {
		t.Errorf("rules %q come of a bad file", got)
	}
	state := w.State()
	if state.Err == nil || !strings.HasSuffix(state.Err.Error(), "b.yaml:3:46: expected ), found the end") || state.Loaded != loaded || state.Since.IsZero() {
		t.Errorf("state = %+v, want the file's error and place", state)
	}
	if got := outcomes()[outcomeRefused]; got != 1 {
		t.Errorf("refused %v times, want once", got)
	}
	write("b.yaml", strings.ReplaceAll(one, "one", "two"))
	if got := w.looks(t, 2); len(got) != 2 || w.State().Err != nil {
		t.Errorf("rules = %q, state %+v after the file is good again, want both and no error", got, w.State())
	}
	if got := outcomes()[outcomeLoaded]; got != 1 {
		t.Errorf("loaded %v times, want once", got)
	}
}

func TestFilesThatVanishAreNoReasonToEnd(t *testing.T) {
	w, _, _ := watch(t)
	if err := os.RemoveAll(w.paths[0]); err != nil {
		t.Fatal(err)
	}
	if got := w.looks(t, 3); got != nil || w.State().Err == nil {
		t.Errorf("rules = %q, state %+v, want none and an error", got, w.State())
	}
}

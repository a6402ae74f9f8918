package kept

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestLinesReachTheEnforcerOnce(t *testing.T) {
	store, directory := open(t)
	const writers, each = 8, 50
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				if err := store.Append(Line{Container: fmt.Sprintf("%d-%d", w, i), Time: time.Now(), Text: strings.Repeat("x\n", 2000)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	seen := map[string]int{}
	take := func() {
		lines, err := store.Take()
		if err != nil {
			t.Errorf("Take() = %v", err)
		}
		for _, line := range lines {
			seen[line.Container]++
		}
	}
	for range 3 {
		take()
		time.Sleep(5 * time.Millisecond)
	}
	writing.Wait()
	take()
	take()
	if len(seen) != writers*each {
		t.Errorf("%d lines were taken, want %d", len(seen), writers*each)
	}
	for container, times := range seen {
		if times != 1 {
			t.Errorf("line of %s was taken %d times", container, times)
		}
	}
	write(t, directory, linesName+takenSuffix, []byte("{\"container_id\":\"a\"}\nhalf a li"))
	lines, err := store.Take()
	if len(lines) != 1 || lines[0].Container != "a" || err == nil || !strings.Contains(err.Error(), filepath.Join(directory, linesName)+takenSuffix+":2:") {
		t.Errorf("Take() of a line that is cut off = %+v, %v, want a, and the place of the other", lines, err)
	}
	if lines, err := store.Take(); len(lines) != 0 || err != nil {
		t.Errorf("Take() of nothing = %+v, %v", lines, err)
	}
}

func TestLinesAreBounded(t *testing.T) {
	store, _ := open(t)
	line := Line{Text: strings.Repeat("x", 1<<20)}
	var err error
	for range 10 {
		err = errors.Join(err, store.Append(line))
	}
	if err == nil {
		t.Error("Append() of 10 MiB succeeds")
	}
	if err := store.Append(Line{Container: "next"}); err != nil {
		t.Errorf("Append() of what fits = %v", err)
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("{\"container_id\":\"a\"}\n\n{}\nnull"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		lines, err := parseLines("f", raw)
		if len(lines) == 0 && err == nil && len(raw) > 0 {
			t.Errorf("parseLines(%q) loses everything and says nothing", raw)
		}
	})
}

package pipeline

import (
	"strings"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/services/correlator/internal/bookmark"
)

// memoryBook is a bookmark that lives as long as a test.
type memoryBook struct{ mark bookmark.Mark }

// Save replaces the mark.
func (m *memoryBook) Save(mark bookmark.Mark) error {
	m.mark = mark
	return nil
}

// newRun is a correlator that was started with what book remembers.
func newRun(t *testing.T, book *memoryBook) *bench {
	t.Helper()
	b := newBench(t, DefaultConfig())
	b.deps.Bookmark = book
	b.stream.resume(book.mark)
	return b
}

func TestGapIsToldAfterTheWholeNodeWasDown(t *testing.T) {
	book := &memoryBook{}
	first := newRun(t, book)
	first.host()
	first.feed("one", exec(60, 1, hostNS, 9, "/bin/true"))
	first.want() // nothing came before: there is no gap
	first.remember(t.Context())
	if book.mark.Instance != "one" || !book.mark.Last.Equal(first.clock) {
		t.Fatalf("bookmark = %+v, want instance one, seen until %v", book.mark, first.clock)
	}

	second := newRun(t, book)
	second.clock = second.clock.Add(time.Hour)
	second.feed("two", exec(61, 1, hostNS, 9, "/bin/true"))
	second.want(RuleRestarted + "@host")
	if got := second.sink.items[0].Finding.GetOutput(); !strings.Contains(got, "(1h0m0s)") {
		t.Errorf("output = %q, want the hour that nothing was seen", got)
	}

	second.remember(t.Context())
	third := newRun(t, book) // only the correlator was restarted: the collector kept what was not acknowledged
	third.feed("two", exec(62, 1, hostNS, 9, "/bin/true"))
	third.want()
}

func TestBookmarkWaitsForAGapToBeTold(t *testing.T) {
	before := bookmark.Mark{Instance: "one", Last: time.Unix(1, 0)}
	book := &memoryBook{mark: before}
	b := newRun(t, book)
	b.stream.instance, b.stream.before = "two", before.Last // its snapshot has come, its first event has not
	b.remember(t.Context())
	if book.mark != before {
		t.Errorf("bookmark = %+v before the gap was told, want %+v still", book.mark, before)
	}
}

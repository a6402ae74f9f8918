package repeat

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

// summary is the last finding that was folded, as one that stands for all of them.
func (t *tally) summary() *findingv1.Finding {
	first, last := t.first.Finding, t.last.Finding
	id := idOf(t.of, first.GetId(), last.GetId()) // before it changes: first may be last
	last.Repeats = &findingv1.Repeats{Of: t.of, Count: t.count, First: first.GetTime(), Last: last.GetTime(), Differ: t.differ}
	last.Id = id
	last.Output += t.words()
	return last
}

// words say for people, at the end of the output, what the finding stands for.
func (t *tally) words() string {
	what := "repeated"
	if t.differ {
		what = "the last of those by this program that differ, in all"
	}
	words := fmt.Sprintf("%s %s", what, times(t.count))
	if t.count > 1 {
		from, to := t.first.Finding.GetTime().AsTime(), t.last.Finding.GetTime().AsTime()
		words += fmt.Sprintf(" from %s to %s UTC", from.Format(time.TimeOnly), to.Format(time.TimeOnly))
	}
	if t.total > t.count {
		words += fmt.Sprintf(", %s since the first", times(t.total))
	}
	return " (" + words + ")"
}

func times(n uint64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// idOf is the same if the same findings are folded again, as after a crash.
func idOf(parts ...string) string {
	sum := sha256.New()
	for _, part := range parts {
		fmt.Fprintln(sum, part)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

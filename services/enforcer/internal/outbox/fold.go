package outbox

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
)

const (
	// foldFor is how long findings that say the same are counted as one: an engine may try a container that is refused again and again.
	foldFor = time.Minute
	// maxFolds bounds what is counted at once; what is beyond is told each time.
	maxFolds = 1024
)

// fold is a finding that was told, and those that said the same since.
type fold struct {
	first, last *findingv1.Finding
	count       uint64
	since       *timestamppb.Timestamp // of the first that was not told
	until       time.Time
}

// alike is what findings have in common that are told as one: all but the container and the time.
func alike(f *findingv1.Finding) string {
	w := f.GetWorkload()
	return fmt.Sprintf("%q", []string{f.GetRule(), f.GetEffect().String(), f.GetAction().GetDetail(), f.GetOutput(), w.GetImage(), w.GetImageDigest(), w.GetRuntime(), w.GetPodNamespace()})
}

// folded counts a finding, and says whether it need not be told. o.mu is held.
func (o *Outbox) folded(f *findingv1.Finding, now time.Time) bool {
	key := alike(f)
	known := o.folds[key]
	switch {
	case known != nil:
		if known.count == 0 {
			known.since = f.GetTime()
		}
		known.last, known.count = f, known.count+1
		return true
	case len(o.folds) < maxFolds:
		o.folds[key] = &fold{first: f, until: now.Add(foldFor)}
	}
	return false
}

// unfold tells how many there were, of those whose time is over, or of all. o.mu is held.
func (o *Outbox) unfold(now time.Time, all bool) {
	for key, f := range o.folds {
		if !all && now.Before(f.until) {
			continue
		}
		delete(o.folds, key)
		if f.count == 0 {
			continue
		}
		told := proto.CloneOf(f.last)
		told.Repeats = &findingv1.Repeats{Of: f.first.GetId(), Count: f.count, First: f.since, Last: f.last.GetTime()}
		o.put(told)
	}
}

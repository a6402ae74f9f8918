package flight

import (
	"time"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// numReasons is one more than the greatest reason.
const numReasons = int(correlatorv1.MissedReason_MISSED_REASON_LIMIT) + 1

// maxChunk is how many events an entry on disk has at most: so many are in memory at once when it is read.
const maxChunk = 512

// ring is what there is of one workload. Recorder.mu guards it.
type ring struct {
	id workload.Identity
	// described is the description that whose was made of.
	described, whose *findingv1.Workload
	sure, rate       bucket

	// In memory.
	chunks  []*collectorv1.StreamEventsResponse
	waiting int // bytes
	missed  [numReasons]uint64
	told    [numReasons]uint64 // of them, those that are counted already

	// On disk, the oldest first. The last may be open; then the writing goroutine alone writes to it.
	segments []*segment
	bytes    int64
	seen     time.Time // when it was last written to

	written, lost uint64 // events since the start
}

func newRing(id workload.Identity, w *findingv1.Workload, cfg Config) *ring {
	return &ring{
		id: id, described: w, whose: brief(w),
		sure: bucket{rate: float64(cfg.WorkloadRate) / 20}, rate: bucket{rate: float64(cfg.WorkloadRate)},
	}
}

// add keeps an event in memory, of which it takes so many bytes.
func (g *ring) add(run Run, e *eventv1.Event) int {
	weight := weigh(e)
	var last *collectorv1.StreamEventsResponse
	if len(g.chunks) > 0 {
		last = g.chunks[len(g.chunks)-1]
	}
	if last == nil || len(last.Events) >= maxChunk || last.Epoch != run.Epoch || last.Instance != run.Instance || last.BootId != run.BootID {
		last = &collectorv1.StreamEventsResponse{BootId: run.BootID, Instance: run.Instance, Epoch: run.Epoch}
		g.chunks = append(g.chunks, last)
	}
	last.Events = append(last.Events, e)
	g.waiting += weight
	return weight
}

// taken is what was in a ring's memory.
type taken struct {
	chunks []*collectorv1.StreamEventsResponse
	missed [numReasons]uint64
	told   [numReasons]uint64
	weight int
	events uint64
}

// take empties a ring's memory, false if there is nothing in it.
func (g *ring) take() (taken, bool) {
	t := taken{chunks: g.chunks, missed: g.missed, told: g.told, weight: g.waiting}
	for _, c := range t.chunks {
		t.events += uint64(len(c.Events))
	}
	g.chunks, g.waiting, g.missed, g.told = nil, 0, [numReasons]uint64{}, [numReasons]uint64{}
	return t, t.events > 0 || t.missed != [numReasons]uint64{}
}

// idle says whether there is nothing of the ring.
func (g *ring) idle() bool {
	return len(g.segments) == 0 && len(g.chunks) == 0 && g.missed == [numReasons]uint64{}
}

// bucket holds what a rate still allows: as much as comes in two seconds.
type bucket struct {
	rate   float64 // a second
	tokens float64
	last   uint64 // nanoseconds since boot
}

// has fills the bucket up to a time, and says whether there is more in it than that share, which others may have. Time that goes back
// a little, as on several processors, fills nothing.
func (b *bucket) has(now uint64, left float64) bool {
	full := 2 * b.rate
	switch {
	case b.last == 0:
		b.tokens, b.last = full, max(now, 1)
	case now > b.last:
		b.tokens, b.last = min(full, b.tokens+b.rate*1e-9*float64(now-b.last)), now
	}
	return b.tokens >= 1+left*full
}

// take is has, and takes one if there is.
func (b *bucket) take(now uint64, left float64) bool {
	if !b.has(now, left) {
		return false
	}
	b.tokens--
	return true
}

// weigh is about how many bytes an event takes in memory.
func weigh(e *eventv1.Event) int {
	const each = 1024 // with its keys, ids and times
	size := each
	switch kind := e.GetKind().(type) {
	case *eventv1.Event_Exec:
		size += weighExec(kind.Exec)
	case *eventv1.Event_Existing:
		size += weighExec(kind.Existing)
	case *eventv1.Event_ExecFailed:
		size += len(kind.ExecFailed.GetFile().GetPath())
	case *eventv1.Event_FileOpen:
		size += len(kind.FileOpen.GetFile().GetPath())
	case *eventv1.Event_FileChange:
		size += len(kind.FileChange.GetFile().GetPath()) + len(kind.FileChange.GetTarget().GetPath()) + len(kind.FileChange.GetText())
	case *eventv1.Event_Memory:
		size += len(kind.Memory.GetFile().GetPath())
	case *eventv1.Event_Dns:
		const record = 128
		for _, q := range kind.Dns.GetQuestions() {
			size += record + len(q.GetName())
		}
		for _, a := range kind.Dns.GetAnswers() {
			size += record + len(a.GetName()) + len(a.GetData())
		}
	}
	return size
}

func weighExec(e *eventv1.Exec) int {
	const header = 24 // a string, and its share of the heap
	size := len(e.GetExe().GetPath()) + len(e.GetCwd()) + len(e.GetScript().GetPath()) + len(e.GetInterpreter())
	for _, arg := range e.GetArgv() {
		size += header + len(arg)
	}
	return size
}

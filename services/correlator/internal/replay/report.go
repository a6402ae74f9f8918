package replay

import (
	"cmp"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/palisade-sec/palisade/services/correlator/internal/pipeline"
	"github.com/palisade-sec/palisade/services/correlator/internal/profile"
	"github.com/palisade-sec/palisade/services/correlator/internal/rule"
)

// Report is what a replay found and cost. Durations are nanoseconds in JSON.
type Report struct {
	Events    uint64 `json:"events"`
	Batches   uint64 `json:"batches"`
	News      uint64 `json:"news"`
	Snapshots uint64 `json:"snapshots"`
	// Missed is how many events the recording says it misses.
	Missed   uint64 `json:"events_missed"`
	Findings uint64 `json:"findings"`
	// Kills is how many findings would have asked for a kill.
	Kills uint64 `json:"kills"`

	// Reading is the time spent on the file (unpacking and decoding), Pipeline that spent on events.
	Reading  time.Duration `json:"reading_ns"`
	Pipeline time.Duration `json:"pipeline_ns"`
	// Renewing is the time spent on making a loop's processes and containers new, which is in neither.
	Renewing time.Duration `json:"renewing_ns"`
	// EventsPerSecond is over reading and pipeline, PipelinePerSecond without reading.
	EventsPerSecond   float64 `json:"events_per_second"`
	PipelinePerSecond float64 `json:"pipeline_events_per_second"`
	// AllocsPerEvent and BytesPerEvent are of reading and pipeline together.
	AllocsPerEvent float64 `json:"allocs_per_event"`
	BytesPerEvent  float64 `json:"bytes_per_event"`
	Processors     int     `json:"processors"`

	Memory []Memory   `json:"memory"`
	Rules  []RuleCost `json:"rules"`
}

// Memory is the process's after so many events.
type Memory struct {
	Events uint64 `json:"events"`
	RSS    uint64 `json:"rss_bytes"`
	// Heap is what is in use, garbage included.
	Heap uint64 `json:"heap_bytes"`
}

// RuleCost is what a rule did and what it cost, as far as it was timed.
type RuleCost struct {
	Name    string `json:"name"`
	Matches uint64 `json:"matches"`
	// Tried is on how many of the timed events the rule was tried, PerTry what that took.
	Tried  uint64        `json:"tried"`
	PerTry time.Duration `json:"per_try_ns"`
	// Total is for all events, if the timed ones stand for them.
	Total time.Duration `json:"total_ns"`
}

func (r *Report) lookAtMemory() {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	r.Memory = append(r.Memory, Memory{Events: r.Events, RSS: ResidentBytes(), Heap: stats.HeapAlloc})
}

func (r *Report) settle(before, after runtime.MemStats) {
	r.Processors = runtime.GOMAXPROCS(0)
	if r.Events == 0 {
		return
	}
	n := float64(r.Events)
	r.AllocsPerEvent = float64(after.Mallocs-before.Mallocs) / n
	r.BytesPerEvent = float64(after.TotalAlloc-before.TotalAlloc) / n
	r.EventsPerSecond = n / (r.Reading + r.Pipeline).Seconds()
	r.PipelinePerSecond = n / r.Pipeline.Seconds()
}

// costs are the rules in force, dearest first.
func costs(set *rule.Set, matches *pipeline.Matches, timing *profile.Profile, every uint64) []RuleCost {
	var all []RuleCost
	for _, r := range set.Rules() {
		if !r.Enabled {
			continue
		}
		c := RuleCost{Name: r.Name, Matches: matches.Of(r)}
		if timing != nil {
			cost := timing.Of(r)
			c.Tried, c.Total = cost.Tried, cost.Spent*time.Duration(every) //nolint:gosec // a small number
			if c.Tried > 0 {
				c.PerTry = cost.Spent / time.Duration(c.Tried) //nolint:gosec // below the number of events
			}
		}
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b RuleCost) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), cmp.Compare(b.Matches, a.Matches))
	})
	return all
}

// ResidentBytes is this process's resident set, zero where the kernel does not say.
func ResidentBytes() uint64 {
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(raw))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize()) //nolint:gosec // never negative
}

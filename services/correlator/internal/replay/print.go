package replay

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// JSON writes the report for programs.
func (r *Report) JSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// Text writes the report for people.
func (r *Report) Text(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "RULE \t matches \t ns a try \t tries timed \t total \t\n")
	for _, c := range r.Rules {
		if c.Tried == 0 && c.Matches == 0 {
			continue // none of its kind of event is in the recording
		}
		fmt.Fprintf(table, "%s \t %d \t %d \t %d \t %v \t\n", c.Name, c.Matches, c.PerTry.Nanoseconds(), c.Tried, c.Total.Round(time.Millisecond))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nevents      %d in %d batches, %d times news of containers, %d snapshots\n", r.Events, r.Batches, r.News, r.Snapshots)
	if r.Missed > 0 {
		fmt.Fprintf(w, "missed      %d events are not in the recording: the command that made it was too slow\n", r.Missed)
	}
	fmt.Fprintf(w, "findings    %d, of which %d would have asked for a kill\n", r.Findings, r.Kills)
	fmt.Fprintf(w, "speed       %.0f events/s on %d processors (%v reading, %v pipeline; the pipeline alone: %.0f events/s)\n",
		r.EventsPerSecond, r.Processors, r.Reading.Round(time.Millisecond), r.Pipeline.Round(time.Millisecond), r.PipelinePerSecond)
	fmt.Fprintf(w, "allocations %.2f an event, %.0f bytes (reading and pipeline)\n", r.AllocsPerEvent, r.BytesPerEvent)
	for _, m := range r.Memory {
		if _, err := fmt.Fprintf(w, "memory      after %d events: RSS %.1f MiB, heap %.1f MiB\n", m.Events, mib(m.RSS), mib(m.Heap)); err != nil {
			return err
		}
	}
	return nil
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

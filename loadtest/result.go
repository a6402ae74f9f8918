package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is what we read of ghz's JSON. Durations are in nanoseconds.
type report struct {
	Count               int            `json:"count"`
	Rps                 float64        `json:"rps"`
	ErrorDistribution   map[string]int `json:"errorDistribution"`
	LatencyDistribution []struct {
		Percentage int           `json:"percentage"`
		Latency    time.Duration `json:"latency"`
	} `json:"latencyDistribution"`
}

// result is one line of the output. Durations are in nanoseconds.
type result struct {
	Case    string        `json:"case"`
	Process string        `json:"process"`
	Caller  string        `json:"caller"`
	Calls   int           `json:"calls"`
	RPS     float64       `json:"rps"`
	P50     time.Duration `json:"p50_ns"`
	P95     time.Duration `json:"p95_ns"`
	P99     time.Duration `json:"p99_ns"`
	Errors  int           `json:"errors"`
	// Problem says what went wrong, in one line; empty if nothing did.
	Problem string `json:"problem,omitempty"`
}

func (r result) failed() bool { return r.Problem != "" || r.Errors > 0 || r.Calls == 0 }

func (r *result) fill(from report, want int) {
	r.Calls, r.RPS = from.Count, from.Rps
	for _, l := range from.LatencyDistribution {
		switch l.Percentage {
		case 50:
			r.P50 = l.Latency
		case 95:
			r.P95 = l.Latency
		case 99:
			r.P99 = l.Latency
		}
	}
	for _, text := range slices.Sorted(maps.Keys(from.ErrorDistribution)) {
		r.Errors += from.ErrorDistribution[text]
		if r.Problem == "" {
			r.Problem = text
		}
	}
	if r.Problem == "" && r.Calls < want {
		r.Problem = fmt.Sprintf("only %d of %d calls were made in time", r.Calls, want)
	}
}

// write prints the results for people or for programs.
func write(w io.Writer, format string, results []result) error {
	if format == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(results)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "case\tcaller\tcalls\trps\tp50\tp95\tp99\terrors\t")
	for _, r := range results {
		fmt.Fprintf(table, "%s\t%s\t%d\t%.0f\t%v\t%v\t%v\t%d\t\n", r.Case, r.Caller, r.Calls, r.RPS,
			r.P50.Round(time.Microsecond), r.P95.Round(time.Microsecond), r.P99.Round(time.Microsecond), r.Errors)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, r := range results {
		if r.Problem != "" {
			if _, err := fmt.Fprintf(w, "%s: %s\n", r.Case, strings.TrimSpace(r.Problem)); err != nil {
				return err
			}
		}
	}
	return nil
}

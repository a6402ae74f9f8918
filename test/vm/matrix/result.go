package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// tailLines is how much of a log is shown where a VM, or a test binary, ended badly.
const tailLines = 40

// result is what became of one row.
type result struct {
	row     row
	release string
	tests   testRun
	took    time.Duration
	logs    string
	// fault is why there was no VM, or not until the end.
	fault error
}

// bad says in a few words what is wrong, or nothing.
func (r result) bad() string {
	switch {
	case r.fault != nil:
		return r.fault.Error()
	case len(r.tests.with(failed)) > 0:
		return "failed"
	case r.tests.exit != 0:
		return fmt.Sprintf("tests ended with %d", r.tests.exit)
	case len(r.tests.with(passed)) == 0:
		return "no test passed"
	}
	return ""
}

// writeProgress shows that a test has ended. Subtests are in its time.
func writeProgress(w io.Writer, r row, t *test) {
	if t.whole() {
		fmt.Fprintf(w, "kernels: %s: %s %s (%s s)\n", r.name, t.outcome, t.name, t.seconds)
	}
}

// writeResult shows one row: a line, what was skipped and why, and what the tests that failed said.
func writeResult(w io.Writer, r result) {
	fmt.Fprintf(w, "kernels: %s: %s: %d passed, %d failed, %d skipped (%.0f s, lsm=%s)\n", r.row.name, r.release,
		len(r.tests.with(passed)), len(r.tests.with(failed)), len(r.tests.with(skipped)), r.took.Seconds(), r.tests.lsm)
	for _, t := range r.tests.with(skipped) {
		fmt.Fprintf(w, "    skipped %s: %s\n", t.name, t.reason())
	}
	for _, t := range r.tests.with(failed) {
		word := "failed"
		if t.outcome == "" {
			word = "did not end:"
		}
		fmt.Fprintf(w, "    %s %s\n", word, t.name)
		for _, line := range t.output {
			fmt.Fprintf(w, "        %s\n", strings.TrimSpace(line))
		}
	}
	switch {
	case r.fault != nil && r.took == 0: // before there was a VM
		fmt.Fprintf(w, "    %v\n", r.fault)
		return
	case r.fault != nil:
		fmt.Fprintf(w, "    %v; the console's last lines:\n%s\n", r.fault, tail(filepath.Join(r.logs, consoleLog), tailLines))
	case r.bad() != "" && len(r.tests.with(failed)) == 0:
		fmt.Fprintf(w, "    %s; the last lines:\n%s\n", r.bad(), tail(filepath.Join(r.logs, outputLog), tailLines))
	}
	if r.bad() != "" {
		fmt.Fprintf(w, "    all of it: %s\n", r.logs)
	}
}

// writeReasons says how many tests of a row were skipped for each reason, the most frequent first.
func writeReasons(w io.Writer, r result) {
	counts := map[string]int{}
	for _, t := range r.tests.with(skipped) {
		counts[t.reason()]++
	}
	reasons := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for i, reason := range reasons {
		if i == 0 {
			fmt.Fprintf(w, "\n%s: skipped\n", r.row.name)
		}
		fmt.Fprintf(w, "    %d: %s\n", counts[reason], reason)
	}
}

// writeTable shows all rows and the sums, and is an error unless every row is well.
func writeTable(w io.Writer, all []result) error {
	var errs []error
	var pass, fail, skip int
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nkernel\trelease\twanted tier\tpassed\tfailed\tskipped\tseconds\t")
	for _, r := range all {
		p, f, s := len(r.tests.with(passed)), len(r.tests.with(failed)), len(r.tests.with(skipped))
		pass, fail, skip = pass+p, fail+f, skip+s
		if bad := r.bad(); bad != "" {
			errs = append(errs, fmt.Errorf("%s: %s", r.row.name, bad))
			if f == 0 {
				fail++ // a VM that died counts as one, or the sums would say that all is well
			}
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%d\t%.0f\t%s\n", r.row.name, r.release, r.row.tier, p, f, s, r.took.Seconds(), r.bad())
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, r := range all {
		writeReasons(w, r)
	}
	fmt.Fprintf(w, "\n%d passed, %d failed, %d skipped\n", pass, fail, skip)
	return errors.Join(errs...)
}

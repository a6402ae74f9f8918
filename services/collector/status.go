package main

import (
	"fmt"
	"strconv"
	"strings"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
	"github.com/palisade-sec/palisade/services/collector/internal/selftest"
)

// report is a status that is being written.
type report struct{ *processv1.GetStatusResponse }

func (r report) warn(format string, args ...any) {
	r.Healthy = false
	r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...))
}

func (r report) fact(name, value string) {
	r.Facts = append(r.Facts, &processv1.Fact{Name: name, Value: value})
}

// Status is what `palisade status` shows of the collector.
func (c *collector) Status() *processv1.GetStatusResponse {
	r := report{&processv1.GetStatusResponse{Healthy: true}}
	r.fact("tier", string(c.probes.Tier()))
	for _, reason := range c.probes.Worse() {
		r.fact("not tier", reason)
	}
	if keeps := c.probes.Keeps(); len(keeps) > 0 {
		r.fact("keeps", "CAP_"+strings.Join(keeps, ", CAP_")+": Linux before 5.19 lets nobody read a map without it")
	}
	c.reportHooks(r)
	if guards, err := c.guards.Status(); err != nil {
		r.warn("guards cannot be counted: %v", err)
	} else {
		r.fact("guards", fmt.Sprintf("%d, generation %d, %s", guards.Guards, guards.Generation, c.denies()))
	}
	r.fact("workloads", strconv.Itoa(c.workloads.Len()))
	queue := c.stream.Status()
	if !queue.Subscribed {
		r.warn("nobody reads the events: is the correlator running?")
	}
	r.fact("events", strconv.FormatUint(queue.Sequence, 10))
	r.fact("unacknowledged", fmt.Sprintf("%d batches, %d KiB", queue.Unacknowledged, queue.UnacknowledgedBytes>>10))
	c.reportRecords(r)
	return r.GetStatusResponse
}

// reportHooks says what is seen, what is not, and what that costs.
func (c *collector) reportHooks(r report) {
	r.fact("hooks", hookNames(c.probes))
	r.fact("self-test", c.tested.String())
	for _, hook := range c.probes.Missing() {
		r.fact("missing hook "+hook.Name, hook.Without+": "+hook.Reason)
	}
	for _, hook := range c.tested.Hooks() {
		if hook.State == selftest.Silent {
			r.warn("silent hook %s: %s: the kernel does not call its program", hook.Hook.Name, hook.Hook.Without)
		}
	}
	runs, err := c.probes.Runs()
	if err != nil {
		r.warn("runs cannot be counted: %v", err)
		return
	}
	if !counted(runs) {
		r.fact("run counts", "off: sysctl kernel.bpf_stats_enabled=1 switches them on, at some 50 ns a run of any BPF program")
	}
	r.Tables = append(r.Tables, c.hookTable(runs))
}

// reportRecords says what came of records.
func (c *collector) reportRecords(r report) {
	counts := c.ring.Counts()
	short, err := c.probes.Short()
	if err != nil {
		r.warn("lost records cannot be counted: %v", err)
	}
	left, err := c.probes.LeftOut()
	if err != nil {
		r.warn("programs that the kernel left out cannot be counted: %v", err)
	}
	r.fact("records lost", byClass(short))
	r.Tables = append(r.Tables, c.ringTable(), recordTable(counts.ByKind, short, left))
	if counts.Malformed > 0 {
		r.warn("%d records could not be decoded: report this", counts.Malformed)
	}
}

// denies says what happens to who passes a guard.
func (c *collector) denies() string {
	if c.probes.Tier().CanDeny() {
		return "denied by the kernel"
	}
	return fmt.Sprintf("prevent: degraded to kill (tier %s)", c.probes.Tier())
}

// byClass lists what is missing in the order of the kinds, leaving out those of which nothing is.
func byClass(short [record.Kinds]probe.Shortfall) string {
	var parts []string
	for kind := record.Exec; kind < record.Kinds; kind++ {
		if missing := short[kind].Lost + short[kind].Dropped; missing > 0 {
			parts = append(parts, fmt.Sprintf("%s=%d", kind.Class(), missing))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, " ")
}

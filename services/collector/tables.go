package main

import (
	"slices"
	"strconv"
	"time"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
	"github.com/palisade-sec/palisade/services/collector/internal/ring"
	"github.com/palisade-sec/palisade/services/collector/internal/selftest"
)

// table has a name and columns; those of numbers begin with a #.
func table(name string, columns ...string) *processv1.Table {
	t := &processv1.Table{Name: name}
	for _, column := range columns {
		number := column[0] == '#'
		if number {
			column = column[1:]
		}
		t.Columns = append(t.Columns, &processv1.Column{Name: column, Number: number})
	}
	return t
}

func addRow(t *processv1.Table, cells ...string) {
	t.Rows = append(t.Rows, &processv1.Row{Cells: cells})
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

// usage sums up a hook's programs.
type usage struct {
	count, missed uint64
	total         time.Duration
}

// mean is in nanoseconds, empty if nothing was counted.
func (u usage) mean() string {
	if u.count == 0 {
		return ""
	}
	return number(uint64(u.total.Nanoseconds()) / u.count) //nolint:gosec // never negative
}

// runs are empty where the kernel does not count.
func (u usage) runs(counted bool) string {
	if !counted {
		return ""
	}
	return number(u.count)
}

// counted says whether the kernel has counted any run.
func counted(runs []probe.Run) bool {
	return slices.ContainsFunc(runs, func(r probe.Run) bool { return r.Count > 0 })
}

// usageOf sums up by the programs' names in C: two hooks may have one name.
func usageOf(runs []probe.Run) map[string]usage {
	sums := make(map[string]usage)
	for _, run := range runs {
		u := sums[run.Program]
		u.count, u.total, u.missed = u.count+run.Count, u.total+run.Total, u.missed+run.Missed
		sums[run.Program] = u
	}
	return sums
}

// hookTable has a row for each hook, attached or missing. The note says why it is not tried, or what is not seen.
func (c *collector) hookTable(runs []probe.Run) *processv1.Table {
	t := table("hooks", "hook", "family", "state", "#runs", "#mean_ns", "#left_out", "note")
	on, sums := counted(runs), usageOf(runs)
	add := func(hook probe.Hook, state, note string) {
		u := sums[hook.Program]
		addRow(t, hook.Name, hook.Family, state, u.runs(on), u.mean(), number(u.missed), note)
	}
	for _, result := range c.tested.Hooks() {
		note := result.Why
		if result.State == selftest.Silent {
			note = result.Hook.Without
		}
		add(result.Hook, string(result.State), note)
	}
	for _, hook := range c.probes.Missing() {
		addRow(t, hook.Name, hook.Family, "missing", "", "", "", hook.Without+": "+hook.Reason)
	}
	return t
}

// ringUse says how full a ring is.
type ringUse struct {
	name          string
	size, waiting uint64 // bytes
}

func (c *collector) rings() []ringUse {
	urgent, bulk := c.ring.Waiting()
	return []ringUse{
		{name: "urgent", size: uint64(c.probes.Urgent().MaxEntries()), waiting: urgent},
		{name: "bulk", size: uint64(c.probes.Bulk().MaxEntries()), waiting: bulk},
	}
}

func (c *collector) ringTable() *processv1.Table {
	t := table("rings", "ring", "#size_bytes", "#waiting_bytes")
	for _, use := range c.rings() {
		addRow(t, use.name, number(use.size), number(use.waiting))
	}
	return t
}

// recordTable has a row for each class of which there is anything to say.
func recordTable(read [record.Kinds]uint64, short [record.Kinds]probe.Shortfall, left []probe.LeftOut) *processv1.Table {
	t := table("records", "class", "#read", "#lost", "#dropped", "#left_out")
	var leftOut [record.Kinds]uint64 // 0: of several kinds
	for _, program := range left {
		leftOut[program.Kind()] += program.Count
	}
	for kind := record.Exec; kind < record.Kinds; kind++ {
		if s := short[kind]; read[kind]+s.Lost+s.Dropped+leftOut[kind] > 0 {
			addRow(t, kind.Class(), number(read[kind]), number(s.Lost), number(s.Dropped), number(leftOut[kind]))
		}
	}
	if leftOut[0] > 0 {
		addRow(t, ring.AnyClass, "", "", "", number(leftOut[0]))
	}
	return t
}

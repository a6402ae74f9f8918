package kerneltest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/ring"
)

// cost is what one event costs in the program that sees it.
type cost struct {
	event    string
	target   float64 // nanoseconds, 0 if there is none
	interest *collectorv1.Interest
	hook     string // of which the runs are counted
	// calls of the hook that are not the event's are taken at the price of an uninteresting call; negative: all are.
	times int
	role  []string
}

// prefixes are such as the rules that come with Palisade ask for.
var prefixes = []string{
	"/etc/gshadow", "/etc/shadow", "/etc/sudoers", "/root/.ssh/", "/run/secrets/kubernetes.io/", "/var/run/docker.sock",
	"/var/run/secrets/kubernetes.io/",
}

// costs are measured in this order: the first is that of an uninteresting call.
func costs(dir string) []cost {
	const many, execs = 20_000, 300
	opens := func(file string) []string { return []string{"open-many", strconv.Itoa(many), filepath.Join(dir, file)} }
	everything := &collectorv1.Interest{Classes: []string{"file_open", "connect"}}
	return []cost{
		{event: "uninteresting call", hook: "sys_exit", times: -1, interest: everything, role: []string{"getppid-many", strconv.Itoa(many)}},
		{event: "open", target: 500, hook: "sys_exit", times: many, interest: everything, role: opens("usr/file")},
		{event: "open below a prefix", target: 500, hook: "sys_exit", times: many, interest: below(append(prefixes, dir), prefixes), role: opens("usr/file")},
		{event: "open that no list wants", target: 150, hook: "sys_exit", times: many, interest: below(nil, prefixes), role: opens("usr/file")},
		{event: "open below no prefix", target: 150, hook: "sys_exit", times: many, interest: below(prefixes, prefixes), role: opens("usr/file")},
		{
			event: "open beside a prefix", target: 150, hook: "sys_exit", times: many,
			interest: below(append(prefixes, filepath.Join(dir, "usr/fish")), prefixes), role: opens("usr/file"),
		},
		{event: "connect", hook: "sys_exit", times: many, interest: everything, role: []string{"connect-many", strconv.Itoa(many)}},
		{event: "exec", target: 1000, hook: "sched_process_exec", times: -1, interest: everything, role: []string{"exec-many", strconv.Itoa(execs)}},
	}
}

// BenchmarkHooks prints the table of make bench-hooks: medians, by the kernel's own clock (bpf_stats), of what an event
// costs the process that causes it.
func BenchmarkHooks(b *testing.B) {
	const rounds = 9
	if os.Geteuid() != 0 {
		b.Skip("needs root: loads BPF programs")
	}
	dir := place(b, "usr/file")
	for b.Loop() {
		set := benched(b)
		samples := map[string][]float64{}
		for range rounds {
			idle := 0.0
			for _, c := range costs(dir) {
				ns := c.measure(b, set, idle)
				if idle == 0 {
					idle = ns
				}
				samples[c.event] = append(samples[c.event], ns)
			}
		}
		printCosts(costs(dir), samples)
	}
}

// benched is a set of probes whose records are read, and whose rates bound nothing but are not free.
func benched(b *testing.B) *probe.Set {
	b.Helper()
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = stats.Close() })
	cfg := probe.DefaultConfig()
	cfg.Rates = probe.Rates{UrgentPerSecond: 1e9, BulkPerSecond: 1e9, BurstSeconds: 3600}
	set, err := probe.Load(cfg)
	if err != nil {
		b.Fatal(err)
	}
	discard := func(_ context.Context, _ []*eventv1.Event, done func()) error { done(); return nil }
	reader, err := ring.NewReader(set, decoder(), discard)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- reader.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		<-done
		if err := errors.Join(reader.Close(), set.Close()); err != nil {
			b.Error(err)
		}
	})
	return set
}

// measure lets a child cause the event and returns nanoseconds a run.
func (c cost) measure(b *testing.B, set *probe.Set, idle float64) float64 {
	b.Helper()
	if err := set.WantInterest(c.interest); err != nil {
		b.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // the reader has taken what came before
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), self, c.role[1:]...)
	cmd.Env = append(os.Environ(), roleVariable+"="+c.role[0])
	before := runsOf(b, set, c.hook)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %v: %s", c.role, err, out)
	}
	after := runsOf(b, set, c.hook)
	runs, ns := float64(after.Count-before.Count), float64(after.Total-before.Total)
	if c.times < 0 {
		return ns / runs
	}
	return (ns - (runs-float64(c.times))*idle) / float64(c.times)
}

func runsOf(b *testing.B, set *probe.Set, hook string) probe.Run {
	b.Helper()
	runs, err := set.Runs()
	if err != nil {
		b.Fatal(err)
	}
	i := slices.IndexFunc(runs, func(r probe.Run) bool { return r.Hook == hook })
	if i < 0 {
		b.Fatalf("no program of %s", hook)
	}
	return runs[i]
}

func printCosts(costs []cost, samples map[string][]float64) {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "event\tns\tlowest\ttarget\t\t")
	for _, c := range costs {
		sorted := slices.Sorted(slices.Values(samples[c.event]))
		ns, verdict := sorted[len(sorted)/2], "-\t"
		if c.target > 0 {
			verdict = fmt.Sprintf("%.0f\tok", c.target)
			if ns > c.target {
				verdict = fmt.Sprintf("%.0f\tover", c.target)
			}
		}
		fmt.Fprintf(table, "%s\t%.0f\t%.0f\t%s\t\n", c.event, ns, sorted[0], verdict)
	}
	_ = table.Flush()
	fmt.Print("\n", text.String())
}

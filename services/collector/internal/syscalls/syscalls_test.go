package syscalls

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// sets are the kernel's, as a test has them.
type sets map[probe.SyscallTable]probe.Syscalls

func (s sets) Syscalls() (map[probe.SyscallTable]probe.Syscalls, error) { return maps.Clone(s), nil }

func (s sets) use(table probe.SyscallTable, numbers ...uint32) {
	set := s[table]
	for _, n := range numbers {
		set[n/64] |= 1 << (n % 64)
	}
	s[table] = set
}

// told is what one report says, by table.
func told(t *testing.T, r *Reporter) map[probe.SyscallTable][]uint32 {
	t.Helper()
	all := map[probe.SyscallTable][]uint32{}
	r.publish = func(_ context.Context, events []*eventv1.Event, _ func()) error {
		for _, e := range events {
			all[probe.SyscallTable{CgroupID: e.GetCgroupId(), ABI: e.GetAbi()}] = e.GetSyscallsUsed().GetNumbers()
			if e.GetBoottimeNs() == 0 || e.GetTime() == nil {
				t.Errorf("event without a time: %v", e)
			}
		}
		return nil
	}
	if err := r.report(t.Context()); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestReportTellsWhatHasCome(t *testing.T) {
	web, old := probe.SyscallTable{CgroupID: 7, ABI: eventv1.Abi_ABI_NATIVE}, probe.SyscallTable{CgroupID: 7, ABI: eventv1.Abi_ABI_COMPAT_32}
	kernel := sets{}
	r := NewReporter(kernel, record.Decoder{}, nil)
	check := func(what string, want map[probe.SyscallTable][]uint32) {
		t.Helper()
		if diff := cmp.Diff(want, told(t, r)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("no workload", map[probe.SyscallTable][]uint32{})
	kernel.use(web, 0, 63, 64, 575)
	kernel.use(old, 1)
	check("first sight", map[probe.SyscallTable][]uint32{web: {0, 63, 64, 575}, old: {1}})
	check("nothing new", map[probe.SyscallTable][]uint32{})
	kernel.use(web, 64, 65)
	check("one more", map[probe.SyscallTable][]uint32{web: {65}})
	delete(kernel, web)
	check("dropped by the kernel", map[probe.SyscallTable][]uint32{})
	kernel.use(web, 65)
	check("and seen again", map[probe.SyscallTable][]uint32{web: {65}})
}

// What could not be published is not forgotten.
func TestReportTellsAgainAfterAnError(t *testing.T) {
	table, kernel := probe.SyscallTable{CgroupID: 7}, sets{}
	kernel.use(table, 5)
	refused := errors.New("refused")
	r := NewReporter(kernel, record.Decoder{}, func(context.Context, []*eventv1.Event, func()) error { return refused })
	if err := r.report(t.Context()); !errors.Is(err, refused) {
		t.Fatalf("report = %v, want %v", err, refused)
	}
	if got := told(t, r)[table]; !slices.Equal(got, []uint32{5}) {
		t.Errorf("told %v, want [5]", got)
	}
}

package kerneltest

import (
	"context"
	"encoding/binary"
	"errors"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/syscalls"
)

// learning is a configuration that learns which system calls workloads make.
func learning() probe.Config {
	cfg := unbounded()
	cfg.Syscalls = true
	return cfg
}

// learned awaits an event about a workload and an ABI with all of these numbers, and returns those that it has.
func learned(t *testing.T, told chan *eventv1.Event, of workload, abi eventv1.Abi, numbers ...uint32) []uint32 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		select {
		case e := <-told:
			got := e.GetSyscallsUsed().GetNumbers()
			if e.GetCgroupId() == of.id && e.GetAbi() == abi && !slices.ContainsFunc(numbers, func(n uint32) bool { return !slices.Contains(got, n) }) {
				return got
			}
		case <-ctx.Done():
			t.Fatalf("no event of cgroup %d, %v, with %v", of.id, abi, numbers)
		}
	}
}

// report tells what the set learns until the test ends.
func report(t *testing.T, set *probe.Set) chan *eventv1.Event {
	t.Helper()
	told := make(chan *eventv1.Event, 4096)
	publish := func(_ context.Context, events []*eventv1.Event, done func()) error {
		for _, e := range events {
			told <- e
		}
		done()
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- syscalls.NewReporter(set, decoder(), publish).Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("reporter: %v", err)
		}
	})
	return told
}

// runIn runs machine code, which must come before the end of a program, in a workload.
func (w workload) runIn(t *testing.T, code []byte) error {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	programOf(t, path, slices.Concat(code, machine[runtime.GOARCH].code))
	group, err := unix.Open(w.directory, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(group)
	cmd := exec.CommandContext(t.Context(), path)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: group}
	return cmd.Run()
}

// call is the machine code of a system call without arguments.
func call(number uint32) []byte {
	if runtime.GOARCH == "arm64" { // movz x8, #number; svc #0
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 0xd2800008|number<<5), 0xd4000001)
	}
	return append(binary.LittleEndian.AppendUint32([]byte{0xb8}, number), 0x0f, 0x05) // mov $number, %eax; syscall
}

// One set learns for all of these: to load it is not what they are about, but for the last.
func TestLearnsSystemCalls(t *testing.T) {
	cfg := learning()
	cfg.Pins = mountPins(t)
	w := loadWith(t, cfg)
	t.Run("each workload's own", func(t *testing.T) { learnsByWorkload(t, w.set) })
	t.Run("B15: the workload's in all its cgroups", func(t *testing.T) { learnsOfNestedCgroups(t, w.set) })
	t.Run("outlive the collector", func(t *testing.T) { learnedOutliveTheCollector(t, w.set, cfg) })
}

func learnsByWorkload(t *testing.T, set *probe.Set) {
	t.Helper()
	told := report(t, set)
	ours := newWorkload(t)
	if err := ours.runIn(t, nil); err != nil {
		t.Fatal(err)
	}
	const native = eventv1.Abi_ABI_NATIVE
	first := learned(t, told, ours, native, unix.SYS_EXECVE)
	if slices.Contains(first, unix.SYS_GETPPID) || !slices.IsSorted(first) {
		t.Errorf("first calls = %v, want them sorted and without %d", first, unix.SYS_GETPPID)
	}
	if err := ours.runIn(t, call(unix.SYS_GETPPID)); err != nil {
		t.Fatal(err)
	}
	if got := learned(t, told, ours, native, unix.SYS_GETPPID); !slices.Equal(got, []uint32{unix.SYS_GETPPID}) {
		t.Errorf("then came %v, want only %d", got, unix.SYS_GETPPID)
	}
	learnOtherTables(t, ours, told)
	other := newWorkload(t)
	if err := other.runIn(t, nil); err != nil {
		t.Fatal(err)
	}
	if got := learned(t, told, other, native, unix.SYS_EXECVE); slices.Contains(got, unix.SYS_GETPPID) {
		t.Errorf("another workload's calls = %v, want them without %d", got, unix.SYS_GETPPID)
	}
}

// learnOtherTables makes the calls that only x86-64 has. An x32 call is told also where the kernel then refuses it.
func learnOtherTables(t *testing.T, ours workload, told chan *eventv1.Event) {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		return
	}
	const getppid32, x32 = 64, 1 << 30
	if err := ours.runIn(t, call(x32|unix.SYS_GETPPID)); err != nil {
		t.Fatal(err)
	}
	learned(t, told, ours, eventv1.Abi_ABI_X32, unix.SYS_GETPPID)
	if err := ours.runIn(t, []byte{0xb8, getppid32, 0, 0, 0, 0xcd, 0x80}); err != nil { // mov $64, %eax; int $0x80
		t.Logf("no 32-bit calls here: %v", err)
		return
	}
	learned(t, told, ours, eventv1.Abi_ABI_COMPAT_32, getppid32)
}

// What a workload does in cgroups of its own making is its doing, and they push nobody's set out of the kernel's map.
func learnsOfNestedCgroups(t *testing.T, set *probe.Set) {
	t.Helper()
	ours := newWorkload(t)
	register(t, workloadTable(t, set), ours.id)
	for range 3 {
		below := workload{directory: ours.nested(t, 2)}
		below.id = inodeOf(t, below.directory)
		if err := below.runIn(t, call(unix.SYS_GETPPID)); err != nil {
			t.Fatal(err)
		}
		sets, err := set.Syscalls()
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := sets[probe.SyscallTable{CgroupID: below.id, ABI: eventv1.Abi_ABI_NATIVE}]; ok {
			t.Errorf("a nested cgroup has a set of its own: %v", got.Numbers())
		}
	}
	learned(t, report(t, set), ours, eventv1.Abi_ABI_NATIVE, unix.SYS_EXECVE, unix.SYS_GETPPID)
}

func learns(set *probe.Set) bool {
	return slices.ContainsFunc(set.Attached(), func(h probe.Hook) bool { return h.Name == "sys_enter" })
}

func TestLearnsNothingUnlessAsked(t *testing.T) {
	w := borrow(t)
	if learns(w.set) {
		t.Error("sys_enter is attached, want it only on demand")
	}
	ours := newWorkload(t)
	if err := ours.runIn(t, nil); err != nil {
		t.Fatal(err)
	}
	if sets, err := w.set.Syscalls(); err != nil || len(sets) != 0 {
		t.Errorf("sets = %v, %v, want none", sets, err)
	}
}

// What was learned outlives the collector, and what a workload does without one is learned too.
func learnedOutliveTheCollector(t *testing.T, set *probe.Set, cfg probe.Config) {
	t.Helper()
	ours := newWorkload(t)
	if err := set.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ours.runIn(t, call(unix.SYS_GETPPID)); err != nil {
		t.Fatal(err)
	}
	after := loadWith(t, cfg)
	if !after.set.Resumed() {
		t.Error("resumed = false, want the pinned programs taken over")
	}
	learned(t, report(t, after.set), ours, eventv1.Abi_ABI_NATIVE, unix.SYS_EXECVE, unix.SYS_GETPPID)
	cfg.Syscalls = false
	without := loadWith(t, cfg)
	if got, want := epochOf(t, without.set), epochOf(t, after.set); got != want {
		t.Errorf("epoch = %s, want %s: the rings stay when learning ends", got, want)
	}
	if learns(without.set) {
		t.Error("sys_enter is still attached")
	}
}

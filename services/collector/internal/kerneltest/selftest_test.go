package kerneltest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/ring"
	"github.com/palisade-sec/palisade/services/collector/internal/selftest"
)

// beyond are the hooks that are not tried without privilege, or without a network.
var beyond = []string{"egress", "ingress", "move_mount", "sb_umount", "sb_pivotroot", "path_chroot"}

// Every program that is attached really runs, as far as the collector can find out by itself.
func TestB24SelfTestSeesEveryHookFire(t *testing.T) {
	w := borrow(t)
	report, err := selftest.Run(w.set, decoder())
	if err != nil {
		t.Fatal(err)
	}
	for _, result := range report.Results {
		if result.State == selftest.Silent || result.State == selftest.NotTried && result.Why == "" {
			t.Errorf("%s at %s: %s %s", result.Hook.Name, result.Place, result.State, result.Why)
		}
	}
	for _, hook := range report.Hooks() {
		if hook.State == selftest.NotTried && !slices.Contains(beyond, hook.Hook.Name) && lacks(hook.Kind().Class()) == "" {
			t.Errorf("%s was not tried: %s", hook.Hook.Name, hook.Why)
		}
	}
	t.Logf("%d of %d programs fire, %v", report.Count(selftest.Fires), len(report.Results), report.Took)
	leavesOutItsOwn(t, w, report.Own)
}

// leavesOutItsOwn says that nobody is told of the self-test, but of what this process does afterwards.
func leavesOutItsOwn(t *testing.T, w *watcher, own ring.Own) {
	t.Helper()
	reader, err := ring.NewReader(w.set, decoder(), w.publish)
	if err != nil {
		t.Fatal(err)
	}
	reader.LeaveOut(own)
	t.Cleanup(startReader(t, reader))
	fd, err := unix.MemfdCreate("after", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	w.await(t, "what came after the self-test", func(e *eventv1.Event) bool { return e.GetMemory().GetName() == "after" })
	if n := w.count(func(e *eventv1.Event) bool { return e.GetMemory().GetName() == "palisade-self-test" }); n > 0 || reader.Counts().Own == 0 {
		t.Errorf("%d memory files of the self-test were told, %d of its records left out, want none and some", n, reader.Counts().Own)
	}
}

// A hook whose link is gone is silent: a required one ends the start, another one is reported.
func TestSelfTestReportsASilentHook(t *testing.T) {
	required, optional := "file_open", "path_chmod"
	others := linksHeld(t)
	w := loadWith(t, unbounded())
	if w.set.Tier() == probe.TierTracepoint {
		required, optional = "sys_exit", "signal_generate"
	}
	detach(t, w.set, optional, others)
	report, err := selftest.Run(w.set, decoder())
	if err != nil {
		t.Fatal(err)
	}
	for _, hook := range report.Hooks() {
		if silent := hook.State == selftest.Silent; silent != (hook.Hook.Name == optional) {
			t.Errorf("%s is %s %s", hook.Hook.Name, hook.State, hook.Why)
		}
	}
	detach(t, w.set, required, others)
	_, err = selftest.Run(w.set, decoder())
	if !errors.Is(err, selftest.ErrSilent) || !strings.Contains(err.Error(), "hook "+required) || !strings.Contains(err.Error(), w.set.Release()) {
		t.Errorf("Run = %v, want ErrSilent of %s on %s", err, required, w.set.Release())
	}
}

// linksHeld are the descriptors of this process that are links: the id of each one's program.
func linksHeld(t *testing.T) map[int]uint32 {
	t.Helper()
	descriptors, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	links := map[int]uint32{}
	for _, path := range descriptors {
		raw, _ := os.ReadFile(path) // one that Glob itself had open is gone
		_, after, ok := strings.Cut(string(raw), "prog_id:")
		if !ok || !strings.Contains(string(raw), "link_id:") {
			continue
		}
		var id uint32
		if _, err := fmt.Sscan(after, &id); err != nil {
			t.Fatal(err)
		}
		fd, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			t.Fatal(err)
		}
		links[fd] = id
	}
	return links
}

// detach takes a hook's only link away, by putting another file in the place of its descriptor. Others' links are left alone.
func detach(t *testing.T, set *probe.Set, hook string, others map[int]uint32) {
	t.Helper()
	i := slices.IndexFunc(set.Programs(), func(p probe.Program) bool { return p.Hook.Name == hook })
	name := set.Programs()[i].Hook.Program
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	links := linksHeld(t)
	for fd, id := range links {
		if _, other := others[fd]; other || !strings.HasPrefix(name, programName(t, id)) {
			continue
		}
		if err := unix.Dup3(int(null.Fd()), fd, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no link of %s among %d", name, len(links))
}

// programName is at most 15 bytes of it.
func programName(t *testing.T, id uint32) string {
	t.Helper()
	program, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info.Name
}

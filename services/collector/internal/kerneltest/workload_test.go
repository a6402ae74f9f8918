package kerneltest

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
	workloads "github.com/palisade-sec/palisade/services/collector/internal/workload"
)

func workloadTable(t *testing.T, set *probe.Set) *workloads.Table {
	t.Helper()
	table, err := workloads.NewTable(set.Workloads())
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func register(t *testing.T, table *workloads.Table, cgroups ...uint64) {
	t.Helper()
	if err := table.Register(cgroups); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := table.Forget(cgroups); err != nil {
			t.Error(err)
		}
	})
}

// disguised makes a cgroup below another one whose name is that of somebody else's container.
func disguised(t *testing.T, directory string) string {
	t.Helper()
	path := filepath.Join(directory, "docker-"+strings.Repeat("0123456789abcdef", 4)+".scope")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Rmdir(path); err != nil && !errors.Is(err, unix.ENOENT) {
			t.Errorf("remove cgroup: %v", err)
		}
	})
	return path
}

// openIn opens a file in a cgroup and returns the event.
func (w *watcher) openIn(t *testing.T, directory string) *eventv1.Event {
	t.Helper()
	path, inode := secret(t, t.TempDir())
	pid, _ := performIn(t, directory, "open", "openat", path)
	return w.await(t, "open", isOpen(pid, inode))
}

// Whatever a cgroup is called and however deep it lies, it is its workload's, also when it is gone before somebody asks.
func TestB17ANestedCgroupBelongsToItsWorkload(t *testing.T) {
	w := watch(t)
	table := workloadTable(t, w.set)
	outer, other := newWorkload(t), newWorkload(t)
	inner := outer.nested(t, 2)
	register(t, table, outer.id, inodeOf(t, inner))
	gone := disguised(t, outer.directory)
	tests := []struct {
		name, directory string
		want            uint64
	}{
		{"its own", outer.directory, outer.id},
		{"named like a container", gone, outer.id},
		{"named like one, in another workload's", disguised(t, inner), inodeOf(t, inner)},
		{"forty levels below", outer.nested(t, 40), outer.id},
		{"a workload in a workload", inner, inodeOf(t, inner)},
		{"nobody's", other.directory, 0},
		{"nobody's, named like a container", disguised(t, other.directory), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			event := w.openIn(t, tt.directory)
			if id := inodeOf(t, tt.directory); event.GetCgroupId() != id {
				t.Errorf("cgroup_id = %d, want %d", event.GetCgroupId(), id)
			}
			if tt.directory == gone {
				removeGroup(t, gone)
			}
			table.Attribute([]*eventv1.Event{event})
			if event.GetWorkloadCgroupId() != tt.want {
				t.Errorf("workload_cgroup_id = %d, want %d", event.GetWorkloadCgroupId(), tt.want)
			}
		})
	}
}

// What the kernel has found is found anew after each change, and by who reads the maps next, as the next collector does.
func TestWorkloadsComeAndGo(t *testing.T) {
	w := watch(t)
	outer := newWorkload(t)
	below := outer.nested(t, 1)
	table := workloadTable(t, w.set)
	check := func(when string, want uint64) {
		t.Helper()
		event := w.openIn(t, below)
		for range 2 { // the second time it is remembered
			table.Attribute([]*eventv1.Event{event})
			if event.GetWorkloadCgroupId() != want {
				t.Errorf("%s: workload_cgroup_id = %d, want %d", when, event.GetWorkloadCgroupId(), want)
			}
		}
	}
	check("before anything is registered", 0)
	register(t, table, 1<<40)
	check("with others registered", 0)
	register(t, table, outer.id)
	check("registered", outer.id)
	register(t, table, inodeOf(t, below), outer.id)
	check("itself registered", inodeOf(t, below))
	if err := table.Forget([]uint64{inodeOf(t, below), 7}); err != nil {
		t.Fatal(err)
	}
	check("itself forgotten", outer.id)
	table = workloadTable(t, w.set)
	if table.Len() != 2 {
		t.Errorf("%d workloads are found in the maps, want 2", table.Len())
	}
	check("in the eyes of the next collector", outer.id)
	if err := table.Forget([]uint64{outer.id}); err != nil {
		t.Fatal(err)
	}
	check("forgotten", 0)
}

func TestRegisterTakesAllOrNone(t *testing.T) {
	w := borrow(t)
	table := workloadTable(t, w.set)
	if err := table.Register([]uint64{77, 1}); !errors.Is(err, workloads.ErrInvalid) || table.Len() != 0 {
		t.Errorf("Register(root) = %v with %d registered, want ErrInvalid and none", err, table.Len())
	}
	tooMany := make([]uint64, w.set.Workloads().Registered.MaxEntries()+1)
	for i := range tooMany {
		tooMany[i] = uint64(1000 + i)
	}
	if err := table.Register(tooMany); err == nil || workloadTable(t, w.set).Len() != 0 {
		t.Errorf("Register(%d) = %v with %d registered, want an error and none", len(tooMany), err, workloadTable(t, w.set).Len())
	}
	register(t, table, tooMany[1:]...)
}

// A workload that makes cgroups has its rate once, and what is over it is counted as the workload's.
func TestB15ANewCgroupIsNoNewRate(t *testing.T) {
	const cgroups, opens, burst = 5, 40, 10
	w := bounded(t, probe.Rates{BulkPerSecond: 1, BurstSeconds: burst})
	w.start(t)
	outer := newWorkload(t)
	register(t, workloadTable(t, w.set), outer.id)
	path, inode := secret(t, t.TempDir())
	start := time.Now()
	for range cgroups {
		performIn(t, outer.nested(t, 1), "open-many", strconv.Itoa(opens), path)
	}
	most := burst + 2 + int(time.Since(start).Seconds())
	dropped := int(outer.shortfall(t, w.set, record.FileOpen).Dropped)
	received := func() int {
		return w.count(func(e *eventv1.Event) bool { return e.GetFileOpen().GetFile().GetInode() == inode })
	}
	for deadline := time.Now().Add(patience / 10); received()+dropped < cgroups*opens && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if n := received(); n > most || n+dropped < cgroups*opens {
		t.Errorf("%d opens of %d were received and %d opens dropped, want at most %d received and the rest dropped", n, cgroups*opens, dropped, most)
	}
}

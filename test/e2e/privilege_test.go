package e2e

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/palisade-sec/palisade/internal/privilege"
)

// TestEachProcessHoldsItsRow reads from the kernel what each running process may do and compares it with
// deploy/privileges.yaml.
func TestEachProcessHoldsItsRow(t *testing.T) {
	n := startNode(t)
	table, err := privilege.Load()
	if err != nil {
		t.Fatal(err)
	}
	running := n.processes()
	for _, row := range table.Processes {
		t.Run(row.Name, func(t *testing.T) {
			pid := running[row.Name].PID
			if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || filepath.Base(exe) != "palisade-"+row.Name {
				t.Fatalf("pid %d runs %q, %v", pid, exe, err)
			}
			checkStatus(t, pid, row, table.SocketGroup)
			checkNamespaces(t, pid, row)
			checkLimits(t, strings.ReplaceAll(strings.Trim(n.run, "/"), "/", "-"), pid, row)
		})
	}
}

// checkStatus compares /proc/<pid>/status of every thread.
func checkStatus(t *testing.T, pid int, row privilege.Row, group uint32) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no threads: %v", err)
	}
	uid, ownGroup := strconv.Itoa(int(row.UID)), strconv.Itoa(int(row.UID))
	for _, path := range tasks {
		status := readStatus(t, path)
		want := map[string]string{
			"Uid": strings.Join([]string{uid, uid, uid, uid}, " "),
			"Gid": strings.Join([]string{ownGroup, ownGroup, ownGroup, ownGroup}, " "),
			// After the programs are attached, only what the row keeps.
			"CapEff": mask(t, row.Keeps), "CapPrm": mask(t, row.Keeps),
			"CapBnd": mask(t, row.Capabilities), "NoNewPrivs": "1",
		}
		for key, value := range want {
			if status[key] != value {
				t.Errorf("%s: %s = %q, want %q", path, key, status[key], value)
			}
		}
		allowed := []string{ownGroup, strconv.Itoa(int(group))}
		for g := range strings.FieldsSeq(status["Groups"]) {
			if !slices.Contains(allowed, g) && (!row.RuntimeSocketGroup || !slices.Contains(runtimeGroups(), g)) {
				t.Errorf("%s: is in group %s, want only %v", path, g, allowed)
			}
		}
		const sysAdmin = 1 << 21 // CAP_SYS_ADMIN
		if bits, err := strconv.ParseUint(status["CapBnd"], 16, 64); err != nil || bits&sysAdmin != 0 {
			t.Errorf("%s: SYS_ADMIN is within reach (CapBnd %s, %v)", path, status["CapBnd"], err)
		}
	}
}

// The collector must cost little where nothing happens: its budget, in MiB, of memory that it shares with nobody, and of its share
// in what it does (proc(5): Pss in smaps_rollup). What a start or another busy time took is given back within two looks of its keeper
// (internal/memory).
func TestIdleCollectorIsSmall(t *testing.T) {
	const budget = 40
	n := startNode(t)
	pid := n.processes()["collector"].PID
	var kib []int
	if !eventually(45*time.Second, func() bool {
		if len(kib) > 0 {
			time.Sleep(3 * time.Second)
		}
		kib = append(kib, proportionalSize(t, pid))
		return kib[len(kib)-1] <= budget<<10
	}) {
		t.Errorf("the collector takes %d KiB, want at most %d MiB", kib, budget)
	}
	t.Logf("%d KiB", kib)
}

// proportionalSize is a process's, in KiB.
func proportionalSize(t *testing.T, pid int) int {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), "\nPss:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatalf("smaps_rollup: %q: %v", raw, err)
	}
	return kib
}

func readStatus(t *testing.T, path string) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Skipf("thread ended meanwhile: %v", err)
	}
	status := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		key, value, _ := strings.Cut(line, ":")
		status[key] = strings.Join(strings.Fields(value), " ")
	}
	return status
}

// mask is a set of capabilities as /proc shows it: 16 hex digits.
func mask(t *testing.T, names []string) string {
	t.Helper()
	var bits uint64
	for _, name := range names {
		value, err := cap.FromName("cap_" + strings.ToLower(name))
		if err != nil {
			t.Fatal(err)
		}
		bits |= 1 << value
	}
	return fmt.Sprintf("%016x", bits)
}

func checkNamespaces(t *testing.T, pid int, row privilege.Row) {
	t.Helper()
	own := func(kind string) bool {
		mine, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
		if err != nil {
			t.Fatal(err)
		}
		return mine != theirs
	}
	if got, want := own("net"), row.Network == privilege.NetworkNone; got != want {
		t.Errorf("has a network namespace of its own: %v, want %v", got, want)
	}
	if got, want := own("pid"), !row.HostPID; got != want {
		t.Errorf("has a pid namespace of its own: %v, want %v", got, want)
	}
}

func checkLimits(t *testing.T, parent string, pid int, row privilege.Row) {
	t.Helper()
	var stat unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &stat); err != nil {
		t.Fatal(err)
	}
	group := filepath.Join(parent, row.Name)
	limits := map[string]string{
		"memory/" + group + "/memory.limit_in_bytes": strconv.FormatInt(row.Limits.MemoryBytes(), 10),
		"cpu/" + group + "/cpu.cfs_quota_us":         strconv.Itoa(int(row.Limits.CPUs * 100_000)),
		"pids/" + group + "/pids.max":                strconv.FormatInt(row.Limits.PIDs, 10),
	}
	procs := "memory/" + group + "/cgroup.procs"
	if stat.Type == unix.CGROUP2_SUPER_MAGIC {
		limits = map[string]string{
			group + "/memory.max": strconv.FormatInt(row.Limits.MemoryBytes(), 10),
			group + "/cpu.max":    fmt.Sprintf("%d 100000", int(row.Limits.CPUs*100_000)),
			group + "/pids.max":   strconv.FormatInt(row.Limits.PIDs, 10),
		}
		procs = group + "/cgroup.procs"
	}
	for file, want := range limits {
		raw, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", file))
		if got := strings.TrimSpace(string(raw)); err != nil || got != want {
			t.Errorf("%s = %q, %v, want %s", file, got, err, want)
		}
	}
	raw, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", procs))
	if err != nil || !slices.Contains(strings.Fields(string(raw)), strconv.Itoa(pid)) {
		t.Errorf("pid %d is not in its cgroup: %q, %v", pid, raw, err)
	}
}

// runtimeGroups are those of the sockets of the runtimes: the test's containerd is root's, Docker's has a name.
func runtimeGroups() []string {
	groups := []string{"0"}
	if docker, err := user.LookupGroup("docker"); err == nil {
		groups = append(groups, docker.Gid)
	}
	return groups
}

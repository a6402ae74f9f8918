package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// TestKilledProcessesComeBack kills each process in turn and looks at a container meanwhile.
func TestKilledProcessesComeBack(t *testing.T) {
	n := startNode(t)
	c := startBystander(t, n.containerd)
	before := c.heartbeat()
	for name, old := range n.processes() {
		if err := syscall.Kill(old.PID, syscall.SIGKILL); err != nil {
			t.Fatalf("kill %s (pid %d): %v", name, old.PID, err)
		}
		killed := time.Now()
		binary := "palisade-" + name
		if !eventually(10*time.Second, func() bool { pid := n.childRunning(binary); return pid != 0 && pid != old.PID }) {
			t.Errorf("%s did not come back", name)
			continue
		}
		if took := time.Since(killed); took > time.Second {
			t.Errorf("%s was started again after %v, want under a second", name, took)
		}
		if !eventually(15*time.Second, func() bool { return n.processes()[name].Healthy }) {
			t.Errorf("%s is not healthy after its restart:\n%s", name, tail(n.stderr.String(), 10))
		}
	}
	if after := c.heartbeat(); after <= before {
		t.Errorf("container's heartbeat went from %d to %d: it stood still", before, after)
	}
	if !c.sameProcess() {
		t.Error("the container's first process is another one now")
	}
	report := n.demo() // and the whole path works again
	for _, attack := range report.Attacks {
		if !attack.Seen {
			t.Errorf("after all restarts %s is not seen", attack.Rule)
		}
	}
}

// TestFindingsSurviveAConsoleOutage takes the console away, makes findings, and gives it back.
func TestFindingsSurviveAConsoleOutage(t *testing.T) {
	n := startNode(t)
	n.demo()
	console := filepath.Join(n.bin, "palisade-console")
	if err := os.Rename(console, console+".away"); err != nil { // the supervisor cannot start it
		t.Fatal(err)
	}
	if err := syscall.Kill(n.processes()["console"].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var want []string
	for range 2 {
		for _, attack := range n.demo().Attacks {
			want = append(want, attack.FindingID)
		}
	}
	// The queue itself is killed too while it cannot deliver.
	if err := syscall.Kill(n.processes()["uplink"].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if answers("tcp", n.people) {
		t.Fatal("the console answers while it is away")
	}
	if err := os.Rename(console+".away", console); err != nil {
		t.Fatal(err)
	}
	if !eventually(20*time.Second, func() bool { return answers("tcp", n.people) && n.processes()["uplink"].Healthy }) {
		t.Fatalf("console or uplink did not come back:\n%s", tail(n.stderr.String(), 20))
	}
	b := n.consoleClient()
	local := byID(t, n.findings())
	var remote map[string]finding
	same := func() bool {
		remote = byID(t, b.findings()) // reports ids that come twice
		return slices.Equal(sortedKeys(remote), sortedKeys(local))
	}
	if !eventually(10*time.Second, same) {
		t.Errorf("node and console disagree:\nnode    %v\nconsole %v", sortedKeys(local), sortedKeys(remote))
	}
	for _, id := range want {
		if _, ok := remote[id]; !ok {
			t.Errorf("finding %s, made while the console was away, never arrived", id)
		}
	}
}

func sortedKeys(m map[string]finding) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// TestSupervisorsDeath kills `palisade up` itself: its processes must not outlive it, and the next one starts cleanly. What is
// loaded in the kernel does outlive it: an attack while there is no node at all is found when there is one again.
func TestSupervisorsDeath(t *testing.T) {
	n := startNode(t)
	startBystander(t, n.containerd)
	processes := n.processes()
	n.demo()
	if err := n.up.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for name, p := range processes {
		if !eventually(10*time.Second, func() bool { return !alive(p.PID, "palisade-"+name) }) {
			t.Errorf("%s (pid %d) outlives the supervisor", name, p.PID)
		}
	}
	<-n.ended
	n.containerd.Ctr(t, "tasks", "exec", "--exec-id", "attack", "bystander", "/bin/sh", "-c", "mkdir -p /etc; echo root >> /etc/shadow && cat /etc/shadow")
	n.stderr, n.stdout = &output{}, &output{}
	n.start()
	if report := n.demo(); len(report.Attacks) != 3 {
		t.Errorf("demo after the supervisor's death: %d attacks, want 3", len(report.Attacks))
	}
	all := n.findings()
	if !slices.ContainsFunc(all, func(f finding) bool {
		return f.Rule == "Sensitive file read" && f.Workload.ContainerID == "bystander"
	}) {
		t.Errorf("the attack while the node was down is not among %d findings", len(all))
	}
	if slices.ContainsFunc(all, func(f finding) bool { return f.Rule == "Collector restarted" }) {
		t.Error("a finding tells of a time in which nothing was seen, and there was none")
	}
}

// alive reports whether pid runs the binary.
func alive(pid int, binary string) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && filepath.Base(exe) == binary
}

// childRunning is the pid of the node's process that runs the binary, or 0.
func (n *node) childRunning(binary string) int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, entry := range entries {
		exe, err := os.Readlink(filepath.Join("/proc", entry.Name(), "exe"))
		var pid int
		if _, scanErr := fmt.Sscan(entry.Name(), &pid); err != nil || scanErr != nil || exe != filepath.Join(n.bin, binary) {
			continue
		}
		return pid
	}
	return 0
}

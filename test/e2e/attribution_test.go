package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// crowdSize is how many containers a crowd has: the 200, or fewer so that a machine with other work is done in time.
func crowdSize() int {
	if os.Getenv("PALISADE_TEST_FULL") != "" {
		return 200
	}
	return 40
}

// startCrowdNode starts a node with the crowd's rules.
func startCrowdNode(t *testing.T) (*node, *crowd) {
	t.Helper()
	n := layNode(t)
	rules := filepath.Join(filepath.Dir(n.run), "crowd.yaml") // where the correlator may read
	if err := os.WriteFile(rules, []byte(crowdRules), 0o644); err != nil {
		t.Fatal(err)
	}
	n.words = append(n.words, "--rules", rules)
	n.start()
	t.Cleanup(n.stop)
	return n, newCrowd(t, n.containerd)
}

// TestAttribution is done-when 2 of the correlator's issue, with the node's own binaries.
func TestAttribution(t *testing.T) {
	n, c := startCrowdNode(t)
	t.Run("B18 every event is its container's", func(t *testing.T) { n.attributesACrowd(t, c) })
	t.Run("an orphan keeps its ancestors, and has another parent", func(t *testing.T) { n.tellsAncestryFromParents(t, c) })
	t.Run("B18 what came before its container was known is amended", func(t *testing.T) { n.amendsWhatCameTooEarly(t, c) })
	t.Run("B17 a cgroup's name is no evidence", func(t *testing.T) { n.ignoresCgroupNames(t, c) })
}

// attributesACrowd starts containers of three namespaces, with ids that repeat across them, as fast as the machine can: most of them
// in one go after they were created, some as `ctr run` does it. Each acts from its first instruction on, before any runtime has told
// of it; a third is over at once, the others act again later. Whatever each did is told once, and as its own.
func (n *node) attributesACrowd(t *testing.T, c *crowd) {
	var all []*member
	for i := range crowdSize() * 5 / 4 {
		m := c.member(i)
		c.does(m, 1)
		c.does(m, 2)
		if i%3 != 1 {
			m.script += "busybox sleep 3\n"
			c.does(m, 3)
			m.script += "busybox sleep 1000\n"
		}
		all = append(all, m)
	}
	defer c.remove(all)
	prepared, rest := all[:crowdSize()], all[crowdSize():]
	c.each(prepared, c.create)
	began := time.Now()
	c.each(prepared, c.start)
	started := time.Now()
	c.each(rest, c.run)
	t.Logf("%d started in %v; %d created and started in %v", len(prepared), started.Sub(began).Round(time.Millisecond),
		len(rest), time.Since(started).Round(time.Millisecond))
	n.wantActs(t, c)
}

// ignoresCgroupNames lets containers move into cgroups of their own making whose names say that they are another's: within their own,
// and anywhere in the hierarchy, outside of every container's. What they do there is theirs.
func (n *node) ignoresCgroupNames(t *testing.T, c *crowd) {
	const hierarchy = "/sys/fs/cgroup"
	victim := c.member(900)
	c.does(victim, 1)
	victim.script += "busybox sleep 1000\n"
	all := []*member{victim}
	for i, place := range []string{"", "/palisade-b17/docker", "/palisade-b17/kubepods/besteffort/pod0", "/palisade-b17/" + victim.namespace} {
		m := c.member(901 + i)
		if place == "" {
			place = m.cgroup()
		}
		c.does(m, 1)
		m.mounts = []string{hierarchy}
		m.script += `
for top in /cgroup /cgroup/*; do
	[ -e $top/cgroup.procs ] || continue
	busybox mkdir -p $top` + place + "/" + victim.id + `
	echo $$ >$top` + place + "/" + victim.id + `/cgroup.procs
done 2>/dev/null
busybox cat /proc/self/cgroup >/acts/` + m.tag + "-cgroup\n"
		m.acts = append(m.acts, m.tag+"-cgroup") // an open too
		c.does(m, 2)
		c.does(m, 3)
		m.script += "busybox sleep 1000\n"
		all = append(all, m)
	}
	defer removeCgroups(t, "palisade-b17")
	defer c.remove(all)
	c.each(all, c.run)
	n.wantActs(t, c)
	for _, m := range all[1:] {
		raw, err := os.ReadFile(filepath.Join(c.root, "acts", m.tag+"-cgroup"))
		if err != nil || !inUnified(string(raw), victim.id) {
			t.Errorf("%s did not get into a cgroup with the victim's name, so this tests nothing: %v: %s", m.tag, err, raw)
		}
	}
}

// inUnified says whether a process is in a cgroup of that name of the cgroup2 hierarchy, by its /proc/self/cgroup.
func inUnified(raw, name string) bool {
	for line := range strings.Lines(raw) {
		if strings.HasPrefix(line, "0::") && strings.HasSuffix(strings.TrimSpace(line), "/"+name) {
			return true
		}
	}
	return false
}

// removeCgroups removes cgroups that a test's containers made at the top of each hierarchy.
func removeCgroups(t *testing.T, name string) {
	t.Helper()
	tops, err := filepath.Glob("/sys/fs/cgroup/*/" + name)
	if err != nil {
		t.Fatal(err)
	}
	for _, top := range append(tops, "/sys/fs/cgroup/"+name) {
		var directories []string
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error { // it may not be there
			if err == nil && d.IsDir() {
				directories = append(directories, path)
			}
			return nil
		})
		for _, directory := range slices.Backward(directories) {
			if !eventually(20*time.Second, func() bool { return os.Remove(directory) == nil }) {
				t.Errorf("cgroup %s is left", directory)
			}
		}
	}
}

// tellsAncestryFromParents leaves processes without their parents, in containers of their own pid namespace and of the host's: rules see
// who took them over, findings who started them, and both are the container's all the same.
func (n *node) tellsAncestryFromParents(t *testing.T, c *crowd) {
	inner, shared := c.member(800), c.member(801)
	shared.hostPIDs = true
	all := []*member{inner, shared}
	for _, m := range all {
		c.does(m, 1)
		c.leavesAnOrphan(m)
		m.script += "busybox sleep 1000\n"
	}
	defer c.remove(all)
	c.each(all, c.run)
	n.wantActs(t, c)
	for _, f := range n.findings() {
		for _, m := range all {
			if actOf(f) != m.orphan() {
				continue
			}
			// In its own namespace the first process takes orphans over, in the host's the container's shim, a subreaper.
			if of := fmt.Sprintf("ppid=%d", m.pid); strings.HasSuffix(f.Output, of) == m.hostPIDs {
				t.Errorf("output = %q, first process %d, in the host's pid namespace: %v", f.Output, m.pid, m.hostPIDs)
			}
			if m.hostPIDs && !strings.Contains(f.Output, fmt.Sprintf("ppid=%d", parentOf(t, m.pid))) {
				t.Errorf("output = %q, want the shim as the parent", f.Output)
			}
			if len(f.Ancestry) < 2 || f.Ancestry[0].Key.PID == m.pid || f.Ancestry[1].Key.PID != m.pid {
				t.Errorf("ancestry = %v, want the shell that has ended, then the first process, %d", f.Ancestry, m.pid)
			}
		}
	}
}

// parentOf is a live process's parent.
func parentOf(t *testing.T, pid uint32) (parent uint32) {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))[1], &parent); err != nil {
		t.Fatal(err)
	}
	return parent
}

// amendsWhatCameTooEarly takes the gate away while containers start and act. What they did is told all the same, as of a container that
// nobody knows; when there is a gate again it is told whose it was, to everybody who shows findings, once.
func (n *node) amendsWhatCameTooEarly(t *testing.T, c *crowd) {
	gate := filepath.Join(n.bin, "palisade-gate")
	if err := os.Rename(gate, gate+".away"); err != nil { // the supervisor cannot start it
		t.Fatal(err)
	}
	if err := syscall.Kill(n.processes()["gate"].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var all []*member
	for i := range 4 {
		m := c.member(950 + i)
		c.does(m, 1)
		m.script += "busybox sleep 1000\n"
		all = append(all, m)
	}
	defer c.remove(all)
	c.each(all, c.run)
	console := n.consoleClient()
	for where, findings := range map[string]func() []finding{"the node": n.findings, "the console": console.findings} {
		if !eventually(20*time.Second, func() bool { return ofState(findings(), all, "METADATA_STATE_PENDING") == 4*len(all) }) {
			t.Errorf("%s shows %d acts without metadata while there is no gate, want %d", where, ofState(findings(), all, "METADATA_STATE_PENDING"), 4*len(all))
		}
	}
	if err := os.Rename(gate+".away", gate); err != nil {
		t.Fatal(err)
	}
	n.wantActs(t, c)
	for where, findings := range map[string]func() []finding{"the node": n.findings, "the console": console.findings} {
		if !eventually(20*time.Second, func() bool { return ofState(findings(), all, "METADATA_STATE_KNOWN") == 4*len(all) }) {
			t.Errorf("%s shows %d acts with metadata when there is a gate again, want %d", where, ofState(findings(), all, "METADATA_STATE_KNOWN"), 4*len(all))
		}
		for _, f := range findings() {
			if acts(f, all) && !f.Amended {
				t.Errorf("%s: %s of %s is not marked as amended", where, f.Rule, f.Workload.ContainerID)
			}
		}
		byID(t, findings()) // each once
	}
}

// ofState is how many acts of the members are told with metadata in that state.
func ofState(findings []finding, all []*member, state string) (n int) {
	for _, f := range findings {
		if acts(f, all) && f.Workload.Metadata == state {
			n++
		}
	}
	return n
}

// acts says whether a finding is about what one of the members did.
func acts(f finding, all []*member) bool {
	return slices.ContainsFunc(all, func(m *member) bool { return slices.Contains(m.acts, actOf(f)) })
}

// wantActs waits until every act of every member that there ever was is told, and compares whose it is said to be.
func (n *node) wantActs(t *testing.T, c *crowd) {
	t.Helper()
	want := map[string]*member{}
	for _, m := range c.all {
		for _, act := range m.acts {
			want[act] = m
		}
	}
	var found map[string][]finding
	complete := func() bool {
		found = map[string][]finding{}
		whole := true
		for _, f := range n.findings() {
			if act := actOf(f); act != "" {
				found[act] = append(found[act], f)
				whole = whole && f.Workload.Metadata != "METADATA_STATE_PENDING"
			}
		}
		return whole && len(found) >= len(want)
	}
	eventually(30*time.Second, complete)
	seen, pending := 0, 0
	var wrong []string
	for act, m := range want {
		told := found[act]
		if len(told) != 1 {
			wrong = append(wrong, fmt.Sprintf("%s is told %d times, want once", act, len(told)))
			continue
		}
		seen++
		w := told[0].Workload
		if w.Metadata == "METADATA_STATE_PENDING" {
			pending++
		}
		if w.ContainerID != m.id || w.Runtime != m.namespace || w.Image != m.image || w.ContainerName != "app-"+m.tag {
			wrong = append(wrong, fmt.Sprintf("%s of %s in %s is attributed to %+v", act, m.image, m.namespace, w))
		}
	}
	for act := range found {
		if want[act] == nil {
			wrong = append(wrong, act+" was not done, and is told")
		}
	}
	slices.Sort(wrong)
	for _, line := range wrong[:min(len(wrong), 20)] {
		t.Error(line)
	}
	if all := n.findings(); slices.ContainsFunc(all, func(f finding) bool { return strings.HasPrefix(f.Rule, "Events lost") }) {
		t.Error("events were lost")
	}
	t.Logf("%d acts of %d containers, %d told once, %d of them without metadata; %d faults", len(want), len(c.all), seen, pending, len(wrong))
}

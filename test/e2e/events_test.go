package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// seen is a line of `palisade events -o json`.
type seen struct {
	Workload *struct {
		Workload struct {
			ContainerID string `json:"container_id"`
		} `json:"workload"`
	} `json:"workload"`
	Event *struct {
		Exec *struct {
			Argv []string `json:"argv"`
		} `json:"exec"`
		FileOpen *struct {
			File struct {
				Path string `json:"path"`
			} `json:"file"`
		} `json:"file_open"`
	} `json:"event"`
	Gap *struct {
		Reason string `json:"reason"`
	} `json:"gap"`
	End *struct{} `json:"end"`
}

// seen are a command's lines of JSON, those of incidents passed over.
func (n *node) seen(args ...string) (all []seen, code int) {
	n.t.Helper()
	out, code := n.palisade(append(args, "-o", "json")...)
	for line := range strings.Lines(out) {
		var s seen
		if strings.HasPrefix(line, `{"id"`) {
			continue
		}
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			n.t.Fatalf("%v: %q: %v", args, line, err)
		}
		all = append(all, s)
	}
	return all, code
}

// executed says whether a program was, with that word among its arguments.
func executed(all []seen, word string) bool {
	return slices.ContainsFunc(all, func(s seen) bool {
		return s.Event != nil && s.Event.Exec != nil && slices.Contains(s.Event.Exec.Argv, word)
	})
}

func ofGap(all []seen, reason string) bool {
	return slices.ContainsFunc(all, func(s seen) bool { return s.Gap != nil && s.Gap.Reason == reason })
}

// TestFlightRecorder shows what a container did, before, in and after an attack, when the container is gone and the correlator was killed.
func TestFlightRecorder(t *testing.T) {
	n := startNode(t)
	n.containerd.Image(t)
	n.containerd.Run(t, "flown", "/bin/sh", "-c", "while true; do busybox sleep 1; done")
	running := true
	remove := func() {
		if running {
			n.containerd.Remove(t, "flown")
		}
		running = false
	}
	t.Cleanup(remove)
	does := func(id, script string) {
		n.containerd.Ctr(t, "tasks", "exec", "--exec-id", id, "flown", "/bin/sh", "-c", script)
	}
	does("before", "busybox echo word-before")
	does("attack", "cat /etc/shadow >/dev/null; busybox echo word-attack stratum+tcp://192.0.2.1:3333")
	does("after", "busybox echo word-after")

	events := []string{"events", "--workload", "flown", "--since", "5m"}
	var all []seen
	code := 0
	if !eventually(10*time.Second, func() bool { all, code = n.seen(events...); return code == 0 && executed(all, "word-after") }) {
		t.Fatalf("palisade events: exit code %d, no exec of word-after in %d lines", code, len(all))
	}
	for _, word := range []string{"word-before", "word-attack"} {
		if !executed(all, word) {
			t.Errorf("palisade events has no exec of %s", word)
		}
	}
	if all[0].Workload == nil || all[0].Workload.Workload.ContainerID != "flown" || all[len(all)-1].End == nil {
		t.Errorf("first and last line are %+v and %+v, want whose the events are and an end", all[0], all[len(all)-1])
	}
	if out, code := n.palisade(events...); code != 0 || !strings.Contains(out, "busybox echo word-before") {
		t.Errorf("palisade events as text: exit code %d, %s", code, out)
	} else {
		t.Logf("palisade %s\n%s", strings.Join(events, " "), tail(out, 12))
	}
	n.narrowsEvents(t)
	incident := n.carriesItsSlice(t)

	remove()
	n.killCorrelator(t)
	if !eventually(10*time.Second, func() bool { all, code = n.seen(events...); return code == 0 }) || !executed(all, "word-before") || !ofGap(all, "MISSED_REASON_CUT") {
		t.Errorf("after a kill of the correlator: exit code %d, %d lines, without word-before or that the file was cut off", code, len(all))
	}
	if all, code := n.seen("incidents", incident, "--events"); code != 0 || !executed(all, "word-attack") {
		t.Errorf("after a kill of the correlator the incident's slice is exit code %d, %d lines", code, len(all))
	}
	n.keepsEventsToItself(t)
}

// narrowsEvents asks for some events, and for what there is not.
func (n *node) narrowsEvents(t *testing.T) {
	t.Helper()
	some, code := n.seen("events", "--workload", "flown", "--kind", "file_open")
	opened, other := false, false
	for _, s := range some {
		if s.Event != nil {
			opened = opened || s.Event.FileOpen != nil && s.Event.FileOpen.File.Path == "/etc/shadow"
			other = other || s.Event.FileOpen == nil
		}
	}
	if code != 0 || !opened || other {
		t.Errorf("palisade events --kind file_open: exit code %d, %d lines, want the open of /etc/shadow and nothing else", code, len(some))
	}
	if out, code := n.palisade("events"); code != 0 || !strings.Contains(out, "flown") || !strings.Contains(out, "host") {
		t.Errorf("palisade events: exit code %d, want a table with flown and host: %s", code, out)
	}
	for _, tt := range []struct {
		args []string
		want int
	}{
		{[]string{"events", "--workload", "nobody"}, 1},
		{[]string{"events", "--workload", "flown", "--since", "yesterday"}, 2},
		{[]string{"events", "--workload", "flown", "--kind", "opne"}, 2},
		{[]string{"events", "--since", "5m"}, 2},
		{[]string{"incidents", "no-such-incident", "--events"}, 1},
	} {
		if out, code := n.palisade(tt.args...); code != tt.want || out != "" {
			t.Errorf("palisade %v: exit code %d, want %d and no output: %s", tt.args, code, tt.want, out)
		}
	}
}

// carriesItsSlice returns the id of the incident of the miner.
func (n *node) carriesItsSlice(t *testing.T) (id string) {
	t.Helper()
	type incident struct {
		ID       string         `json:"id"`
		Workload string         `json:"workload"`
		Rules    map[string]int `json:"rules"`
	}
	var out string
	if !eventually(10*time.Second, func() bool {
		out, _ = n.palisade("incidents", "-o", "json")
		for decoder := json.NewDecoder(strings.NewReader(out)); decoder.More(); {
			var i incident
			if err := decoder.Decode(&i); err != nil {
				t.Fatal(err)
			}
			if i.Rules["Miner started"] > 0 && strings.Contains(i.Workload, "flown") {
				id = i.ID
			}
		}
		return id != ""
	}) {
		t.Fatalf("no incident of the miner: %s", out)
	}
	slice := func() string {
		files, _ := filepath.Glob(filepath.Join(n.state, "correlator", "events", "*.incident"))
		return strings.Join(files, " ")
	}
	if !eventually(20*time.Second, func() bool { return slice() != "" }) {
		t.Error("nothing was set aside for the incident")
	}
	all, code := n.seen("incidents", id, "--events")
	if code != 0 || !executed(all, "word-before") || !executed(all, "word-attack") || !executed(all, "word-after") {
		t.Errorf("palisade incidents %s --events: exit code %d, %d lines, want what was before, in and after the attack", id, code, len(all))
	}
	return id
}

// killCorrelator returns when another one answers.
func (n *node) killCorrelator(t *testing.T) {
	t.Helper()
	pid := n.processes()["correlator"].PID
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !eventually(20*time.Second, func() bool { p := n.processes()["correlator"]; return p.Healthy && p.PID != pid }) {
		t.Fatal("the correlator did not come back")
	}
}

// keepsEventsToItself looks at who may read the files.
func (n *node) keepsEventsToItself(t *testing.T) {
	t.Helper()
	directory := filepath.Join(n.state, "correlator", "events")
	files, err := os.ReadDir(directory)
	if err != nil || len(files) == 0 {
		t.Fatalf("files = %v, %v", files, err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			continue // deleted meanwhile
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; info.Mode().Perm() != 0o600 || owner != 10002 {
			t.Errorf("%s has mode %v and owner %d, want 0600 and the correlator's", f.Name(), info.Mode(), owner)
		}
	}
	if info, err := os.Stat(directory); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v, %v, want mode 0700", directory, info.Mode(), err)
	}
}

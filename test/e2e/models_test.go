package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// dayWork is what the learned image does, over and over: programs, a file in one directory, a port.
const dayWork = `mkdir -p /var/log/web
while true; do date >>/var/log/web/access.log; busybox nc -l -p 8080 & sleep 0.5; kill $!; done`

// TestModels is done-when 5 of the correlator's issue: a learned image gives nothing when its load repeats, and a finding for a new
// program, a new written directory and a new port.
func TestModels(t *testing.T) {
	n := layNode(t)
	n.words = []string{"--models", "--models-learn", "8s", "--models-dry-run", "3s"}
	n.start()
	t.Cleanup(n.stop)
	digest := n.containerd.Image(t)
	run := func(id string) {
		n.containerd.Run(t, id, "/bin/sh", "-c", dayWork)
		t.Cleanup(func() { n.containerd.Remove(t, id) })
	}
	run("teacher")
	if !eventually(60*time.Second, func() bool { return n.model(digest).State == "active" }) {
		t.Fatalf("model = %+v after a minute, want active", n.model(digest))
	}
	run("repeats")
	n.containerd.Ctr(t, "tasks", "exec", "--exec-id", "control", "repeats", "/bin/sh", "-c", "busybox sleep 5")
	for _, f := range n.unlearned() {
		t.Errorf("the same load again, and one exec of a known program: %s", f.Output)
	}
	n.containerd.Ctr(t, "tasks", "exec", "--exec-id", "attack", "repeats", "/bin/sh", "-c",
		"mkdir -p /opt/kit && cp /bin/busybox /opt/kit/evil && /opt/kit/evil true; busybox nc -l -p 4444 & busybox sleep 1; kill $!")
	for rule, what := range map[string]string{
		"Unlearned program": "/opt/kit/evil", "Unlearned written directory": "/opt/kit", "Unlearned listening port": "tcp/4444",
	} {
		if !eventually(10*time.Second, func() bool {
			return slices.ContainsFunc(n.unlearned(), func(f finding) bool {
				return f.Rule == rule && strings.Contains(f.Output, what) && strings.Contains(f.Output, "learned: ") && f.Workload.ContainerID == "repeats"
			})
		}) {
			t.Errorf("no finding %q of %s; there are %+v", rule, what, n.unlearned())
		}
	}
	if out, code := n.palisade("models", "export", digest); code != 0 || !strings.Contains(out, "image_digest: "+digest) || !strings.Contains(out, "/var/log/web") {
		t.Errorf("palisade models export: exit code %d, output %s", code, out)
	}
}

// modelSummary is a model of `palisade models list -o json`.
type modelSummary struct {
	Digest string `json:"image_digest"`
	State  string `json:"state"`
}

func (n *node) model(digest string) modelSummary {
	n.t.Helper()
	out, code := n.palisade("models", "list", "-o", "json")
	var answer struct {
		Models []modelSummary `json:"models"`
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil || code != 0 {
		n.t.Fatalf("palisade models list: exit code %d, %v: %s", code, err, out)
	}
	for _, m := range answer.Models {
		if m.Digest == digest {
			return m
		}
	}
	return modelSummary{}
}

// unlearned are the findings that models made.
func (n *node) unlearned() []finding {
	n.t.Helper()
	return slices.DeleteFunc(n.findings(), func(f finding) bool { return !strings.HasPrefix(f.Rule, "Unlearned ") })
}

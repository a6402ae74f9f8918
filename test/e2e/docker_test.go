package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/dockertest"
)

// TestDockerThroughTheGate: what happens in a container of Docker's has Docker's name and image, though the only process
// that may open Docker's socket is the gate.
func TestDockerThroughTheGate(t *testing.T) {
	daemon := dockertest.Start(t)
	daemon.Image(t, dockertest.ImageName)
	n := layNodeOn(t, daemon.Containerd)
	n.docker = daemon.Socket
	n.start()
	t.Cleanup(n.stop)
	n.follows("docker")
	id := daemon.Docker(t, "run", "--detach", "--network", "none", "--name", "intruder", dockertest.ImageName,
		"/bin/sh", "-c", "touch /bin/dropped; sleep 1000")
	var found finding
	if !eventually(10*time.Second, func() bool {
		for _, f := range n.findings() {
			if f.Rule == "Write below a binary directory" && f.Workload.ContainerID == id {
				found = f
				return true
			}
		}
		return false
	}) {
		t.Fatalf("no finding about container %s: %v", id, n.findings())
	}
	if found.Workload.Image != dockertest.ImageName {
		t.Errorf("finding's image = %q, want Docker's word, %s", found.Workload.Image, dockertest.ImageName)
	}
	status, _ := n.palisade("status", "gate")
	correlator, _ := n.palisade("status", "correlator")
	if !strings.Contains(status, "answers, version") || !strings.Contains(status, "not on this node") || !strings.Contains(correlator, "runtime docker") {
		t.Errorf("status of the gate and the correlator does not tell of the runtimes:\n%s\n%s", status, correlator)
	}
}

// follows waits until the correlator follows a runtime: what it does not follow nobody describes.
func (n *node) follows(runtime string) {
	n.t.Helper()
	var status string
	if !eventually(10*time.Second, func() bool {
		status, _ = n.palisade("status", "correlator")
		return slices.ContainsFunc(strings.Split(status, "\n"), func(line string) bool {
			return strings.Contains(line, "runtime "+runtime) && strings.HasSuffix(strings.TrimSpace(line), "followed")
		})
	}) {
		n.t.Fatalf("%s is not followed: %s", runtime, status)
	}
}

package e2e

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/containerdtest"
	"github.com/palisade-sec/palisade/internal/runcshim"
)

// TestNRIRefuses: where no shim stands in runC's place a runtime that speaks NRI has the same said, and leaves no trace when it is taken out.
func TestNRIRefuses(t *testing.T) {
	if _, err := os.Lstat(runcshim.NRIDirectory); err == nil {
		t.Skip("this machine has the NRI plugin installed")
	}
	g := admitting(t, strings.Replace(noPrivileged, "    message:", "    match: {namespaces: [prod]}\n    on_error: deny\n    message:", 1))
	daemon, digest, socket := containerdtest.StartNRI(t)
	defer removeCgroups(t, containerdtest.Namespace)
	g.on(daemon)
	g.install("--mode", "nri", "--nri-socket", socket)
	uninstall := func() {
		g.shim("uninstall")
		if _, err := os.Lstat(runcshim.NRIDirectory); err == nil {
			t.Errorf("%s is left", runcshim.NRIDirectory)
		}
	}
	t.Cleanup(uninstall)
	g.inForce()
	p := containerdtest.StartPod(t, daemon, containerdtest.Pod{Name: "shop", UID: "b0b0b0b0-0000-4000-8000-000000000061", Privileged: true})
	defer p.Remove()
	id, err := p.Try("strong", nil, "sleep 1000")
	told := ""
	if err != nil {
		told = err.Error()
	}
	g.refused("StartContainer", told, err)
	t.Logf("StartContainer says:\n%s", told)
	if w := g.finds("StartContainer", id).Workload; w.PodNamespace != "prod" || w.ContainerName != "strong" || w.ImageDigest != digest {
		t.Errorf("the finding's workload = %+v, want the CRI's words", w)
	}
	other := containerdtest.StartPod(t, daemon, containerdtest.Pod{Name: "lab", UID: "b0b0b0b0-0000-4000-8000-000000000062"})
	defer other.Remove()
	weak := other.Run("weak", nil, "sleep 1000")

	// Who uses containerd past its CRI meets no NRI: that is a container that went around, and the pods did not.
	real, err := exec.LookPath("runc")
	if err != nil {
		t.Fatal(err)
	}
	daemon.Image(t)
	daemon.RunWith(t, []string{"--runc-binary", real}, "around", "/bin/sleep", "1000")
	defer daemon.Remove(t, "around")
	if !eventually(20*time.Second, func() bool { return slices.Contains(g.around(), "around") }) {
		t.Errorf("no finding about the container that went around: %+v", g.findings())
	}
	for _, passed := range []string{p.Sandbox, other.Sandbox, weak} {
		if slices.Contains(g.around(), passed) {
			t.Errorf("a finding says that %s went around, which passed", passed)
		}
	}

	uninstall()
	if _, err := p.Try("again", nil, "sleep 1000"); err != nil {
		t.Errorf("a container after the plugin was taken out: %v", err)
	}
}

package e2e

import (
	"maps"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/containerdtest"
)

// TestCRI: what happens in a pod's container is told with the pod's name, namespace, uid and labels, and with the image's reference and
// digest, whether the kubelet made it, which labels containers, or somebody else, who does not.
func TestCRI(t *testing.T) {
	daemon, digest := containerdtest.StartCRI(t)
	n := layNodeOn(t, daemon)
	n.start()
	t.Cleanup(n.stop)
	defer removeCgroups(t, containerdtest.Namespace)
	const script = "touch /bin/dropped; sleep 1000"
	labels := map[string]string{"app": "web", "tier": "front"}
	kubelet := map[string]string{"io.kubernetes.pod.name": "web-0", "io.kubernetes.pod.namespace": "prod"}
	maps.Copy(kubelet, labels)
	for _, tt := range []struct {
		pod, uid, container string
		pods, containers    map[string]string
	}{
		{"web-0", "b0b0b0b0-0000-4000-8000-000000000001", "app", kubelet, map[string]string{"io.kubernetes.container.name": "app", "io.kubernetes.pod.name": "web-0", "io.kubernetes.pod.namespace": "prod"}},
		{"plain", "b0b0b0b0-0000-4000-8000-000000000002", "tool", labels, nil},
	} {
		p := containerdtest.StartPod(t, daemon, containerdtest.Pod{Name: tt.pod, UID: tt.uid, Labels: tt.pods})
		defer p.Remove()
		id := p.Run(tt.container, tt.containers, script)
		var got finding
		if !eventually(10*time.Second, func() bool {
			for _, f := range n.findings() {
				if f.Rule == "Write below a binary directory" && f.Workload.ContainerID == id {
					got = f
				}
			}
			return got.ID != ""
		}) {
			t.Errorf("no finding about container %s of pod %s: %+v", id, tt.pod, n.findings())
			continue
		}
		w := got.Workload
		if w.PodName != tt.pod || w.PodNamespace != "prod" || w.PodUID != tt.uid || w.ContainerName != tt.container {
			t.Errorf("pod %s: workload = %+v, want pod prod/%s, its uid, container %s", tt.pod, w, tt.pod, tt.container)
		}
		if w.Image != containerdtest.ImageName || w.ImageDigest != digest {
			t.Errorf("pod %s: image = %s@%s, want %s@%s", tt.pod, w.Image, w.ImageDigest, containerdtest.ImageName, digest)
		}
		if len(w.PodLabels) != 2 || w.PodLabels["app"] != "web" || w.PodLabels["tier"] != "front" {
			t.Errorf("pod %s: labels = %v, want %v", tt.pod, w.PodLabels, labels)
		}
	}
}

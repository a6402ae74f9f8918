package e2e

import (
	"context"
	"maps"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/palisade-sec/palisade/internal/containerdtest"
)

// pod is what the kubelet asks a CRI for.
type pod struct {
	t       *testing.T
	cri     runtimeapi.RuntimeServiceClient
	config  *runtimeapi.PodSandboxConfig
	sandbox string
}

// startPod makes a pod on the host's network, for which no CNI is needed.
func startPod(t *testing.T, daemon *containerdtest.Daemon, name, uid string, labels map[string]string) *pod {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+daemon.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := &pod{t: t, cri: runtimeapi.NewRuntimeServiceClient(conn)}
	p.config = &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Uid: uid, Namespace: "prod"},
		Labels:   labels, LogDirectory: t.TempDir(),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: "/" + containerdtest.Namespace + "/pod" + uid,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
			},
		},
	}
	var answer *runtimeapi.RunPodSandboxResponse
	if !eventually(20*time.Second, func() bool { // the CRI is served a little later than the socket
		answer, err = p.cri.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: p.config})
		return err == nil
	}) {
		t.Fatalf("RunPodSandbox: %v", err)
	}
	p.sandbox = answer.GetPodSandboxId()
	return p
}

// remove ends the pod's containers with it.
func (p *pod) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := p.cri.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.sandbox}); err != nil {
		p.t.Errorf("StopPodSandbox: %v", err)
	}
	if _, err := p.cri.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.sandbox}); err != nil {
		p.t.Errorf("RemovePodSandbox: %v", err)
	}
}

// run starts a container in the pod.
func (p *pod) run(name string, labels map[string]string, script string) (id string) {
	p.t.Helper()
	made, err := p.cri.CreateContainer(p.t.Context(), &runtimeapi.CreateContainerRequest{
		PodSandboxId: p.sandbox, SandboxConfig: p.config,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: name}, Labels: labels, LogPath: name + ".log",
			Image: &runtimeapi.ImageSpec{Image: containerdtest.ImageName}, Command: []string{"/bin/sh", "-c", script},
			Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: p.config.GetLinux().GetSecurityContext().GetNamespaceOptions(),
			}},
		},
	})
	if err != nil {
		p.t.Fatalf("CreateContainer: %v", err)
	}
	if _, err := p.cri.StartContainer(p.t.Context(), &runtimeapi.StartContainerRequest{ContainerId: made.GetContainerId()}); err != nil {
		p.t.Fatalf("StartContainer: %v", err)
	}
	return made.GetContainerId()
}

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
		p := startPod(t, daemon, tt.pod, tt.uid, tt.pods)
		defer p.remove()
		id := p.run(tt.container, tt.containers, script)
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
		if w.PodName != tt.pod || w.PodNamespace != "prod" || w.PodUID != p.config.GetMetadata().GetUid() || w.ContainerName != tt.container {
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

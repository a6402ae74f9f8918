package containerdtest

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Pod is what the kubelet asks a CRI for. It is in the namespace prod.
type Pod struct {
	Name, UID string
	Labels    map[string]string
	// Privileged makes it and its containers so.
	Privileged bool
}

// RunningPod is a pod's sandbox, made by a CRI.
type RunningPod struct {
	// Sandbox is the sandbox's id.
	Sandbox string

	t      *testing.T
	cri    runtimeapi.RuntimeServiceClient
	config *runtimeapi.PodSandboxConfig
}

// StartPod makes a pod on the host's network, for which no CNI is needed. The daemon must be StartCRI's.
func StartPod(t *testing.T, d *Daemon, pod Pod) *RunningPod {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+d.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := &RunningPod{t: t, cri: runtimeapi.NewRuntimeServiceClient(conn)}
	p.config = &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: pod.Name, Uid: pod.UID, Namespace: "prod"},
		Labels:   pod.Labels, LogDirectory: t.TempDir(),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: "/" + Namespace + "/pod" + pod.UID,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				Privileged:       pod.Privileged,
				NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
			},
		},
	}
	for deadline := time.Now().Add(20 * time.Second); p.Sandbox == ""; { // the CRI is served a little later than the socket
		answer, err := p.cri.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: p.config})
		if err != nil && time.Now().After(deadline) {
			t.Fatalf("RunPodSandbox: %v", err)
		}
		p.Sandbox = answer.GetPodSandboxId()
		if err != nil {
			time.Sleep(50 * time.Millisecond)
		}
	}
	return p
}

// Remove ends the pod's containers with it.
func (p *RunningPod) Remove() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := p.cri.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.Sandbox}); err != nil {
		p.t.Errorf("StopPodSandbox: %v", err)
	}
	if _, err := p.cri.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.Sandbox}); err != nil {
		p.t.Errorf("RemovePodSandbox: %v", err)
	}
}

// Run starts a shell script as a container of ImageName in the pod, and returns the container's id.
func (p *RunningPod) Run(name string, labels map[string]string, script string) (id string) {
	p.t.Helper()
	id, err := p.Try(name, labels, script)
	if err != nil {
		p.t.Fatalf("StartContainer: %v", err)
	}
	return id
}

// Try is Run for a container whose start may fail.
func (p *RunningPod) Try(name string, labels map[string]string, script string) (id string, err error) {
	p.t.Helper()
	made, err := p.cri.CreateContainer(p.t.Context(), &runtimeapi.CreateContainerRequest{
		PodSandboxId: p.Sandbox, SandboxConfig: p.config,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: name}, Labels: labels, LogPath: name + ".log",
			Image: &runtimeapi.ImageSpec{Image: ImageName}, Command: []string{"/bin/sh", "-c", script},
			Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				Privileged:       p.config.GetLinux().GetSecurityContext().GetPrivileged(),
				NamespaceOptions: p.config.GetLinux().GetSecurityContext().GetNamespaceOptions(),
			}},
		},
	})
	if err != nil {
		p.t.Fatalf("CreateContainer: %v", err)
	}
	_, err = p.cri.StartContainer(p.t.Context(), &runtimeapi.StartContainerRequest{ContainerId: made.GetContainerId()})
	return made.GetContainerId(), err
}

// Stop ends a container of the pod, with no time to do so by itself.
func (p *RunningPod) Stop(id string) {
	p.t.Helper()
	if _, err := p.cri.StopContainer(p.t.Context(), &runtimeapi.StopContainerRequest{ContainerId: id}); err != nil {
		p.t.Fatalf("StopContainer: %v", err)
	}
}

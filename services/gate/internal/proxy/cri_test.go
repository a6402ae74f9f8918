package proxy

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	processv1 "github.com/palisade-sec/palisade/api/palisade/process/v1"
	"github.com/palisade-sec/palisade/internal/containerdtest"
)

func TestEachTableReachesItsOwnRuntime(t *testing.T) {
	containerd, crio := startFake(t, echo), startFake(t, echo)
	g := startGateOn(t, containerd.socket, crio.socket)
	ctx := metadata.AppendToOutgoingContext(t.Context(), namespaceKey, "k8s.io", "authorization", "secret")
	for _, method := range slices.Concat(containerdMethods, criMethods) {
		if _, err := g.call(ctx, method, nil); err != nil {
			t.Errorf("call(%q) error = %v, want nil", method, err)
		}
	}
	if got := containerd.calls(); !slices.Equal(got, containerdMethods) {
		t.Errorf("reached containerd: %q, want %q", got, containerdMethods)
	}
	if got := crio.calls(); !slices.Equal(got, criMethods) {
		t.Errorf("reached CRI-O: %q, want %q", got, criMethods)
	}
	for _, key := range []string{namespaceKey, "authorization"} {
		if got := crio.metadata().Get(key); got != nil {
			t.Errorf("%s reached CRI-O: %q", key, got)
		}
	}
}

func TestCRIOThatIsNotThere(t *testing.T) {
	fake := startFake(t, echo)
	missing := filepath.Join(shortDir(t), "crio.sock")
	g := startGateOn(t, fake.socket, missing)
	_, err := runtimeapi.NewRuntimeServiceClient(g).Version(t.Context(), &runtimeapi.VersionRequest{})
	if status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), missing) {
		t.Errorf("Version() error = %v, want Unavailable without a path", err)
	}
	answer := &processv1.GetStatusResponse{Healthy: true}
	cfg := Config{Socket: missing, Timeout: time.Second}
	if g.proxy.DescribeCRIO(t.Context(), cfg, answer) || !answer.GetHealthy() || answer.GetFacts()[0].GetValue() != "not on this node" {
		t.Errorf("DescribeCRIO() = %v, want healthy and not on this node", answer)
	}
}

// TestRealCRI looks through the window at the CRI of a real containerd, in CRI-O's place: what reads is answered, what would start, end
// or enter a pod is refused and counted, and the pod lives on.
func TestRealCRI(t *testing.T) {
	daemon, _ := containerdtest.StartCRI(t)
	g := startGateOn(t, filepath.Join(shortDir(t), "no.sock"), daemon.Socket)
	pod := containerdtest.StartPod(t, daemon, containerdtest.Pod{Name: "victim", UID: "b0b0b0b0-0000-4000-8000-000000000010"})
	defer pod.Remove()
	id := pod.Run("app", nil, "sleep 1000")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cri := runtimeapi.NewRuntimeServiceClient(g)

	list, err := cri.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil || len(list.GetContainers()) != 1 || list.GetContainers()[0].GetId() != id {
		t.Fatalf("ListContainers() = %v, %v, want the victim", list, err)
	}
	found, err := cri.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil || !strings.Contains(found.GetInfo()["info"], `"pid"`) {
		t.Fatalf("ContainerStatus() = %v, %v, want a pid", found, err)
	}
	answer := &processv1.GetStatusResponse{Healthy: true}
	cfg := Config{Socket: daemon.Socket, Timeout: 5 * time.Second}
	if !g.proxy.DescribeCRIO(ctx, cfg, answer) || !strings.HasPrefix(answer.GetFacts()[0].GetValue(), "answers, containerd ") {
		t.Errorf("DescribeCRIO() = %v, want its name and version", answer)
	}

	before := g.proxy.metrics.refusals.Load()
	calls := criRefusals(ctx, g, pod.Sandbox, id)
	for name, call := range calls {
		if err := call(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: error = %v, want PermissionDenied", name, err)
		}
	}
	if got, want := g.proxy.metrics.refusals.Load()-before, uint64(len(calls)); got != want {
		t.Errorf("refused = %d, want %d", got, want)
	}
	after, err := cri.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil || after.GetStatus().GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("after the refusals, ContainerStatus() = %v, %v, want the victim running", after.GetStatus(), err)
	}
}

// criRefusals calls what would start, end, change or enter the victim, or bring an image.
func criRefusals(ctx context.Context, g grpc.ClientConnInterface, sandbox, id string) map[string]func() error {
	cri, images := runtimeapi.NewRuntimeServiceClient(g), runtimeapi.NewImageServiceClient(g)
	return map[string]func() error{
		"ExecSync": func() error {
			_, err := cri.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"/bin/true"}})
			return err
		},
		"Exec": func() error {
			_, err := cri.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"/bin/sh"}, Stdin: true, Stdout: true})
			return err
		},
		"Attach": func() error {
			_, err := cri.Attach(ctx, &runtimeapi.AttachRequest{ContainerId: id, Stdin: true})
			return err
		},
		"CreateContainer": func() error {
			_, err := cri.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox})
			return err
		},
		"UpdateContainerResources": func() error {
			_, err := cri.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id})
			return err
		},
		"StopContainer": func() error {
			_, err := cri.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id})
			return err
		},
		"RemovePodSandbox": func() error {
			_, err := cri.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox})
			return err
		},
		"PortForward": func() error {
			_, err := cri.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: sandbox})
			return err
		},
		"RemoveImage": func() error {
			_, err := images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: containerdtest.ImageName}})
			return err
		},
		"PullImage": func() error {
			_, err := images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: containerdtest.ImageName}})
			return err
		},
	}
}

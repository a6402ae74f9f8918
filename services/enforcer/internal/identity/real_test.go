package identity

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/palisade-sec/palisade/internal/containerdtest"
	"github.com/palisade-sec/palisade/internal/dockertest"
	"github.com/palisade-sec/palisade/internal/rpc"
)

// ask returns a finder that asks these runtimes, by the name of the gate's window on each. What the gate lets through its own tests say.
func ask(t *testing.T, runtimes map[string]string) *Finder {
	t.Helper()
	directory, err := os.MkdirTemp("", "idt") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	sockets := rpc.Sockets{Directory: directory, UIDs: rpc.UIDs{"gate": uint32(os.Getuid())}} //nolint:gosec // never negative
	for window, socket := range runtimes {
		if err := os.Symlink(socket, sockets.Path(window)); err != nil {
			t.Fatal(err)
		}
	}
	finder, err := New(sockets)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = finder.Close() })
	return finder
}

func find(t *testing.T, f *Finder, bundle, id string) Container {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got, err := f.Find(ctx, bundle, id)
	if err != nil {
		t.Fatalf("Find(%s, %s) = %v", bundle, id, err)
	}
	return got
}

func bundle(namespace, id string) string {
	return filepath.Join("/run/containerd", containerdTasks, namespace, id)
}

func TestContainerdTellsOfAContainerThatDoesNotRunYet(t *testing.T) {
	daemon := containerdtest.Start(t)
	digest := daemon.Image(t)
	daemon.Ctr(t, "container", "create", "--label", "team=blue", containerdtest.ImageName, "web", "/bin/true")
	finder := ask(t, map[string]string{"gate": daemon.Socket})
	got := find(t, finder, bundle(containerdtest.Namespace, "web"), "web")
	if got.Image != containerdtest.ImageName || got.Digest != digest || got.Runtime != containerdtest.Namespace || got.Labels["team"] != "blue" ||
		got.Namespace != "" {
		t.Errorf("Find() = %+v, want image %s@%s, team blue, no Kubernetes namespace", got, containerdtest.ImageName, digest)
	}
	for _, wrong := range []string{
		bundle(containerdtest.Namespace, "nobody"), bundle("other", "web"), "/tmp/web", "/" + containerdTasks + "/web", "web", "", "/",
	} {
		if got, err := finder.Find(t.Context(), wrong, filepath.Base(wrong)); !errors.Is(err, ErrUnknown) {
			t.Errorf("Find(%q) = %+v, %v, want %v", wrong, got, err, ErrUnknown)
		}
	}
	daemon.Ctr(t, "image", "rm", containerdtest.ImageName)
	if got := find(t, finder, bundle(containerdtest.Namespace, "web"), "web"); got.Image != containerdtest.ImageName || got.Digest != "" {
		t.Errorf("Find() = %+v for an image that is gone, want its name and no digest", got)
	}
}

// A label says which namespace a pod is in only where the CRI writes labels: elsewhere whoever runs a container does.
func TestNamespacesAreTheCRIsAlone(t *testing.T) {
	daemon := containerdtest.Start(t)
	daemon.Image(t)
	daemon.Ctr(t, "container", "create", "--label", "io.kubernetes.pod.namespace=kube-system", containerdtest.ImageName, "liar", "/bin/true")
	got := find(t, ask(t, map[string]string{"gate": daemon.Socket}), bundle(containerdtest.Namespace, "liar"), "liar")
	if got.Namespace != "" {
		t.Errorf("Find() = %+v, want no namespace", got)
	}
}

func TestTheCRITellsOfPods(t *testing.T) {
	daemon, digest := containerdtest.StartCRI(t)
	pod := containerdtest.StartPod(t, daemon, containerdtest.Pod{
		Name: "web", UID: "b0b0b0b0-0000-4000-8000-000000000031",
		Labels: map[string]string{"app": "shop", "io.kubernetes.pod.namespace": "prod", "io.kubernetes.pod.name": "web"},
	})
	t.Cleanup(pod.Remove)
	id := pod.Run("front", map[string]string{"io.kubernetes.container.name": "front", "io.kubernetes.pod.namespace": "prod"}, "sleep 1000")
	got := find(t, ask(t, map[string]string{"gate": daemon.Socket}), bundle("k8s.io", id), id)
	if got.Namespace != "prod" || got.Name != "front" || got.Labels["app"] != "shop" || !strings.Contains(got.Image, "palisade") || got.Digest != digest {
		t.Errorf("Find() = %+v, want container front of a pod of prod, app shop, %s", got, digest)
	}
}

// Who makes pods without a kubelet, as crictl does, sets no labels: the CRI's annotations tell as well.
func TestTheCRITellsOfPodsWithoutLabels(t *testing.T) {
	daemon, _ := containerdtest.StartCRI(t)
	pod := containerdtest.StartPod(t, daemon, containerdtest.Pod{Name: "web", UID: "b0b0b0b0-0000-4000-8000-000000000032"})
	t.Cleanup(pod.Remove)
	id := pod.Run("front", nil, "sleep 1000")
	if got := find(t, ask(t, map[string]string{"gate": daemon.Socket}), bundle("k8s.io", id), id); got.Namespace != "prod" || got.Name != "front" {
		t.Errorf("Find() = %+v, want container front of a pod of prod", got)
	}
}

func TestDockerTellsOfAContainerThatDoesNotRunYet(t *testing.T) {
	daemon := dockertest.Start(t)
	image := daemon.Image(t, dockertest.ImageName)
	id := daemon.Docker(t, "create", "--network", "none", "--name", "web", "--label", "team=blue", dockertest.ImageName, "/bin/true")
	finder := ask(t, map[string]string{"gate-docker": daemon.Socket})
	got := find(t, finder, bundle(dockerNamespace, id), id)
	want := Container{Runtime: "docker", Name: "web", Image: dockertest.ImageName, Digest: image, Labels: map[string]string{"team": "blue"}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Container{}, "DiffIDs")); diff != "" || len(got.DiffIDs) != 1 {
		t.Errorf("Find() (-want +got):\n%s\n%d layers, want 1", diff, len(got.DiffIDs))
	}
	byID := daemon.Docker(t, "create", "--network", "none", image, "/bin/true")
	if got := find(t, finder, bundle(dockerNamespace, byID), byID); got.Image != "" || got.Digest != image {
		t.Errorf("Find() = %+v for one that was created by the image's id, want no name, and %s", got, image)
	}
	if _, err := finder.Find(t.Context(), bundle(dockerNamespace, strings.Repeat("0", 64)), strings.Repeat("0", 64)); !errors.Is(err, ErrUnknown) {
		t.Errorf("Find(unknown) = %v, want %v", err, ErrUnknown)
	}
	daemon.Down(t)
	if _, err := finder.Find(t.Context(), bundle(dockerNamespace, id), id); err == nil || errors.Is(err, ErrUnknown) {
		t.Errorf("Find() without Docker = %v, want why there is no answer", err)
	}
}

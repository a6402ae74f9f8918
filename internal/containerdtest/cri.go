package containerdtest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/palisade-sec/palisade/internal/ociimage"
)

const (
	// criNamespace is where containerd's CRI keeps what it makes.
	criNamespace = "k8s.io"
	// pauseImage is what a pod's sandbox runs.
	pauseImage = "registry.example/palisade/pause:1"
)

// criConfiguration makes the CRI work as root in a container, without a registry, and without a network: pods must share the host's.
const criConfiguration = `
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + pauseImage + `"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%s/cni"
    conf_dir = "%s/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
`

// StartCRI is Start with containerd's CRI served on the same socket, and the images that pods need: ImageName, whose digest it returns,
// and that of their sandboxes.
func StartCRI(t *testing.T) (d *Daemon, digest string) {
	t.Helper()
	d = start(t, func(d *Daemon) string {
		return fmt.Sprintf(configuration, d.directory, d.directory, "", d.Socket) + fmt.Sprintf(criConfiguration, d.directory, d.directory)
	})
	d.image(t, criNamespace, ociimage.Config{Name: pauseImage, Command: []string{"/bin/sleep", "100000"}})
	return d, d.image(t, criNamespace, ociimage.Config{Name: ImageName})
}

// nriConfiguration has containerd serve NRI, which it does from 1.7 on.
const nriConfiguration = `
[plugins."io.containerd.nri.v1.nri"]
  disable = false
  socket_path = "%s"
  plugin_path = "%s/nri"
  plugin_config_path = "%s/nri"
`

// StartNRI is StartCRI with NRI, whose socket it returns, too. It skips the test where containerd speaks none.
func StartNRI(t *testing.T) (d *Daemon, digest, socket string) {
	t.Helper()
	d = start(t, func(d *Daemon) string {
		socket = filepath.Join(d.directory, "nri.sock")
		return fmt.Sprintf(configuration, d.directory, d.directory, "", d.Socket) + fmt.Sprintf(criConfiguration, d.directory, d.directory) +
			fmt.Sprintf(nriConfiguration, socket, d.directory, d.directory)
	})
	if _, err := os.Stat(socket); err != nil {
		t.Skip("this containerd speaks no NRI: make test-runtimes builds one that does")
	}
	d.image(t, criNamespace, ociimage.Config{Name: pauseImage, Command: []string{"/bin/sleep", "100000"}})
	return d, d.image(t, criNamespace, ociimage.Config{Name: ImageName}), socket
}

// Pulled names StartCRI's image by its digest, too, as the CRI does when it pulls one from a registry, and returns when the CRI knows.
func (d *Daemon) Pulled(t *testing.T, digest string) {
	t.Helper()
	if out, err := d.ctr(criNamespace, "images", "tag", ImageName, repository+"@"+digest); err != nil {
		t.Fatalf("tag %s: %v: %s", ImageName, err, out)
	}
	conn, err := grpc.NewClient("unix://"+d.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	images := runtimeapi.NewImageServiceClient(conn)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		answer, err := images.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ImageName}})
		if len(answer.GetImage().GetRepoDigests()) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the CRI does not know %s by its digest: %v, %v", ImageName, answer, err)
		}
	}
}

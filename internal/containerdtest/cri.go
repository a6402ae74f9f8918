package containerdtest

import (
	"fmt"
	"testing"

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

package containerdtest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/palisade-sec/palisade/internal/ociimage"
)

// ImageName is the image that Image imports.
const ImageName = repository + ":1"

const repository = "registry.example/palisade/busybox"

// Image imports an image with a shell and the usual tools, and returns its digest as containerd tells it. It skips the
// test if the machine has no static busybox.
func (d *Daemon) Image(t *testing.T) (digest string) {
	t.Helper()
	return d.image(t, Namespace, ociimage.Config{Name: ImageName})
}

// image imports an image of that name into a namespace.
func (d *Daemon) image(t *testing.T, namespace string, config ociimage.Config) (digest string) {
	t.Helper()
	files, err := ociimage.Busybox()
	if errors.Is(err, ociimage.ErrNoBusybox) {
		t.Skipf("%v: install Debian's package busybox-static", err)
	}
	if err != nil {
		t.Fatalf("image: %v", err)
	}
	return d.load(t, namespace, config, files)
}

// Import imports an image of these files, and returns its digest as containerd tells it.
func (d *Daemon) Import(t *testing.T, name string, files []ociimage.File) (digest string) {
	t.Helper()
	return d.load(t, Namespace, ociimage.Config{Name: name}, files)
}

func (d *Daemon) load(t *testing.T, namespace string, config ociimage.Config, files []ociimage.File) (digest string) {
	t.Helper()
	var archive bytes.Buffer
	if err := ociimage.Write(&archive, config, files); err != nil {
		t.Fatalf("make an image: %v", err)
	}
	path := filepath.Join(d.directory, "image.tar")
	if err := os.WriteFile(path, archive.Bytes(), 0o600); err != nil {
		t.Fatalf("write the image: %v", err)
	}
	words := []string{"images", "import", "--snapshotter", "native"}
	if second() { // what containerd 2 does by itself it must be configured for
		words = append(words, "--local")
	}
	if out, err := d.ctr(namespace, append(words, path)...); err != nil {
		t.Fatalf("import %s: %v: %s", config.Name, err, out)
	}
	list, err := d.ctr(namespace, "images", "list", "name=="+config.Name)
	if err != nil {
		t.Fatalf("list images: %v: %s", err, list)
	}
	for field := range strings.FieldsSeq(list) {
		if strings.HasPrefix(field, "sha256:") {
			return field
		}
	}
	t.Fatalf("containerd has no image %s after the import", config.Name)
	return ""
}

// second says whether it is containerd 2.
func second() bool {
	return strings.HasPrefix(strings.TrimPrefix(version(), "v"), "2.")
}

// version is what containerd calls its own, empty if it does not say.
func version() string {
	out, err := exec.Command("containerd", "--version").Output()
	fields := strings.Fields(string(out)) // name, module, version, revision
	if err != nil || len(fields) < 3 {
		return ""
	}
	return fields[2]
}

// Run starts a container from the image and returns when its process runs.
func (d *Daemon) Run(t *testing.T, id string, args ...string) {
	t.Helper()
	d.RunWith(t, nil, id, args...)
}

// RunWith is Run with flags of `ctr run`, of which the last of a kind counts.
func (d *Daemon) RunWith(t *testing.T, flags []string, id string, args ...string) {
	t.Helper()
	words := append([]string{"run", "--detach", "--snapshotter", "native"}, flags...)
	d.Ctr(t, append(append(words, ImageName, id), args...)...)
}

// PID is the container's first process, as the host sees it.
func (d *Daemon) PID(t *testing.T, id string) int {
	t.Helper()
	for line := range strings.Lines(d.Ctr(t, "tasks", "list")) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == id {
			pid, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatalf("pid of %s: %v", id, err)
			}
			return pid
		}
	}
	t.Fatalf("containerd has no task %s", id)
	return 0
}

// Remove kills a container and deletes it.
func (d *Daemon) Remove(t *testing.T, id string) {
	t.Helper()
	d.Ctr(t, "tasks", "delete", "--force", id)
	d.Ctr(t, "containers", "delete", id)
}

// unmount detaches what dead containers left mounted below the daemon's directory.
func (d *Daemon) unmount() {
	raw, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	for _, line := range slices.Backward(strings.Split(string(raw), "\n")) {
		fields := strings.Fields(line)
		if len(fields) > 1 && strings.HasPrefix(fields[1], d.directory+"/") {
			_ = syscall.Unmount(fields[1], syscall.MNT_DETACH)
		}
	}
}

package containerdtest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/palisade-sec/palisade/internal/ociimage"
)

// ImageName is the image that Image imports.
const ImageName = "registry.example/palisade/busybox:1"

// Image imports an image with a shell and the usual tools, and returns its digest as containerd tells it. It skips the
// test if the machine has no static busybox.
func (d *Daemon) Image(t *testing.T) (digest string) {
	t.Helper()
	files, err := ociimage.Busybox()
	if errors.Is(err, ociimage.ErrNoBusybox) {
		t.Skipf("%v: install Debian's package busybox-static", err)
	}
	if err != nil {
		t.Fatalf("image: %v", err)
	}
	return d.Import(t, ImageName, files)
}

// Import imports an image of these files, and returns its digest as containerd tells it.
func (d *Daemon) Import(t *testing.T, name string, files []ociimage.File) (digest string) {
	t.Helper()
	var archive bytes.Buffer
	if err := ociimage.Write(&archive, ociimage.Config{Name: name}, files); err != nil {
		t.Fatalf("make an image: %v", err)
	}
	path := filepath.Join(d.directory, "image.tar")
	if err := os.WriteFile(path, archive.Bytes(), 0o600); err != nil {
		t.Fatalf("write the image: %v", err)
	}
	d.Ctr(t, "images", "import", "--snapshotter", "native", path)
	for field := range strings.FieldsSeq(d.Ctr(t, "images", "list", "name=="+name)) {
		if strings.HasPrefix(field, "sha256:") {
			return field
		}
	}
	t.Fatalf("containerd has no image %s after the import", name)
	return ""
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

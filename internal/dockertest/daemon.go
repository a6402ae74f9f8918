// Package dockertest starts a Docker of its own for a test, on a containerd of its own: private data, state and socket, an
// image made on the spot, nothing fetched, no network. It is for tests only; no process links it.
package dockertest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/containerdtest"
)

// ImageName is the image that Image makes.
const ImageName = "registry.example/palisade/busybox:docker"

// Daemon is a running dockerd.
type Daemon struct {
	// Socket is its HTTP address.
	Socket string
	// Containerd is the one it runs its containers with, in the namespace moby.
	Containerd *containerdtest.Daemon

	directory string
	remapped  bool
	cmd       *exec.Cmd
}

// Start starts dockerd and stops it when the test ends. It skips the test, with the reason, where there is none.
func Start(t *testing.T) *Daemon {
	t.Helper()
	return start(t, false)
}

// StartRemapped is Start with user namespaces: root in a container is another on the host (userns-remap).
func StartRemapped(t *testing.T) *Daemon {
	t.Helper()
	return start(t, true)
}

func start(t *testing.T, remapped bool) *Daemon {
	t.Helper()
	for _, binary := range []string{"dockerd", "docker"} {
		if _, err := exec.LookPath(binary); err != nil {
			t.Skipf("no %s on this machine: install Debian's package docker.io", binary)
		}
	}
	directory, err := os.MkdirTemp("", "pdt") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatalf("make a directory for dockerd: %v", err)
	}
	if err := os.Chmod(directory, 0o755); err != nil { //nolint:gosec // other uids of the test connect to the socket
		t.Fatalf("open the directory: %v", err)
	}
	d := &Daemon{Socket: filepath.Join(directory, "d.sock"), directory: directory, remapped: remapped, Containerd: containerdtest.Start(t)}
	t.Cleanup(func() { d.remove(t) }) // before containerd goes
	d.Up(t)
	return d
}

// configuration is for a newer dockerd on Debian's runC and containerd, which know no time namespaces and store no images for it.
const configuration = `{"features": {"time-namespaces": false, "containerd-snapshotter": false}}`

// Up starts it, and returns when it answers.
func (d *Daemon) Up(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(d.directory, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatalf("open dockerd's log: %v", err)
	}
	defer log.Close()
	words := []string{
		"dockerd", "--host", "unix://" + d.Socket, "--containerd", d.Containerd.Socket, "--config-file", filepath.Join(d.directory, "daemon.json"),
		"--data-root", filepath.Join(d.directory, "data"), "--exec-root", filepath.Join(d.directory, "exec"),
		"--pidfile", filepath.Join(d.directory, "pid"), "--storage-driver", "vfs", "--bridge", "none",
		"--iptables=false", "--ip6tables=false", "--cgroup-parent", "/palisade-test-docker", "--live-restore",
	}
	if d.remapped {
		words = d.remap(t, words)
	}
	d.cmd = exec.Command(words[0], words[1:]...) //nolint:gosec // a test's own paths
	if err := os.WriteFile(filepath.Join(d.directory, "daemon.json"), []byte(configuration), 0o600); err != nil {
		t.Fatalf("configure dockerd: %v", err)
	}
	d.cmd.Env = append(os.Environ(), "DOCKER_MIN_API_VERSION=1.41") // Debian's docker speaks it to a newer dockerd
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatalf("start dockerd: %v", err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		conn, err := net.Dial("unix", d.Socket)
		if err == nil {
			conn.Close()
			if _, err = d.Try("version"); err == nil {
				return
			}
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(filepath.Join(d.directory, "log"))
			t.Fatalf("dockerd does not answer: %v\n%s", err, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// remap has dockerd map ids as a file of the test's says, which only it sees in the place of the host's.
func (d *Daemon) remap(t *testing.T, words []string) []string {
	t.Helper()
	ids := filepath.Join(d.directory, "subid")
	if err := os.WriteFile(ids, []byte("nobody:100000:65536\nnogroup:100000:65536\n"), 0o644); err != nil { //nolint:gosec // as the host's is
		t.Fatalf("write subordinate ids: %v", err)
	}
	const script = `mount --bind "$0" /etc/subuid && mount --bind "$0" /etc/subgid && exec "$@"`
	return slices.Concat([]string{"unshare", "--mount", "sh", "-c", script, ids}, words, []string{"--userns-remap", "nobody:nogroup"})
}

// Down kills it, as a crash would. Containers go on.
func (d *Daemon) Down(t *testing.T) {
	t.Helper()
	if d.cmd == nil {
		return
	}
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("kill dockerd: %v", err)
	}
	_ = d.cmd.Wait() // killed: the status says nothing
	d.cmd = nil
	_ = os.Remove(d.Socket)
	_ = os.Remove(filepath.Join(d.directory, "pid"))
}

// Docker runs `docker ARGS` and returns what it printed, without space around it; the test ends if it fails.
func (d *Daemon) Docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := d.Try(args...)
	if err != nil {
		t.Fatalf("docker %q: %v: %s", args, err, out)
	}
	return strings.TrimSpace(out)
}

// Try is Docker for a call that may fail.
func (d *Daemon) Try(args ...string) (string, error) { return d.run(nil, args...) }

func (d *Daemon) run(input []byte, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...) //nolint:gosec // a test's own arguments
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+d.Socket, "DOCKER_CONFIG="+d.directory)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Image makes an image with a shell and the usual tools from the host's static busybox, and returns its id.
func (d *Daemon) Image(t *testing.T, name string) (id string) {
	t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("%v: install Debian's package busybox-static", err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("make an image: %v", err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatalf("make an image: %v", err)
		}
	}
	add(tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, busybox)
	for _, tool := range []string{"sh", "sleep", "true", "cat", "touch"} {
		add(tar.Header{Name: "bin/" + tool, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	add(tar.Header{Name: "etc/hostile-" + strings.NewReplacer("/", "-", ":", "-").Replace(name), Typeflag: tar.TypeReg, Mode: 0o644}, []byte(name))
	if err := w.Close(); err != nil {
		t.Fatalf("make an image: %v", err)
	}
	out, err := d.run(archive.Bytes(), "import", "-", name)
	if err != nil {
		t.Fatalf("docker import: %v: %s", err, out)
	}
	return strings.TrimSpace(out)
}

// remove ends every container, the daemon, and what is left of mounts and files.
func (d *Daemon) remove(t *testing.T) {
	t.Helper()
	if d.cmd != nil {
		out, _ := d.Try("ps", "--all", "--quiet")
		if ids := strings.Fields(out); len(ids) > 0 {
			_, _ = d.Try(append([]string{"rm", "--force"}, ids...)...)
		}
	}
	d.Down(t)
	raw, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(raw)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], d.directory+"/") {
			_ = syscall.Unmount(fields[1], syscall.MNT_DETACH)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/palisade-test-docker", "/sys/fs/cgroup/*/palisade-test-docker"} {
		left, _ := filepath.Glob(pattern)
		for _, path := range left {
			_ = os.Remove(path) // not empty: another test's
		}
	}
	for _, path := range []string{"/run/docker/plugins", "/run/docker"} { // made by every dockerd, whatever its roots
		_ = os.Remove(path) // not empty: another Docker's
	}
	if err := os.RemoveAll(d.directory); err != nil {
		t.Errorf("remove dockerd's files: %v", err)
	}
}

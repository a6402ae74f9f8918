package runcshim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/containerdtest"
	"github.com/palisade-sec/palisade/internal/ociimage"
	"github.com/palisade-sec/palisade/internal/runcshim/engine"
)

// enginesHost is a root for real engines: they see its /opt and its /etc/containers in a mount namespace of their own, and else
// the machine's files, so that nothing of the machine is changed.
type enginesHost struct {
	Host
	t *testing.T
}

func newEnginesHost(t *testing.T, programs ...string) enginesHost {
	t.Helper()
	requireRoot(t)
	for _, name := range append(programs, "unshare", "runc") {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("no %s on this machine", name)
		}
	}
	root, err := os.MkdirTemp("", "prs") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	h := enginesHost{Host: Host{Root: root, Binary: shimBinary(t)}, t: t}
	t.Cleanup(h.remove)
	raw, err := os.ReadFile("/usr/sbin/runc")
	if err != nil {
		t.Skip(err)
	}
	write(t, filepath.Join(root, "usr/sbin/runc"), string(raw), 0o755)
	for _, name := range programs {
		write(t, filepath.Join(root, "usr/bin", name), "", 0o755)
	}
	for _, directory := range []string{"opt", "var/lib", "var/run", "etc/containers"} {
		if err := os.MkdirAll(filepath.Join(root, directory), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h enginesHost) remove() {
	raw, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(raw)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], h.Root+"/") {
			_ = syscall.Unmount(fields[1], syscall.MNT_DETACH)
		}
	}
	if err := os.RemoveAll(h.Root); err != nil {
		h.t.Errorf("remove the engine's files: %v", err)
	}
}

// command is a program that sees the root's files at their places.
func (h enginesHost) command(ctx context.Context, args ...string) *exec.Cmd {
	script := `mount --bind "$0/opt" /opt && { [ ! -d /etc/containers ] || mount --bind "$0/etc/containers" /etc/containers; } && exec "$@"`
	return exec.CommandContext(ctx, "unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", script, h.Root}, args...)...)
}

// start starts a daemon, and returns when it listens. It is stopped when the test ends, if not before.
func (h enginesHost) start(socket string, args ...string) (stop func()) {
	h.t.Helper()
	var log bytes.Buffer
	cmd := h.command(context.Background(), args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	}
	h.t.Cleanup(func() {
		stop()
		if h.t.Failed() {
			h.t.Logf("%s: %s", args[0], log.String())
		}
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			return stop
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%s does not listen: %v", args[0], err)
		}
	}
}

// recorded puts a script that writes down its arguments between a shim and its runC, and returns how to read them and how to
// take it out again.
func (h enginesHost) recorded(name string) (calls func() string, undo func()) {
	h.t.Helper()
	link := filepath.Join(h.Root, shimPath(name)+KeptSuffix, "runc")
	target, err := os.Readlink(link)
	if err != nil {
		h.t.Fatal(err)
	}
	log := filepath.Join(h.Root, "calls")
	if err := os.Remove(link); err != nil {
		h.t.Fatal(err)
	}
	write(h.t, link, "#!/bin/sh\necho \"$@\" >>"+log+"\nexec /usr/sbin/runc \"$@\"\n", 0o755)
	return func() string {
			raw, _ := os.ReadFile(log)
			return string(raw)
		}, func() {
			if err := linkTo(target, link); err != nil {
				h.t.Fatal(err)
			}
		}
}

// TestDockerDropIn has a dockerd whose default runtime is the shim, takes it out while a container of it runs, and again.
func TestDockerDropIn(t *testing.T) {
	h := newEnginesHost(t, "dockerd", "docker", "containerd")
	original := "{\n  \"log-level\": \"warn\",   \"features\": {\"time-namespaces\": false, \"containerd-snapshotter\": false}\n}\n"
	write(t, filepath.Join(h.Root, engine.DockerConfig), original, 0o600)
	if _, err := h.InstallDropIn(t.Context(), []string{engine.Docker}); err != nil {
		t.Fatal(err)
	}
	calls, direct := h.recorded("docker")
	socket := filepath.Join(h.Root, "d.sock")
	docker := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "docker", args...)
		cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+socket, "DOCKER_CONFIG="+h.Root)
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := docker(args...)
		if err != nil {
			t.Fatalf("docker %q: %v: %s", args, err, out)
		}
		return out
	}
	var stop func()
	run := func() {
		t.Helper()
		stop = h.start(socket, "dockerd", "--host", "unix://"+socket, "--config-file", filepath.Join(h.Root, engine.DockerConfig),
			"--data-root", filepath.Join(h.Root, "var/lib/docker"), "--exec-root", filepath.Join(h.Root, "run/docker"),
			"--pidfile", filepath.Join(h.Root, "var/run/docker.pid"), "--storage-driver", "vfs", "--bridge", "none",
			"--iptables=false", "--ip6tables=false", "--cgroup-parent", "/palisade-test-dropin")
	}
	run()
	t.Cleanup(func() {
		left, _ := docker("ps", "-aq")
		for id := range strings.FieldsSeq(left) {
			_, _ = docker("rm", "-f", id)
		}
		removeCgroups("palisade-test-dropin")
		for _, path := range []string{"/run/docker/plugins", "/run/docker"} { // made by every dockerd, whatever its roots
			_ = os.Remove(path) // not empty: another Docker's
		}
	})
	archive := filepath.Join(h.Root, "image.tar")
	if out, err := exec.Command("tar", "-C", "/", "-cf", archive, "bin/busybox", "usr/bin/busybox").CombinedOutput(); err != nil {
		t.Skipf("no static busybox: %s", out)
	}
	must("import", archive, "busybox:test")
	must("run", "-d", "--name", "long", "busybox:test", "/bin/busybox", "sleep", "1000")
	if out := must("run", "--rm", "busybox:test", "/bin/busybox", "echo", "hello"); out != "hello" {
		t.Errorf("docker run says %q", out)
	}
	if got := strings.Count(calls(), " create "); got != 2 {
		t.Errorf("%d creates went through the shim, want 2:\n%s", got, calls())
	}
	direct()

	err := h.UninstallDropIn(t.Context(), nil, true)
	if !errors.Is(err, ErrInUse) || strings.Count(err.Error(), "container ") != 1 || strings.Count(err.Error(), "dockerd (process ") != 1 {
		t.Fatalf("UninstallDropIn with a running container = %v, want ErrInUse by one container and dockerd", err)
	}
	if link, err := os.Readlink(filepath.Join(h.Root, shimPath("docker"))); err != nil || link != "../../../../usr/sbin/runc" {
		t.Errorf("in the shim's place is %q, %v, want a link to runC", link, err)
	}
	for deadline := time.Now().Add(10 * time.Second); must("info", "--format", "{{.DefaultRuntime}}") != "runc"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the running dockerd's default runtime is still the shim")
		}
	}
	if out := must("exec", "long", "/bin/busybox", "echo", "still here"); out != "still here" {
		t.Errorf("docker exec says %q", out)
	}
	must("restart", "-t", "0", "long")
	must("run", "--rm", "busybox:test", "/bin/busybox", "true")
	must("rm", "-f", "long")
	err = h.UninstallDropIn(t.Context(), nil, true)
	if !errors.Is(err, ErrInUse) || strings.Contains(err.Error(), "container ") {
		t.Errorf("UninstallDropIn while dockerd knows the runtime = %v, want ErrInUse by it alone", err)
	}
	must("run", "--rm", "busybox:test", "/bin/busybox", "true")
	stop()
	if err := h.UninstallDropIn(t.Context(), nil, true); err != nil {
		t.Fatalf("UninstallDropIn when nobody names it any more: %v", err)
	}
	raw, err := os.ReadFile(filepath.Join(h.Root, engine.DockerConfig))
	if err != nil || string(raw) != original {
		t.Errorf("daemon.json is %q, %v, want what it was", raw, err)
	}
	if info, err := os.Stat(filepath.Join(h.Root, engine.DockerConfig)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("daemon.json's mode is %v, %v, want 0600", info.Mode(), err)
	}
	if traces := h.Traces(); len(traces) != 0 {
		t.Errorf("traces %q are left", traces)
	}
	run() // as it was before
	must("run", "--rm", "busybox:test", "/bin/busybox", "true")
}

// TestPodmanDropIn has Podman's runtime runc be the shim, and runC again when the shim is gone, configured or not.
func TestPodmanDropIn(t *testing.T) {
	h := newEnginesHost(t, "podman", "conmon")
	for _, name := range []string{"policy.json", "registries.conf"} {
		raw, err := os.ReadFile(filepath.Join("/etc/containers", name))
		if err != nil {
			t.Skip(err)
		}
		write(t, filepath.Join(h.Root, "etc/containers", name), string(raw), 0o644)
	}
	before := tree(t, filepath.Join(h.Root, "etc"))
	if _, err := h.InstallDropIn(t.Context(), []string{engine.Podman}); err != nil {
		t.Fatal(err)
	}
	calls, direct := h.recorded("podman")
	t.Cleanup(func() { // conmon ends a moment after its container
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			removeCgroups("palisade-test-dropin-podman")
			if left, _ := filepath.Glob("/sys/fs/cgroup/*/palisade-test-dropin-podman"); len(left) == 0 {
				return
			}
		}
		t.Error("podman's cgroups are still in use")
	})
	raw, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip(err)
	}
	write(t, filepath.Join(h.Root, "rootfs/bin/busybox"), string(raw), 0o755)
	podman := func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		words := []string{"podman", "--root", filepath.Join(h.Root, "store"), "--runroot", filepath.Join(h.Root, "runroot"), "--tmpdir", filepath.Join(h.Root, "tmp"),
			"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc", "--events-backend", "file"}
		out, err := h.command(ctx, append(words, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("podman %q: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run := func() {
		t.Helper()
		if out := podman("run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--cgroup-parent", "/palisade-test-dropin-podman", "--rootfs", filepath.Join(h.Root, "rootfs"), "/bin/busybox", "echo", "hello"); out != "hello" {
			t.Errorf("podman run says %q", out)
		}
	}
	run()
	if got := strings.Count(calls(), " create "); got != 1 {
		t.Errorf("%d creates went through the shim, want 1:\n%s", got, calls())
	}
	direct()
	if err := os.Rename(filepath.Join(h.Root, "opt/palisade"), filepath.Join(h.Root, "opt/gone")); err != nil {
		t.Fatal(err)
	}
	run() // the shim is gone, and still named
	if err := os.Rename(filepath.Join(h.Root, "opt/gone"), filepath.Join(h.Root, "opt/palisade")); err != nil {
		t.Fatal(err)
	}
	if err := h.UninstallDropIn(t.Context(), nil, false); err != nil {
		t.Fatal(err)
	}
	run()
	if err := os.Remove(filepath.Join(h.Root, "etc/containers/containers.conf.d")); err != nil {
		t.Error(err) // ours, and empty
	}
	if after := tree(t, filepath.Join(h.Root, "etc")); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("etc is %v, want %v", after, before)
	}
}

// removeCgroups removes the empty cgroups of that name in each hierarchy, and those below, and their parent if that is empty, too.
func removeCgroups(name string) {
	for _, top := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		found, _ := filepath.Glob(top + name)
		for _, path := range found {
			below, _ := filepath.Glob(path + "/*")
			for _, child := range below {
				_ = os.Remove(child)
			}
			_ = os.Remove(path)
			if parent := filepath.Dir(path); filepath.Base(parent) == containerdtest.Namespace {
				_ = os.Remove(parent)
			}
		}
	}
}

// containerdConfig is of Debian's containerd 1.6, as root in a container, without a network.
const containerdConfig = `version = 2
root = "%[1]s/var/lib/containerd"
state = "%[1]s/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "%[1]s/c.sock"
[ttrpc]
  address = ""
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.example/palisade/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[1]s/cni"
    conf_dir = "%[1]s/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
`

// TestContainerdDropIn follows the advice that is given where a drop-in would make containerd 1 forget its configuration.
func TestContainerdDropIn(t *testing.T) {
	h := newEnginesHost(t, "containerd", "ctr")
	config := filepath.Join(h.Root, engine.ContainerdConfig)
	write(t, config, fmt.Sprintf(containerdConfig, h.Root), 0o644)
	_, err := h.InstallDropIn(t.Context(), []string{engine.Containerd})
	if err == nil || !strings.Contains(err.Error(), "/etc/containerd/config.toml") || !strings.Contains(err.Error(), "BinaryName = ") {
		t.Fatalf("InstallDropIn = %v, want a refusal with the lines to add", err)
	}
	if traces := h.Traces(); len(traces) != 0 {
		t.Errorf("the refusal left %q", traces)
	}
	byHand := h.Host
	byHand.ByHand = true
	todo, err := byHand.InstallDropIn(t.Context(), []string{engine.Containerd})
	if err != nil || len(todo) != 1 {
		t.Fatalf("InstallDropIn by hand = %q, %v", todo, err)
	}
	_, lines, _ := strings.Cut(todo[0], ":\n")
	write(t, config, fmt.Sprintf(containerdConfig, h.Root)+lines, 0o644)
	calls, direct := h.recorded("containerd-runc")

	socket := filepath.Join(h.Root, "c.sock")
	h.start(socket, "containerd", "--config", config)
	files, err := ociimage.Busybox()
	if err != nil {
		t.Skip(err)
	}
	for _, image := range []ociimage.Config{{Name: "registry.example/palisade/pause:1", Command: []string{"/bin/sleep", "100000"}}, {Name: containerdtest.ImageName}} {
		var archive bytes.Buffer
		if err := ociimage.Write(&archive, image, files); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(h.Root, "image.tar")
		write(t, path, archive.String(), 0o644)
		if out, err := exec.Command("ctr", "--address", socket, "--namespace", "k8s.io", "images", "import", "--snapshotter", "native", path).CombinedOutput(); err != nil {
			t.Fatalf("import: %v: %s", err, out)
		}
	}
	pod := containerdtest.StartPod(t, &containerdtest.Daemon{Socket: socket}, containerdtest.Pod{Name: "p", UID: "shim-by-hand"})
	removed := false
	t.Cleanup(func() { // before containerd goes
		if !removed {
			_ = h.placeShim(h.newSteps(), "containerd-runc", "/usr/sbin/runc")
			pod.Remove()
		}
		removeCgroups("palisade-test/podshim-by-hand")
	})
	id := pod.Run("c", nil, "exec sleep 1000")
	if got := strings.Count(calls(), " create "); got != 2 {
		t.Errorf("%d creates went through the shim, want 2:\n%s", got, calls())
	}
	direct()

	// The configuration still names it, then the running containers do, then nobody.
	err = h.UninstallDropIn(t.Context(), nil, false)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "written by hand") {
		t.Errorf("UninstallDropIn with lines in the configuration = %v", err)
	}
	write(t, config, fmt.Sprintf(containerdConfig, h.Root), 0o644)
	err = h.UninstallDropIn(t.Context(), nil, false)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "container "+id[:12]) {
		t.Errorf("UninstallDropIn with a running container = %v, want one that names %s", err, id[:12])
	}
	pod.Stop(id)
	pod.Remove()
	removed = true
	if err := h.UninstallDropIn(t.Context(), nil, false); err != nil {
		t.Errorf("UninstallDropIn when nobody names it = %v", err)
	}
	if traces := h.Traces(); len(traces) != 0 {
		t.Errorf("traces %q are left", traces)
	}
}

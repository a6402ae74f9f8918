package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/containerdtest"
	"github.com/palisade-sec/palisade/internal/dockertest"
	"github.com/palisade-sec/palisade/internal/loopbacktest"
)

// noPrivileged refuses privileged containers, and warns of nothing.
const noPrivileged = `
version: 1
rules:
  - name: no privileged containers
    message: "Ask #platform for an exception."
    compliance: {checks: {privileged: block}}
`

// gated is a node, and a runC with the shim in its place that every engine finds which the test starts from now on.
type gated struct {
	*node
	runc string
}

// admitting lays a node with an admission policy, and starts nothing.
func admitting(t *testing.T, policy string) *gated {
	t.Helper()
	if _, err := exec.LookPath("runc"); err != nil || os.Getuid() != 0 {
		t.Skip("containers need root and Debian's package runc")
	}
	top, err := os.MkdirTemp("/run", "palisade-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(top, 0o755); err != nil {
		t.Fatal(err)
	}
	n := &node{
		t: t, run: filepath.Join(top, filepath.Base(top)), bin: filepath.Join(top, "bin"), state: filepath.Join(top, "state"),
		nodes: loopbacktest.Address(t), people: loopbacktest.Address(t), stdout: &output{}, stderr: &output{},
	}
	copyBinaries(t, n.bin)
	t.Cleanup(func() { os.RemoveAll(top) })
	t.Cleanup(n.remove)
	admission := filepath.Join(top, "admission")
	if err := errors.Join(os.Mkdir(admission, 0o755), os.WriteFile(filepath.Join(admission, "policy.yaml"), []byte(policy), 0o644)); err != nil {
		t.Fatal(err)
	}
	n.words = []string{"--admission", admission}
	return &gated{node: n, runc: filepath.Join(top, "shimmed", "runc")}
}

// shim is `palisade shim`.
func (g *gated) shim(words ...string) {
	g.t.Helper()
	if out, err := exec.Command(filepath.Join(g.bin, "palisade"), append([]string{"shim"}, words...)...).CombinedOutput(); err != nil {
		g.t.Fatalf("palisade shim %q: %v: %s", words, err, out)
	}
}

// install is `palisade shim install`, for this node.
func (g *gated) install(words ...string) {
	g.t.Helper()
	g.shim(append([]string{"install", "--socket", filepath.Join(g.run, "enforcer-admission.sock"), "--admission", filepath.Join(g.state, "enforcer/admission")}, words...)...)
}

// gate lays the node and the shim without starting anything: engines that find runC in PATH find that one.
func gate(t *testing.T, policy string) *gated {
	t.Helper()
	g := admitting(t, policy)
	real, err := exec.LookPath("runc")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(real)
	if err = errors.Join(err, os.MkdirAll(filepath.Dir(g.runc), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(g.runc, raw, 0o755); err != nil {
		t.Fatal(err)
	}
	g.install("--path", g.runc)
	t.Cleanup(func() {
		g.shim("uninstall", "--path", g.runc)
		if left, _ := filepath.Glob(g.runc + ".palisade/*"); len(left) > 0 {
			t.Errorf("left by the shim: %q", left)
		}
	})
	t.Setenv("PATH", filepath.Dir(g.runc)+":"+os.Getenv("PATH"))
	return g
}

// inForce waits until the correlator knows that containers have to pass.
func (g *gated) inForce() {
	g.t.Helper()
	if !eventually(20*time.Second, func() bool {
		status, _ := g.palisade("status", "correlator")
		return strings.Contains(status, "in force, ")
	}) {
		status, _ := g.palisade("status", "correlator")
		g.t.Fatalf("the correlator does not know that the shim is in force:\n%s", status)
	}
}

// around are the containers of which it was found that they went around.
func (g *gated) around() []string {
	var told []string
	for _, f := range g.findings() {
		if f.Rule == "Container went around the runC shim" {
			told = append(told, f.Workload.ContainerID)
		}
	}
	return told
}

// on starts the node on a containerd.
func (g *gated) on(daemon *containerdtest.Daemon) {
	g.t.Helper()
	g.containerd = daemon
	g.start()
	g.t.Cleanup(g.stop)
}

// refused says whether what an engine told its user is the whole refusal.
func (g *gated) refused(what, told string, err error) {
	g.t.Helper()
	if err == nil {
		g.t.Errorf("%s: it was created, want it refused: %s", what, told)
		return
	}
	for _, part := range []string{
		`Palisade refuses this container: rule "no privileged containers"`, "CIS 5.5 privileged", "remedy:", "Ask #platform for an exception.",
		"exception: change how the container is started",
	} {
		if !strings.Contains(told, part) {
			g.t.Errorf("%s: its user was not told %q:\n%s", what, part, told)
		}
	}
}

// finds waits for the finding of a refusal.
func (g *gated) finds(what, container string) finding {
	g.t.Helper()
	var found finding
	if !eventually(10*time.Second, func() bool {
		for _, f := range g.findings() {
			if f.Rule == "no privileged containers" && f.Workload.ContainerID == container {
				found = f
				return true
			}
		}
		return false
	}) {
		g.t.Errorf("%s: no finding about container %s: %+v", what, container, g.findings())
	}
	return found
}

// TestDockerRefuses: `docker run` shows the refusal, and all that is allowed works as without the shim.
func TestDockerRefuses(t *testing.T) {
	g := gate(t, noPrivileged)
	docker := dockertest.Start(t)
	docker.Image(t, dockertest.ImageName)
	g.docker = docker.Socket
	g.on(docker.Containerd)
	out, err := docker.Try("run", "--name", "strong", "--network", "none", "--privileged", dockertest.ImageName, "/bin/true")
	g.refused("docker run", out, err)
	t.Logf("docker run says:\n%s", out)
	id := docker.Docker(t, "inspect", "--format", "{{.Id}}", "strong")
	found := g.finds("docker run", id)
	if w := found.Workload; w.Image != dockertest.ImageName || w.ContainerName != "strong" || w.Runtime != "docker" {
		t.Errorf("the finding's workload = %+v, want Docker's words", w)
	}
	if out, err := docker.Try("start", "strong"); err == nil {
		t.Errorf("docker start: it was created: %s", out)
	}
	docker.Docker(t, "run", "--detach", "--name", "weak", "--network", "none", "--health-cmd", "/bin/true", "--health-interval", "1s",
		dockertest.ImageName, "/bin/sh", "-c", "echo hello; sleep 1000")
	if got := docker.Docker(t, "exec", "weak", "/bin/sh", "-c", "echo inside"); got != "inside" {
		t.Errorf("docker exec = %q", got)
	}
	if !eventually(10*time.Second, func() bool { return docker.Docker(t, "logs", "weak") == "hello" }) {
		t.Errorf("docker logs = %q", docker.Docker(t, "logs", "weak"))
	}
	if !eventually(20*time.Second, func() bool {
		return docker.Docker(t, "inspect", "--format", "{{.State.Health.Status}}", "weak") == "healthy"
	}) {
		t.Errorf("health = %s", docker.Docker(t, "inspect", "--format", "{{json .State.Health}}", "weak"))
	}
	docker.Docker(t, "stop", "--time", "0", "weak")
	if got := docker.Docker(t, "inspect", "--format", "{{.State.Status}}", "weak"); got != "exited" {
		t.Errorf("docker stop: state = %s", got)
	}
	status, _ := g.palisade("status", "enforcer")
	if !strings.Contains(status, "1 rules") || !strings.Contains(status, "containers refused") {
		t.Errorf("status of the enforcer tells nothing of the policy:\n%s", status)
	}
}

// TestCtrRefuses: so does `ctr run`.
func TestCtrRefuses(t *testing.T) {
	g := gate(t, noPrivileged)
	daemon := containerdtest.Start(t)
	digest := daemon.Image(t)
	g.on(daemon)
	out, err := daemon.TryCtr("run", "--snapshotter", "native", "--privileged", containerdtest.ImageName, "strong", "/bin/true")
	g.refused("ctr run", out, err)
	if w := g.finds("ctr run", "strong").Workload; w.Image != containerdtest.ImageName || w.ImageDigest != digest || w.Runtime != containerdtest.Namespace {
		t.Errorf("the finding's workload = %+v, want containerd's words", w)
	}
	daemon.Run(t, "weak", "/bin/sleep", "1000")
	if out := daemon.Ctr(t, "tasks", "exec", "--exec-id", "e", "weak", "/bin/sh", "-c", "echo inside"); !strings.Contains(out, "inside") {
		t.Errorf("ctr exec = %q", out)
	}
	daemon.Remove(t, "weak")
}

// TestCRIRefuses: a kubelet, whose words `kubectl describe pod` shows, gets it from the CRI.
func TestCRIRefuses(t *testing.T) {
	g := gate(t, strings.Replace(noPrivileged, "    message:", "    match: {namespaces: [prod], labels: {app: shop}}\n    on_error: deny\n    message:", 1))
	daemon, digest := containerdtest.StartCRI(t)
	g.on(daemon)
	defer removeCgroups(t, containerdtest.Namespace)
	for app, refused := range map[string]bool{"shop": true, "lab": false} {
		p := containerdtest.StartPod(t, daemon, containerdtest.Pod{
			Name: app, UID: "b0b0b0b0-0000-4000-8000-0000000000" + map[string]string{"shop": "41", "lab": "42"}[app], Privileged: true,
			Labels: map[string]string{"app": app, "io.kubernetes.pod.name": app, "io.kubernetes.pod.namespace": "prod"},
		})
		defer p.Remove()
		id, err := p.Try("main", map[string]string{"io.kubernetes.container.name": "main", "io.kubernetes.pod.namespace": "prod", "io.kubernetes.pod.name": app}, "sleep 1000")
		if !refused {
			if err != nil {
				t.Errorf("pod %s: %v, want it started: the rule is for other pods", app, err)
			}
			continue
		}
		told := ""
		if err != nil {
			told = err.Error()
		}
		g.refused("StartContainer", told, err)
		if w := g.finds("StartContainer", id).Workload; w.PodNamespace != "prod" || w.ContainerName != "main" || w.ImageDigest != digest {
			t.Errorf("the finding's workload = %+v, want the CRI's words", w)
		}
	}
}

// TestPodmanRefuses: and `podman run`.
func TestPodmanRefuses(t *testing.T) {
	for _, program := range []string{"podman", "conmon"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no %s on this machine: install Debian's package podman", program)
		}
	}
	g := gate(t, noPrivileged)
	g.on(containerdtest.Start(t))
	directory := t.TempDir()
	raw, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip(err)
	}
	rootfs := filepath.Join(directory, "rootfs")
	if err := errors.Join(os.MkdirAll(filepath.Join(rootfs, "bin"), 0o755), os.WriteFile(filepath.Join(rootfs, "bin/busybox"), raw, 0o755)); err != nil {
		t.Fatal(err)
	}
	podman := func(words ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "podman", append([]string{
			"--root", filepath.Join(directory, "store"), "--runroot", filepath.Join(directory, "runroot"), "--tmpdir", filepath.Join(directory, "tmp"),
			"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", g.runc, "--events-backend", "file",
		}, words...)...)
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	run := func(more ...string) (string, error) {
		return podman(append(append([]string{
			"run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
			"--cgroup-parent", "/palisade-test-admission-podman",
		}, more...), "--rootfs", rootfs, "/bin/busybox", "echo", "hello")...)
	}
	t.Cleanup(func() { removeCgroups(t, "palisade-test-admission-podman") })
	t.Cleanup(func() { _ = syscall.Unmount(filepath.Join(directory, "store"), syscall.MNT_DETACH) })
	out, err := run("--privileged")
	g.refused("podman run", out, err)
	if out, err := run(); err != nil || out != "hello" {
		t.Errorf("podman run = %q, %v, want hello", out, err)
	}
}

// TestB20TheNodeIsDown: a node that is gone leaves what it kept, which goes on refusing.
func TestB20TheNodeIsDown(t *testing.T) {
	g := gate(t, noPrivileged)
	daemon := containerdtest.Start(t)
	daemon.Image(t)
	g.on(daemon)
	g.stop()
	out, err := daemon.TryCtr("run", "--snapshotter", "native", "--privileged", containerdtest.ImageName, "strong", "/bin/true")
	g.refused("ctr run without the node", out, err)
	daemon.Run(t, "weak", "/bin/sleep", "1000")
	daemon.Remove(t, "weak")
	g.stderr = &output{}
	g.start()
	if found := g.finds("ctr run without the node", "strong"); !strings.Contains(found.Output, "decided in the enforcer's place") {
		t.Errorf("the finding says %q, want that the enforcer did not decide", found.Output)
	}
}

// TestB21AroundTheShim: a container that is started with another runC than the one in whose place the shim stands is found, and one that passed is not.
func TestB21AroundTheShim(t *testing.T) {
	real, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("no runC on this machine: install Debian's package runc")
	}
	g := gate(t, noPrivileged)
	daemon := containerdtest.Start(t)
	daemon.Image(t)
	g.on(daemon)
	g.follows("containerd")
	g.inForce()
	daemon.Run(t, "passes", "/bin/sleep", "1000")
	daemon.RunWith(t, []string{"--runc-binary", real}, "around", "/bin/sleep", "1000")
	if !eventually(20*time.Second, func() bool { return slices.Contains(g.around(), "around") }) {
		t.Errorf("no finding about the container that went around: %+v", g.findings())
	}
	if told := g.around(); slices.Contains(told, "passes") {
		t.Errorf("findings about %q, want none about the one that passed", told)
	}
	daemon.Remove(t, "passes")
	daemon.Remove(t, "around")
}

// TestB19WhoEntersAContainerIsWatched: what somebody does who comes in by exec is seen and stopped as what the container does itself.
func TestB19WhoEntersAContainerIsWatched(t *testing.T) {
	g := gate(t, noPrivileged)
	daemon := containerdtest.Start(t)
	daemon.Image(t)
	g.on(daemon)
	g.follows("containerd")
	daemon.RunWith(t, []string{"--snapshotter", "overlayfs"}, "entered", "/bin/sleep", "1000")
	defer daemon.Remove(t, "entered")
	const drop = "/bin/busybox mkdir -p /tmp; /bin/busybox cp /bin/busybox /tmp/sleep; /tmp/sleep 30 && echo survived"
	if out, err := daemon.TryCtr("tasks", "exec", "--exec-id", "e", "entered", "/bin/sh", "-c", drop); err == nil || strings.Contains(out, "survived") {
		t.Errorf("a program that was not in the image was not stopped: %s", out)
	}
	if !eventually(10*time.Second, func() bool {
		return slices.ContainsFunc(g.findings(), func(f finding) bool {
			return f.Rule == "Dropped binary executed" && f.Workload.ContainerID == "entered" && f.Action != nil && strings.HasSuffix(f.Action.Outcome, "DONE")
		})
	}) {
		t.Error("no finding says that it was killed")
	}
}

package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/internal/dockertest"
	"github.com/palisade-sec/palisade/internal/unixsock"
	"github.com/palisade-sec/palisade/services/correlator/internal/workload"
)

// node follows runtimes until the test ends, and remembers all they said.
type node struct {
	*Runtimes
	t       *testing.T
	running map[workload.Ref]workload.Task
}

func followAll(t *testing.T, containerd string, sockets ...Socket) *node {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+containerd, grpc.WithTransportCredentials(unixsock.ClientCredentials(0)))
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	r, err := NewRuntimes(DefaultConfig(), conn, sockets, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("NewRuntimes() error = %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		_ = conn.Close()
	})
	return &node{Runtimes: r, t: t, running: map[workload.Ref]workload.Task{}}
}

// await applies updates as the index does, until ok.
func (n *node) await(what string, ok func() bool) {
	n.t.Helper()
	limit := time.After(30 * time.Second)
	for !ok() {
		select {
		case u := <-n.Updates():
			if u.Complete {
				n.t.Fatal("a list of one runtime is told as complete: it would end the others' containers")
			}
			for _, ref := range u.Gone {
				delete(n.running, ref)
			}
			for _, t := range u.Running {
				n.running[t.Ref] = t
			}
		case <-limit:
			n.t.Fatalf("not within 30s: %s; running = %v, error = %v", what, n.running, n.Err())
		case <-time.After(20 * time.Millisecond): // ok may ask for more than updates
		}
	}
}

// named are the tasks with a container name.
func (n *node) named(name string) []workload.Task {
	var found []workload.Task
	for _, t := range n.running {
		if t.Workload.GetContainerName() == name {
			found = append(found, t)
		}
	}
	return found
}

func TestRealDockerIsToldOnce(t *testing.T) {
	daemon := dockertest.Start(t)
	image := daemon.Image(t, dockertest.ImageName)
	shared := t.TempDir()
	old := daemon.Docker(t, "run", "--detach", "--network", "none", "--name", "old", "--label", "team=red", "--volume", shared+":/data:ro",
		dockertest.ImageName, "/bin/sleep", "1000")
	n := followAll(t, daemon.Containerd.Socket, Socket{Runtime: "docker", Namespace: "moby", Path: daemon.Socket})
	ref := workload.Ref{Namespace: "moby", ID: old}
	n.await("the container that runs already", func() bool { return n.running[ref].Workload.GetContainerName() == "old" })
	w := n.running[ref].Workload
	if w.GetImage() != dockertest.ImageName || w.GetImageDigest() != image || w.GetRuntime() != "docker" || w.GetLabels()["team"] != "red" ||
		w.GetPrivileged() || time.Since(w.GetStartTime().AsTime()) > time.Hour || w.GetContainerId() != old {
		t.Errorf("description = %v, want %s with image %s", w, old, image)
	}
	if m := w.GetMounts(); len(m) != 1 || m[0].GetSource() != shared || m[0].GetDestination() != "/data" || !m[0].GetReadOnly() {
		t.Errorf("mounts = %v, want %s read-only at /data", m, shared)
	}
	if want := daemon.Docker(t, "inspect", "--format", "{{.State.Pid}}", old); want != fmt.Sprint(n.running[ref].PID) {
		t.Errorf("pid = %d, want %s", n.running[ref].PID, want)
	}

	// The first word of a new one, containerd's, has Docker's name already: it was described when it was created.
	fresh := daemon.Docker(t, "create", "--network", "none", "--name", "new", dockertest.ImageName, "/bin/sleep", "1000")
	created := workload.Ref{Namespace: "moby", ID: fresh}
	time.Sleep(200 * time.Millisecond) // as long as nobody starts it, nothing is told that could be awaited
	go daemon.Try("start", "new")      //nolint:errcheck // awaited by its event
	var first workload.Task
	n.await("a container that starts", func() bool { first = n.running[created]; return first.PID != 0 })
	if first.Workload.GetContainerName() != "new" || first.Workload.GetImageDigest() != image {
		t.Errorf("first word = %v, want Docker's description", first.Workload)
	}
	if len(n.running) != 2 {
		t.Errorf("running = %v, want two: each once", n.running)
	}

	go daemon.Try("restart", "--time", "0", "new") //nolint:errcheck // awaited by its event
	n.await("a restart", func() bool { pid := n.running[created].PID; return pid != 0 && pid != first.PID })
	go daemon.Try("rm", "--force", "new") //nolint:errcheck // awaited by its event
	n.await("an end", func() bool { return len(n.running) == 1 })

	daemon.Down(t)
	n.await("word that docker is lost", func() bool { return n.Err() != nil })
	if len(n.named("old")) != 1 {
		t.Error("old is forgotten because Docker went: containerd still has it")
	}
	daemon.Up(t)
	n.await("docker again", func() bool { return n.Err() == nil && len(n.named("old")) == 1 })
}

// B10: an image that is named like a trusted one has another digest, and a name that is moved on says nothing about what
// runs already.
func TestB10AnImageIsKnownByItsDigest(t *testing.T) {
	daemon := dockertest.Start(t)
	const trusted = "registry.example/trusted/agent:1"
	good := daemon.Image(t, trusted)
	daemon.Docker(t, "run", "--detach", "--network", "none", "--name", "good", trusted, "/bin/sleep", "1000")
	n := followAll(t, daemon.Containerd.Socket, Socket{Runtime: "docker", Namespace: "moby", Path: daemon.Socket})
	evil := daemon.Image(t, "registry.example/evil/agent:1")
	daemon.Docker(t, "tag", "registry.example/evil/agent:1", trusted) // moves the name
	daemon.Docker(t, "run", "--detach", "--network", "none", "--name", "evil", trusted, "/bin/sleep", "1000")
	n.await("both", func() bool { return len(n.named("good")) == 1 && len(n.named("evil")) == 1 })
	a, b := n.named("good")[0].Workload, n.named("evil")[0].Workload
	if b.GetImage() != trusted || a.GetImageDigest() != good || b.GetImageDigest() != evil || good == evil {
		t.Errorf("good = %v, evil = %v, want digests %s and %s", a, b, good, evil)
	}
}

// podman starts a service of Podman's with a store of its own, and returns its socket and a way to call it.
func podman(t *testing.T) (socket string, call func(args ...string) string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("rootful podman needs root")
	}
	for _, binary := range []string{"podman", "conmon", "runc"} {
		if _, err := exec.LookPath(binary); err != nil {
			t.Skipf("no %s on this machine: install Debian's package podman", binary)
		}
	}
	directory, err := os.MkdirTemp("", "ppt")
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(directory, "p.sock")
	store := []string{
		"--root", filepath.Join(directory, "root"), "--runroot", filepath.Join(directory, "run"), "--tmpdir", filepath.Join(directory, "tmp"),
		"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc", "--events-backend", "file",
	}
	service := exec.Command("podman", append(store, "system", "service", "--time", "0", "unix://"+socket)...) //nolint:gosec // a test's own paths
	service.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	service.Stderr = &log
	if err := service.Start(); err != nil {
		t.Fatalf("start podman: %v", err)
	}
	run := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, "podman", append(store, args...)...).CombinedOutput() //nolint:gosec // a test's own arguments
		return strings.TrimSpace(string(out)), err
	}
	t.Cleanup(func() {
		_, _ = run("rm", "--all", "--force", "--time", "0")
		_ = service.Process.Kill()
		_ = service.Wait()
		raw, _ := os.ReadFile("/proc/self/mounts")
		for line := range strings.Lines(string(raw)) {
			if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], directory+"/") {
				_ = syscall.Unmount(fields[1], syscall.MNT_DETACH)
			}
		}
		err := os.RemoveAll(directory)
		for deadline := time.Now().Add(5 * time.Second); err != nil && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			err = os.RemoveAll(directory) // conmon's clean-up may still write
		}
		if err != nil {
			t.Errorf("remove podman's files: %v", err)
		}
		for deadline := time.Now().Add(10 * time.Second); !removeCgroups("libpod_parent"); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) { // conmon ends a moment after its container
				t.Error("podman's cgroups are still in use")
				break
			}
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("podman does not listen: %s", log.String())
		}
	}
	return socket, func(args ...string) string {
		t.Helper()
		out, err := run(args...)
		if err != nil {
			t.Fatalf("podman %q: %v: %s", args, err, out)
		}
		return out
	}
}

// removeCgroups removes the cgroups of that name at the top of each hierarchy, with all below them. It returns false if one is in use.
func removeCgroups(name string) bool {
	all := true
	for _, pattern := range []string{"/sys/fs/cgroup/" + name, "/sys/fs/cgroup/*/" + name} {
		found, _ := filepath.Glob(pattern) // the pattern is good
		for _, top := range found {
			var directories []string
			_ = filepath.WalkDir(top, func(path string, entry os.DirEntry, err error) error {
				if err == nil && entry.IsDir() {
					directories = append(directories, path)
				}
				return nil
			})
			for _, directory := range slices.Backward(directories) { // what is below comes first
				if err := os.Remove(directory); err != nil && !errors.Is(err, os.ErrNotExist) {
					all = false
				}
			}
		}
	}
	return all
}

func TestRealPodman(t *testing.T) {
	socket, call := podman(t)
	rootfs := filepath.Join(t.TempDir(), "rootfs.tar")
	if out, err := exec.CommandContext(t.Context(), "tar", "-C", "/", "-cf", rootfs, "bin/busybox", "usr/bin/busybox").CombinedOutput(); err != nil {
		if _, statErr := os.Stat("/bin/busybox"); statErr != nil {
			t.Skipf("no static busybox: %s", out)
		}
	}
	const name = "registry.example/palisade/busybox:podman"
	call("import", rootfs, name)
	image := "sha256:" + strings.TrimPrefix(call("image", "inspect", "--format", "{{.Id}}", name), "sha256:")
	run := func(name2 string) string {
		return call("run", "--detach", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--name", name2, "--label", "team=blue", name, "/usr/bin/busybox", "sleep", "1000")
	}
	lines := strings.Fields(run("old"))
	old := lines[len(lines)-1]
	n := followAll(t, "/nowhere/containerd.sock", Socket{Runtime: "podman", Namespace: "podman", Path: socket})
	ref := workload.Ref{Namespace: "podman", ID: old}
	n.await("the container that runs already", func() bool { return n.running[ref].PID != 0 })
	w := n.running[ref].Workload
	if w.GetContainerName() != "old" || w.GetImage() != name || w.GetRuntime() != "podman" || w.GetLabels()["team"] != "blue" ||
		w.GetMetadata() != findingv1.MetadataState_METADATA_STATE_KNOWN || !strings.HasPrefix(w.GetImageDigest(), "sha256:") {
		t.Errorf("description = %v, want old of %s (image id %s)", w, name, image)
	}
	if want := call("inspect", "--format", "{{.State.Pid}}", old); want != fmt.Sprint(n.running[ref].PID) {
		t.Errorf("pid = %d, want %s", n.running[ref].PID, want)
	}
	run("new")
	n.await("a container that starts", func() bool { return len(n.named("new")) == 1 })
	call("rm", "--force", "--time", "0", "new")
	n.await("a container that ends", func() bool { return len(n.named("new")) == 0 })
	names, states := n.States()
	if got := strings.Join(append(names, states...), " "); got != "containerd podman cri-o not there followed not there" {
		t.Errorf("States() = %q", got)
	}
	if err := n.Err(); err != nil {
		t.Errorf("Err() with Podman alone = %v, want nil", err)
	}
}

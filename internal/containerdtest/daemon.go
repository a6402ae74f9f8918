// Package containerdtest starts a containerd of its own for a test: a private root, state directory and socket, an
// image made on the spot, nothing fetched. It is for tests only; no process links it.
package containerdtest

import (
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
)

// Namespace is the containerd namespace the helpers use.
const Namespace = "palisade-test"

// Daemon is a running containerd.
type Daemon struct {
	// Socket is its gRPC address.
	Socket string

	directory string
	cmd       *exec.Cmd
}

// Start starts containerd and stops it when the test ends. It skips the test, with the reason, if the machine has no
// containerd, ctr or runc, or the test does not run as root.
func Start(t *testing.T) *Daemon {
	t.Helper()
	return start(t, func(d *Daemon) string {
		return fmt.Sprintf(configuration, d.directory, d.directory, withoutCRI, d.Socket)
	})
}

func start(t *testing.T, configure func(*Daemon) string) *Daemon {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("containerd needs root")
	}
	for _, binary := range []string{"containerd", "ctr", "runc"} {
		if _, err := exec.LookPath(binary); err != nil {
			t.Skipf("no %s on this machine: install Debian's package containerd", binary)
		}
	}
	directory, err := os.MkdirTemp("", "pct") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatalf("make a directory for containerd: %v", err)
	}
	if err := os.Chmod(directory, 0o755); err != nil { //nolint:gosec // other uids of the test connect to the socket
		t.Fatalf("open the directory: %v", err)
	}
	d := &Daemon{Socket: filepath.Join(directory, "c.sock"), directory: directory}
	t.Cleanup(func() { d.remove(t) })
	if err := os.WriteFile(d.config(), []byte(configure(d)), 0o600); err != nil {
		t.Fatalf("write containerd's configuration: %v", err)
	}
	d.Up(t)
	t.Logf("containerd %s", version())
	return d
}

// withoutCRI is the plugin that most tests have no use for.
const withoutCRI = `"io.containerd.grpc.v1.cri", `

// configuration has nothing that needs more than root in a container has. Containerd 2 reads it too.
const configuration = `version = 2
root = "%s/root"
state = "%s/state"
disabled_plugins = [%s"io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "%s"
[ttrpc]
  address = ""
`

func (d *Daemon) config() string { return filepath.Join(d.directory, "config.toml") }

// Up starts it, and returns when it accepts connections.
func (d *Daemon) Up(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(d.directory, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatalf("open containerd's log: %v", err)
	}
	defer log.Close()
	d.cmd = exec.Command("containerd", "--config", d.config()) //nolint:gosec // a test's own file
	d.cmd.Stderr = log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatalf("start containerd: %v", err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		conn, err := net.Dial("unix", d.Socket)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(filepath.Join(d.directory, "log"))
			t.Fatalf("containerd does not listen: %v\n%s", err, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Down kills it, as a crash would. Containers go on.
func (d *Daemon) Down(t *testing.T) {
	t.Helper()
	if d.cmd == nil {
		return
	}
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("kill containerd: %v", err)
	}
	_ = d.cmd.Wait() // killed: the status says nothing
	d.cmd = nil
	_ = os.Remove(d.Socket)
}

// Ctr runs `ctr ARGS` in Namespace and returns what it printed; the test ends if it fails.
func (d *Daemon) Ctr(t *testing.T, args ...string) string {
	t.Helper()
	out, err := d.TryCtr(args...)
	if err != nil {
		t.Fatalf("ctr %q: %v: %s", args, err, out)
	}
	return out
}

// TryCtr is Ctr for a call that may fail.
func (d *Daemon) TryCtr(args ...string) (string, error) { return d.ctr(Namespace, args...) }

func (d *Daemon) ctr(namespace string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	args = append([]string{"--address", d.Socket, "--namespace", namespace}, args...)
	out, err := exec.CommandContext(ctx, "ctr", args...).CombinedOutput() //nolint:gosec // a test's own arguments
	return string(out), err
}

// remove ends every container, the daemon, and what is left of mounts and files.
func (d *Daemon) remove(t *testing.T) {
	t.Helper()
	if d.cmd != nil {
		for _, namespace := range []string{Namespace, criNamespace} {
			out, _ := d.ctr(namespace, "tasks", "list", "--quiet")
			for id := range strings.FieldsSeq(out) {
				_, _ = d.ctr(namespace, "tasks", "delete", "--force", id)
				_, _ = d.ctr(namespace, "containers", "delete", id)
			}
		}
	}
	d.Down(t)
	d.unmount()
	removeParents()
	if err := os.RemoveAll(d.directory); err != nil {
		t.Errorf("remove containerd's files: %v", err)
	}
}

// removeParents removes the empty directories that runC leaves when its last container of a namespace goes: the
// cgroups' parent in each hierarchy, and its own state.
func removeParents() {
	for _, pattern := range []string{"/sys/fs/cgroup/" + Namespace, "/sys/fs/cgroup/*/" + Namespace, "/run/containerd/runc/" + Namespace} {
		left, err := filepath.Glob(pattern)
		if err != nil {
			continue
		}
		for _, path := range left {
			_ = os.Remove(path) // not empty: another test's
		}
	}
}

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/containerdtest"
)

// crictl is the CRI's command line on a daemon of the test's.
type crictl struct {
	t                      *testing.T
	program, configuration string
}

// newCrictl skips the test where there is none.
func newCrictl(t *testing.T, socket string) crictl {
	t.Helper()
	from := os.Getenv("PALISADE_BIN")
	if from == "" {
		from = "../../bin"
	}
	program := filepath.Join(from, "tools/crictl")
	if _, err := os.Stat(program); err != nil {
		found, err := exec.LookPath("crictl")
		if err != nil {
			t.Skip("no crictl here: make test-tools builds it")
		}
		program = found
	}
	configuration := filepath.Join(t.TempDir(), "crictl.yaml")
	endpoint := "unix://" + socket
	if err := os.WriteFile(configuration, []byte("runtime-endpoint: "+endpoint+"\nimage-endpoint: "+endpoint+"\ntimeout: 10\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return crictl{t: t, program: program, configuration: configuration}
}

// try returns what crictl prints: its answer, and if it fails what it says instead.
func (c crictl) try(words ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program, append([]string{"--config", c.configuration}, words...)...)
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil {
		return strings.TrimSpace(stderr.String()), err
	}
	return strings.TrimSpace(stdout.String()), nil
}

func (c crictl) do(words ...string) string {
	c.t.Helper()
	out, err := c.try(words...)
	if err != nil {
		c.t.Fatalf("crictl %q: %v: %s", words, err, out)
	}
	return out
}

// file writes what crictl takes.
func (c crictl) file(content map[string]any) string {
	c.t.Helper()
	raw, err := json.Marshal(content)
	path := filepath.Join(c.t.TempDir(), "config.json")
	if err == nil {
		err = os.WriteFile(path, raw, 0o600)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return path
}

// TestCrictlRefuses: who uses the CRI by hand is shown the refusal, and all that is allowed works as without the shim.
func TestCrictlRefuses(t *testing.T) {
	g := gate(t, strings.Replace(noPrivileged, "    message:", "    match: {namespaces: [prod]}\n    on_error: deny\n    message:", 1))
	daemon, _ := containerdtest.StartCRI(t)
	g.on(daemon)
	defer removeCgroups(t, containerdtest.Namespace)
	c := newCrictl(t, daemon.Socket)
	host := map[string]any{"network": 2} // NODE: no CNI is needed
	pod := c.file(map[string]any{
		"metadata":      map[string]any{"name": "shop", "namespace": "prod", "uid": "b0b0b0b0-0000-4000-8000-000000000051", "attempt": 1},
		"log_directory": t.TempDir(),
		"linux": map[string]any{
			"cgroup_parent":    "/" + containerdtest.Namespace + "/podshop",
			"security_context": map[string]any{"privileged": true, "namespace_options": host},
		},
	})
	container := func(name string, privileged bool) string {
		return c.file(map[string]any{
			"metadata": map[string]any{"name": name}, "image": map[string]any{"image": containerdtest.ImageName}, "log_path": name + ".log",
			"command": []string{"/bin/sh", "-c", "echo hello; sleep 1000"},
			"linux":   map[string]any{"security_context": map[string]any{"privileged": privileged, "namespace_options": host}},
		})
	}
	var sandbox string
	if !eventually(20*time.Second, func() bool { // the CRI is served a little later than the socket
		out, err := c.try("runp", pod)
		sandbox = out
		return err == nil
	}) {
		t.Fatalf("crictl runp: %s", sandbox)
	}
	defer c.do("rmp", "--force", sandbox)
	strong := c.do("create", sandbox, container("strong", true), pod)
	out, err := c.try("start", strong)
	g.refused("crictl start", out, err)
	t.Logf("crictl start says:\n%s", out)
	weak := c.do("create", sandbox, container("weak", false), pod)
	c.do("start", weak)
	if got := c.do("exec", weak, "/bin/sh", "-c", "echo inside"); got != "inside" {
		t.Errorf("crictl exec = %q", got)
	}
	if !eventually(10*time.Second, func() bool { return c.do("logs", weak) == "hello" }) {
		t.Errorf("crictl logs = %q", c.do("logs", weak))
	}
	c.do("stop", "--timeout", "0", weak)
	if got := c.do("inspect", "--output", "go-template", "--template", "{{.status.state}}", weak); got != "CONTAINER_EXITED" {
		t.Errorf("crictl stop: state = %s", got)
	}
}

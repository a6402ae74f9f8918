package dockertest

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// leastAPI is that of Docker 23, the first that knows every capability that a container of a compose file may be given.
const leastAPI = 42

// Project is what compose files describe, on a daemon of the test's.
type Project struct {
	daemon *Daemon
	words  []string
}

// Compose returns the project of these files; later ones add to earlier ones. All of it is gone when the test ends. It skips the
// test, with the reason, where there is no Compose or too old a Docker.
func (d *Daemon) Compose(t *testing.T, name string, files ...string) *Project {
	t.Helper()
	if _, err := exec.LookPath("docker-compose"); err != nil {
		t.Skip("no docker-compose on this machine: make test-compose builds one")
	}
	version := d.Docker(t, "version", "--format", "{{.Server.APIVersion}}")
	if minor, err := strconv.Atoi(strings.TrimPrefix(version, "1.")); err != nil || minor < leastAPI {
		t.Skipf("Docker's API has version %s, and so it knows too few capabilities: make test-compose builds a newer one", version)
	}
	p := &Project{daemon: d, words: []string{"--progress", "plain", "--project-name", name}}
	for _, file := range files {
		p.words = append(p.words, "--file", file)
	}
	t.Cleanup(func() {
		if out, err := p.Try("down", "--volumes", "--timeout", "5"); err != nil {
			t.Errorf("compose down: %v: %s", err, out)
		}
	})
	return p
}

// Do runs `docker compose ARGS` and returns what it printed; the test ends if it fails.
func (p *Project) Do(t *testing.T, args ...string) string {
	t.Helper()
	out, err := p.Try(args...)
	if err != nil {
		t.Fatalf("compose %q: %v: %s", args, err, out)
	}
	return strings.TrimSpace(out)
}

// Try is Do for a call that may fail.
func (p *Project) Try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker-compose", append(p.words, args...)...) //nolint:gosec // a test's own arguments
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+p.daemon.Socket, "DOCKER_CONFIG="+p.daemon.directory)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Volume is where the host sees a local volume of the project's while a container uses it.
func (p *Project) Volume(t *testing.T, name string) string {
	t.Helper()
	id := p.daemon.Docker(t, "volume", "ls", "--quiet", "--filter", "label=com.docker.compose.volume="+name)
	return p.daemon.Docker(t, "volume", "inspect", "--format", "{{.Mountpoint}}", id)
}

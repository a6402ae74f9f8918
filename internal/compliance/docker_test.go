package compliance

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/containerdtest"
	"github.com/palisade-sec/palisade/internal/dockertest"
)

var update = flag.Bool("update", false, "rewrite the specs of testdata with those that Docker and containerd write here")

// onlyElsewhere are checks that no spec of a test's Docker passes; each has a spec of its own in testdata (see elsewhere).
var onlyElsewhere = []string{"apparmor", "selinux", "host-user"}

// TestSpecOfRemappedDocker has the spec that passes host-user: of a Docker with userns-remap.
func TestSpecOfRemappedDocker(t *testing.T) {
	caught := catchSpecs(t)
	docker := dockertest.StartRemapped(t)
	docker.Image(t, dockertest.ImageName)
	id := docker.Docker(t, append(append([]string{"create"}, hardened()...), dockertest.ImageName, "/bin/sleep", "1000")...)
	t.Cleanup(func() { docker.Docker(t, "rm", "--force", id) })
	out, started := docker.Try("start", id) // runC may refuse on the test's machine; the spec is Docker's all the same
	raw, err := os.ReadFile(filepath.Join(caught, id+".json"))
	if err != nil {
		t.Fatalf("no spec came to runC: %v: docker start: %v: %s", err, started, out)
	}
	golden(t, "docker-remapped", raw)
	if got := failed(t, raw); slices.Contains(got, "host-user") {
		t.Errorf("Evaluate() = %q, want host-user to pass", got)
	}
}

// hardened passes all checks but onlyElsewhere.
func hardened(more ...string) []string {
	return append([]string{"--network", "none", "--user", "1000", "--cap-drop", "ALL", "--read-only", "--memory", "64m", "--cpus", "0.5",
		"--pids-limit", "50", "--ulimit", "nofile=1024:4096", "--security-opt", "no-new-privileges"}, more...)
}

// specsOfDocker are what docker run is told, and the checks that fail then besides onlyElsewhere.
var specsOfDocker = []struct {
	name string
	args []string
	want []string
}{
	{name: "hardened", args: hardened()},
	{name: "default", args: []string{"--network", "none"}, want: []string{"root-user", "memory-limit", "cpu-limit", "read-only-root",
		"ulimits", "new-privileges", "pids-limit"}},
	{name: "privileged", args: []string{"--network", "none", "--privileged"}, want: []string{"root-user", "capabilities", "privileged",
		"memory-limit", "cpu-limit", "read-only-root", "devices", "ulimits", "seccomp", "new-privileges", "pids-limit"}},
	{name: "cap-add", args: hardened("--cap-add", "NET_ADMIN"), want: []string{"capabilities"}},
	{name: "etc", args: hardened("--volume", "/etc:/host:ro"), want: []string{"host-directories"}},
	{name: "root", args: hardened("--volume", "/:/host"), want: []string{"host-directories", "docker-socket"}},
	{name: "host-network", args: append([]string{"--network", "host"}, hardened()[2:]...), want: []string{"host-network"}},
	{name: "host-pid", args: hardened("--pid", "host"), want: []string{"host-pid"}},
	{name: "host-ipc", args: hardened("--ipc", "host"), want: []string{"host-directories", "host-ipc"}},
	{name: "host-uts", args: hardened("--uts", "host"), want: []string{"host-uts"}},
	{name: "device", args: hardened("--device", "/dev/null:/dev/mine"), want: []string{"devices"}},
	{name: "shared", args: hardened("--volume", "SHARED:/shared:rshared"), want: []string{"shared-propagation"}},
	{name: "seccomp", args: hardened("--security-opt", "seccomp=unconfined"), want: []string{"seccomp"}},
	{name: "docker-socket", args: hardened("--volume", "SOCKET:/var/run/docker.sock"), want: []string{"docker-socket"}},
}

func TestSpecsOfDocker(t *testing.T) {
	caught := catchSpecs(t)
	docker := dockertest.Start(t)
	docker.Image(t, dockertest.ImageName)
	files := t.TempDir()
	socket, shared := filepath.Join(files, "docker.sock"), filepath.Join(files, "shared")
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mountShared(t, shared)
	for _, tt := range specsOfDocker {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{"create"}
			for _, arg := range tt.args {
				args = append(args, strings.NewReplacer("SOCKET", socket, "SHARED", shared).Replace(arg))
			}
			id := docker.Docker(t, append(args, dockertest.ImageName, "/bin/sleep", "1000")...)
			t.Cleanup(func() { docker.Docker(t, "rm", "--force", id) })
			out, started := docker.Try("start", id) // runC may refuse on the test's machine; the spec is Docker's all the same
			raw, err := os.ReadFile(filepath.Join(caught, id+".json"))
			if err != nil {
				t.Fatalf("no spec came to runC: %v: docker start: %v: %s", err, started, out)
			}
			golden(t, "docker-"+tt.name, raw)
			if diff := cmp.Diff(expected(tt.want), failed(t, raw)); diff != "" {
				t.Errorf("Evaluate(docker run %q): -want +got\n%s", tt.args, diff)
			}
		})
	}
}

// catchSpecs puts a runC first in PATH that copies each config.json to the directory returned, and becomes the real one.
func catchSpecs(t *testing.T) (directory string) {
	t.Helper()
	real, err := exec.LookPath("runc")
	if err != nil {
		t.Skipf("%v: install Debian's package runc", err)
	}
	directory, first := t.TempDir(), t.TempDir()
	script := fmt.Sprintf(`#!/bin/sh
bundle= last= create=
for word in "$@"; do
	[ "$last" = --bundle ] && bundle=$word
	[ "$word" = create ] && create=yes
	last=$word
done
[ -n "$create" ] && cp "$bundle/config.json" "%s/$last.json"
exec %s "$@"
`, directory, real)
	if err := os.WriteFile(filepath.Join(first, "runc"), []byte(script), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	t.Setenv("PATH", first+":"+os.Getenv("PATH"))
	return directory
}

// mountShared mounts a file system that shares what is mounted below it.
func mountShared(t *testing.T, directory string) {
	t.Helper()
	if err := os.Mkdir(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", directory, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mount: %v: run it as root", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(directory, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", directory, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
}

func TestSpecOfContainerd(t *testing.T) {
	containerd := containerdtest.Start(t)
	containerd.Image(t)
	containerd.Run(t, "compliance", "/bin/sleep", "1000")
	raw := bundleSpec(t, strconv.Itoa(containerd.PID(t, "compliance")))
	golden(t, "containerd", raw)
	for _, failure := range evaluate(t, raw) {
		if strings.HasPrefix(failure.Detail, "cannot") || strings.HasPrefix(failure.Detail, "no evidence") {
			t.Errorf("check %s: %s", failure.Check.ID, failure.Detail)
		}
	}
}

// bundleSpec is the config.json of a container's first process: its shim, the parent, works in the bundle.
func bundleSpec(t *testing.T, pid string) []byte {
	t.Helper()
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')'):]))
	bundles := filepath.Join("/proc", fields[2], "cwd")
	raw, err := os.ReadFile(filepath.Join(bundles, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// golden writes a spec to testdata, if so told.
func golden(t *testing.T, name string, raw []byte) {
	t.Helper()
	if !*update {
		return
	}
	if err := os.WriteFile(filepath.Join("testdata", name+".json"), append(bytes.TrimSpace(raw), '\n'), 0o644); err != nil { //nolint:gosec // nothing secret
		t.Fatal(err)
	}
}

// TestGolden is TestSpecsOfDocker where there is no Docker.
func TestGolden(t *testing.T) {
	for _, tt := range specsOfDocker {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(expected(tt.want), failed(t, readSpec(t, "docker-"+tt.name))); diff != "" {
				t.Errorf("Evaluate(%s): -want +got\n%s", tt.name, diff)
			}
		})
	}
}

// elsewhere are the checks that a test's Docker cannot pass, with the spec of a real one that does: make test-vm-specs has those of AppArmor and
// SELinux from Docker 20.10 on Debian's kernel, TestSpecOfRemappedDocker that of user namespaces.
var elsewhere = map[string]string{"apparmor": "docker-apparmor", "selinux": "docker-selinux", "host-user": "docker-remapped"}

func TestGoldenOfElsewhere(t *testing.T) {
	for _, id := range onlyElsewhere {
		if !slices.Contains(failed(t, readSpec(t, "docker-hardened")), id) {
			t.Errorf("check %s passes a spec of a Docker that has no such thing", id)
		}
		if got := failed(t, readSpec(t, elsewhere[id])); slices.Contains(got, id) {
			t.Errorf("Evaluate(%s) = %q, want %s to pass", elsewhere[id], got, id)
		}
	}
}

// TestEveryCheckFailsAndPasses holds the tables above to the whole of checks.yaml.
func TestEveryCheckFailsAndPasses(t *testing.T) {
	checks, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	for _, check := range checks {
		fails := slices.Contains(onlyElsewhere, check.ID)
		for _, tt := range specsOfDocker {
			fails = fails || slices.Contains(tt.want, check.ID)
		}
		if !fails {
			t.Errorf("no spec of Docker's fails %s", check.ID)
		}
		if slices.Contains(failed(t, readSpec(t, "docker-hardened")), check.ID) && elsewhere[check.ID] == "" {
			t.Errorf("no spec of Docker's passes %s", check.ID)
		}
	}
}

// expected are the ids of want and onlyElsewhere in the order of the checks.
func expected(want []string) []string {
	checks, _ := Builtin() // its error is TestBuiltin's
	var ids []string
	for _, check := range checks {
		if slices.Contains(want, check.ID) || slices.Contains(onlyElsewhere, check.ID) {
			ids = append(ids, check.ID)
		}
	}
	return ids
}

func failed(t *testing.T, raw []byte) []string {
	t.Helper()
	var ids []string
	for _, failure := range evaluate(t, raw) {
		ids = append(ids, failure.Check.ID)
		if strings.HasPrefix(failure.Detail, "cannot") || strings.HasPrefix(failure.Detail, "no evidence") {
			ids = append(ids, fmt.Sprintf("%s: %s", failure.Check.ID, failure.Detail))
		}
	}
	return ids
}

func evaluate(t testing.TB, raw []byte) []Failure {
	t.Helper()
	checks, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	set, err := Compile(checks)
	if err != nil {
		t.Fatal(err)
	}
	failures, err := set.Evaluate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return failures
}

func readSpec(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

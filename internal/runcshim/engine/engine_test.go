package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func write(tb testing.TB, path, content string) {
	tb.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		tb.Fatal(err)
	}
}

func TestFindReadsEveryEnginesConfiguration(t *testing.T) {
	root := t.TempDir()
	for _, path := range []string{
		"usr/sbin/runc", "usr/bin/crun", "opt/docker/runc", "opt/docker/runsc", "opt/c/runc-1.2", "opt/c/runc-old", "opt/p/runc",
		"opt/crio/runc.amd64", "usr/libexec/crio/runc", "var/lib/rancher/rke2/data/v1.34/bin/runc", "opt/never/runc",
	} {
		write(t, filepath.Join(root, path), "")
	}
	write(t, filepath.Join(root, DockerConfig), `{"runtimes": {
 "mine": {"path": "/opt/docker/runc"}, "gvisor": {"path": "/opt/docker/runsc"},
 "typed": {"runtimeType": "io.containerd.runc.v2", "options": {"BinaryName": "/opt/docker/runc"}}}}`)
	write(t, filepath.Join(root, ContainerdConfig), `version = 2
imports = ["conf.d/*.toml", "/etc/containerd/config.toml"]
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  BinaryName = "/opt/c/runc-old"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]
  runtime_type = "io.containerd.kata.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata.options]
    BinaryName = "/opt/never/runc"
`)
	write(t, filepath.Join(root, "etc/containerd/conf.d/a.toml"), `version = 3
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.new]
  runtime_type = "io.containerd.runc.v2"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.new.options]
    BinaryName = "/opt/c/runc-1.2"
`)
	write(t, filepath.Join(root, "etc/containers/containers.conf"), "[engine.runtimes]\nrunc = [\"/nowhere/runc\", \"/opt/p/runc\"]\n")
	write(t, filepath.Join(root, "etc/crio/crio.conf.d/10.conf"), "[crio.runtime.runtimes.runc]\nruntime_path = \"/opt/crio/runc.amd64\"\n")
	runtimes, err := Find(root)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range runtimes {
		kind := "other"
		if r.RunC {
			kind = "runc"
		}
		got[r.Path] = kind + " " + strings.Join(r.Engines(), ",")
	}
	want := map[string]string{
		"/usr/sbin/runc": "runc docker,containerd,podman,cri-o", "/usr/bin/crun": "other podman", "/opt/docker/runc": "runc docker", "/opt/docker/runsc": "other docker",
		"/opt/c/runc-old": "runc containerd", "/opt/c/runc-1.2": "runc containerd", "/opt/p/runc": "runc podman", "/opt/crio/runc.amd64": "runc cri-o",
		"/usr/libexec/crio/runc": "runc cri-o", "/var/lib/rancher/rke2/data/v1.34/bin/runc": "runc k3s",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Find (-want +got):\n%s", diff)
	}
}

func TestFindStaysBelowItsRoot(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "usr/sbin/dockerd"), "")
	outside := filepath.Join(t.TempDir(), "runc")
	write(t, outside, "")
	if err := os.Symlink(outside, filepath.Join(root, "usr/sbin/runc")); err != nil {
		t.Fatal(err)
	}
	runtimes, err := Find(root)
	if err != nil || len(runtimes) != 0 {
		t.Errorf("Find = %+v, %v, want nothing: the link leads nowhere below the root", runtimes, err)
	}
}

func FuzzDaemonJSON(f *testing.F) {
	for _, seed := range []string{
		"", "null", "{}", `{"runtimes": {"a": {"path": "/x"}}, "default-runtime": "a"}`, `{"runtimes": null}`, `{"runtimes": {"a": null}}`, "[", `{"a":1}{}`, "{\"a\":\n\x00}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, err := ParseDaemon("daemon.json", raw)
		if err != nil && !strings.HasPrefix(err.Error(), "daemon.json:") {
			t.Errorf("ParseDaemon = %v, which says no place", err)
		}
	})
}

func FuzzContainerdConfig(f *testing.F) {
	for _, seed := range []string{
		"", "version = 2", "version = -1", "[plugins]\ncri = 3\n", "imports = [1]", "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes]\nrunc = \"x\"",
		"version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\noptions = []\n", "a = {", "\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		server, err := ParseServer("config.toml", raw)
		if err != nil && !strings.HasPrefix(err.Error(), "config.toml:") {
			t.Errorf("ParseServer = %v, which says no place", err)
		}
		_ = server.Binaries()
		if _, _, err := ParseContainersConf("containers.conf", raw); err != nil && !strings.HasPrefix(err.Error(), "containers.conf:") {
			t.Errorf("ParseContainersConf = %v, which says no place", err)
		}
	})
}

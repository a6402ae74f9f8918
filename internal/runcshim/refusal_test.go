package runcshim

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/runcshim/dropin"
	"github.com/palisade-sec/palisade/internal/runcshim/engine"
)

// refused has an install fail, with words in its reason, and nothing changed.
func refused(t *testing.T, h Host, install func() error, want error, words ...string) {
	t.Helper()
	before := tree(t, h.Root)
	err := install()
	if err == nil || (want != nil && !errors.Is(err, want)) {
		t.Errorf("error = %v, want %v", err, want)
	}
	for _, word := range words {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("error = %v, want %q in it", err, word)
		}
	}
	if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
		t.Errorf("something was changed (-before +after):\n%s", diff)
	}
}

func TestReadOnlyHostIsRefused(t *testing.T) {
	requireRoot(t)
	h := testHost(t)
	write(t, filepath.Join(h.Root, "usr/local/sbin/runc"), fakeRunC("0.9"), 0o755) // can be changed, and must not be
	directory := filepath.Join(h.Root, "usr/sbin")
	if err := unix.Mount(directory, directory, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("no bind mounts here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(directory, unix.MNT_DETACH) })
	if err := unix.Mount("", directory, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	refused(t, h, func() error { return h.Install(t.Context(), Selection{}) }, syscall.EROFS, "/usr/sbin", "read-only")
	if err := h.Install(t.Context(), Selection{Paths: []string{"/usr/local/sbin/runc"}}); err != nil {
		t.Errorf("the other one alone: %v", err)
	}
	mustUninstall(t, h)
}

func TestImmutableAndMountedFilesAreRefused(t *testing.T) {
	requireRoot(t)
	h := testHost(t)
	path := filepath.Join(h.Root, "usr/sbin/runc")
	if out, err := exec.Command("chattr", "+i", path).CombinedOutput(); err != nil {
		t.Logf("no immutable files here: %v: %s", err, out)
	} else {
		refused(t, h, func() error { return h.Install(t.Context(), Selection{}) }, syscall.EPERM, "immutable", "chattr -i")
		if out, err := exec.Command("chattr", "-i", path).CombinedOutput(); err != nil {
			t.Fatalf("chattr -i: %v: %s", err, out)
		}
	}
	if err := unix.Mount(path, path, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("no bind mounts here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	refused(t, h, func() error { return h.Install(t.Context(), Selection{}) }, syscall.EBUSY, "mount point")
}

func TestWhatTheShimCannotStandForIsRefused(t *testing.T) {
	for name, content := range map[string]string{
		"a script that calls the shim": "#!/bin/sh\nexec /opt/palisade-runc \"$@\"\n",
		"a shim that stands alone":     "",
	} {
		t.Run(name, func(t *testing.T) {
			h := testHost(t)
			if content == "" {
				raw, err := os.ReadFile(h.Binary)
				if err != nil {
					t.Fatal(err)
				}
				content = string(raw)
			}
			write(t, filepath.Join(h.Root, "usr/sbin/runc"), content, 0o755)
			before := tree(t, h.Root)
			if err := h.Install(t.Context(), Selection{}); err == nil || !strings.Contains(err.Error(), "/usr/sbin/runc") {
				t.Errorf("Install = %v", err)
			}
			if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
				t.Errorf("something was changed (-before +after):\n%s", diff)
			}
			if got := state(t, h, "/usr/sbin/runc"); got != Broken {
				t.Errorf("state = %q, want %q", got, Broken)
			}
		})
	}
	h := testHost(t)
	h.Binary = "/bin/sh"
	refused(t, h, func() error { return h.Install(t.Context(), Selection{}) }, nil, "/bin/sh is not the shim", "--binary")
}

func TestHostileConfigurationIsRefused(t *testing.T) {
	huge := `{"log-level": "` + strings.Repeat("x", engine.MaxConfig) + `"}`
	for _, tt := range []struct{ name, path, content, want string }{
		{"daemon.json that is no JSON", engine.DockerConfig, "{\n\n  \"runtimes\": }\n", "/etc/docker/daemon.json:3:"},
		{"daemon.json with more after it", engine.DockerConfig, "{}\n{}\n", "/etc/docker/daemon.json:2:"},
		{"daemon.json with a list for runtimes", engine.DockerConfig, "{\n\"runtimes\": [1]}", "/etc/docker/daemon.json:2:"},
		{"daemon.json that is huge", engine.DockerConfig, huge, "/etc/docker/daemon.json:1: is larger"},
		{"config.toml that is no TOML", engine.ContainerdConfig, "version = 2\n[plugins\n", "/etc/containerd/config.toml:2:"},
		{"config.toml of the future", engine.ContainerdConfig, "\nversion = 99\n", "/etc/containerd/config.toml:2: version 99"},
		{"containers.conf that is no TOML", "/etc/containers/containers.conf", "[engine]\nruntimes = 3\n", "/etc/containers/containers.conf:2:"},
		{"crio.conf.d that is no TOML", "/etc/crio/crio.conf.d/1.conf", "=", "/etc/crio/crio.conf.d/1.conf:1:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := testHost(t)
			write(t, filepath.Join(h.Root, tt.path), tt.content, 0o644)
			refused(t, h, func() error { return h.Install(t.Context(), Selection{}) }, nil, tt.want)
			refused(t, h, func() error { _, err := h.InstallDropIn(t.Context(), nil); return err }, nil, tt.want)
			if err := h.Uninstall(t.Context(), Selection{}); err != nil {
				t.Errorf("Uninstall of nothing = %v, want nil whatever the configuration says", err)
			}
		})
	}
	t.Run("a FIFO", func(t *testing.T) {
		h := testHost(t)
		if err := os.MkdirAll(filepath.Join(h.Root, "etc/docker"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkfifo(filepath.Join(h.Root, engine.DockerConfig), 0o644); err != nil {
			t.Fatal(err)
		}
		refused(t, h, func() error { return h.Install(t.Context(), Selection{}) }, nil, "no regular file")
	})
	t.Run("an uninstall does not depend on it", func(t *testing.T) {
		h := testHost(t)
		mustInstall(t, h)
		write(t, filepath.Join(h.Root, engine.ContainerdConfig), "[", 0o644)
		mustUninstall(t, h)
	})
}

func TestDropInsLeaveAloneWhatIsSomebodyElses(t *testing.T) {
	for _, tt := range []struct{ name, engine, path, content, want string }{
		{"another default", engine.Docker, engine.DockerConfig, `{"default-runtime": "nvidia", "runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}`, `"nvidia", not runC`},
		{"the name is taken", engine.Docker, engine.DockerConfig, `{"runtimes": {"palisade": {"path": "/usr/bin/other"}}}`, "/usr/bin/other"},
		{"a file of that name", engine.Podman, dropin.PodmanFile, "[engine]\n", "is not ours"},
		{"containerd without configuration", engine.Containerd, "/etc/containerd/other", "", "there is none"},
		{"containerd 1 with a table", engine.Containerd, engine.ContainerdConfig, "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"x\"\n", "would forget"},
		{"containerd that imports nothing", engine.Containerd, engine.ContainerdConfig, "version = 3\n", "imports name no directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := testHost(t)
			write(t, filepath.Join(h.Root, "usr/bin/podman"), "", 0o755)
			write(t, filepath.Join(h.Root, tt.path), tt.content, 0o644)
			refused(t, h, func() error { _, err := h.InstallDropIn(t.Context(), []string{tt.engine}); return err }, dropin.ErrLeftAlone, tt.want)
		})
	}
	t.Run("a symbolic link", func(t *testing.T) {
		h := testHost(t)
		write(t, filepath.Join(h.Root, "etc/docker/managed.json"), "{}", 0o644)
		if err := os.Symlink("managed.json", filepath.Join(h.Root, engine.DockerConfig)); err != nil {
			t.Fatal(err)
		}
		refused(t, h, func() error { _, err := h.InstallDropIn(t.Context(), []string{engine.Docker}); return err }, dropin.ErrLeftAlone, "/etc/docker/daemon.json:1: is a symbolic link")
	})
}

// TestDropInsInterruptedAfterEveryStep has no configuration name a shim that is not there, whatever is interrupted.
func TestDropInsInterruptedAfterEveryStep(t *testing.T) {
	original := "{\"log-level\":   \"warn\"}"
	prepare := func() Host {
		h := testHost(t)
		write(t, filepath.Join(h.Root, "usr/bin/podman"), "", 0o755)
		write(t, filepath.Join(h.Root, engine.DockerConfig), original, 0o640)
		write(t, filepath.Join(h.Root, engine.ContainerdConfig), "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n", 0o644)
		for _, directory := range []string{"opt", "etc/containerd/conf.d", "etc/containers/containers.conf.d"} {
			if err := os.MkdirAll(filepath.Join(h.Root, directory), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return h
	}
	all := []string{engine.Docker, engine.Containerd, engine.Podman}
	whole := func(h Host, when string) {
		t.Helper()
		for path, state := range map[string]string{
			shimPath("docker"): engine.DockerConfig, shimPath("podman"): dropin.PodmanFile, shimPath("containerd-runc"): "/etc/containerd/conf.d/" + dropin.ContainerdFile,
		} {
			raw, err := os.ReadFile(filepath.Join(h.Root, state))
			if err != nil || !strings.Contains(string(raw), path) {
				continue
			}
			if got := version(t, h, path); got != "runc version 1.0" {
				t.Errorf("%s: %s names %s, which says %q", when, state, path, got)
			}
		}
	}
	crashes := 0
	for n := 1; ; n++ {
		h := prepare()
		before := tree(t, h.Root)
		_, err := crash(h, n).InstallDropIn(t.Context(), all)
		if err == nil {
			break
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("step %d: %v", n, err)
		}
		crashes++
		whole(h, fmt.Sprintf("install, step %d", n))
		if n%2 == 0 {
			if _, err := h.InstallDropIn(t.Context(), all); err != nil {
				t.Fatalf("step %d: again: %v", n, err)
			}
			for path, state := range must(h.DropIns()) {
				if state != Installed {
					t.Errorf("step %d: %s: %s", n, path, state)
				}
			}
		}
		for m := 1; ; m++ {
			if err = crash(h, m).UninstallDropIn(t.Context(), nil, false); err == nil {
				break
			}
			if !errors.Is(err, errCrash) {
				t.Fatalf("step %d of an uninstall: %v", m, err)
			}
			whole(h, fmt.Sprintf("uninstall, step %d", m))
		}
		if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
			t.Errorf("step %d: uninstalled (-before +after):\n%s", n, diff)
		}
	}
	if crashes < 8 {
		t.Errorf("%d crashes were tried, want 8 at least", crashes)
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// TestWithoutTheRecord has an uninstall that has nothing to go by but what is on disk.
func TestWithoutTheRecord(t *testing.T) {
	h := testHost(t)
	write(t, filepath.Join(h.Root, engine.DockerConfig), `{"log-level": "warn"}`, 0o640)
	mustInstall(t, h)
	if _, err := h.InstallDropIn(t.Context(), []string{engine.Docker}); err != nil {
		t.Fatal(err)
	}
	for _, broken := range []string{"", "{", `{"entries": [{"path": "../../etc"}]}`} {
		write(t, h.recordPath(), broken, 0o600)
	}
	if err := h.UninstallDropIn(t.Context(), nil, false); err != nil {
		t.Fatal(err)
	}
	mustUninstall(t, h)
	if got := state(t, h, "/usr/sbin/runc"); got != NotInstalled {
		t.Errorf("state = %q, want %q", got, NotInstalled)
	}
	raw, err := os.ReadFile(filepath.Join(h.Root, engine.DockerConfig))
	if err != nil || strings.Contains(string(raw), "palisade") || !strings.Contains(string(raw), `"log-level": "warn"`) {
		t.Errorf("daemon.json is %q, %v", raw, err)
	}
	if traces := h.Traces(); len(traces) != 0 {
		t.Errorf("traces %q are left", traces)
	}
}

func TestTwoInstallsAtOnce(t *testing.T) {
	h := testHost(t)
	errs := make([]error, 8)
	var group sync.WaitGroup
	for i := range errs {
		group.Go(func() { errs[i] = h.Install(t.Context(), Selection{}) })
	}
	group.Wait()
	done := 0
	for _, err := range errs {
		switch {
		case err == nil:
			done++
		case !errors.Is(err, ErrBusy):
			t.Errorf("Install = %v, want nil or ErrBusy", err)
		}
	}
	if done == 0 || state(t, h, "/usr/sbin/runc") != Installed {
		t.Errorf("%d installs succeeded, state = %q", done, state(t, h, "/usr/sbin/runc"))
	}
	if got := version(t, h, "/usr/sbin/runc"); got != "runc version 1.0" {
		t.Errorf("runC says %q", got)
	}
	mustUninstall(t, h)
}

func TestFollowsLinksAndFindsK3s(t *testing.T) {
	h := testHost(t)
	real := "/usr/lib/runc-1.2/runc"
	write(t, filepath.Join(h.Root, real), fakeRunC("1.2"), 0o755)
	for link, target := range map[string]string{"usr/bin/runc": "/etc/alternatives/runc", "etc/alternatives/runc": real, "usr/local/sbin/runc": "../../sbin/runc"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(h.Root, link)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(h.Root, link)); err != nil {
			t.Fatal(err)
		}
	}
	k3s := "/var/lib/rancher/k3s/data/0123456789abcdef/bin/runc"
	write(t, filepath.Join(h.Root, k3s), fakeRunC("1.3"), 0o755)
	before := tree(t, h.Root)
	mustInstall(t, h)
	for path, want := range map[string]string{real: "1.2", "/usr/sbin/runc": "1.0", k3s: "1.3"} {
		if got := state(t, h, path); got != Installed {
			t.Errorf("%s: state = %q, want %q", path, got, Installed)
		}
		if got := version(t, h, path); got != "runc version "+want {
			t.Errorf("%s says %q, want %s", path, got, want)
		}
	}
	if info, err := os.Lstat(filepath.Join(h.Root, "usr/bin/runc")); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("usr/bin/runc is no link any more: %v", err)
	}
	all, err := h.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(s Status) bool { return s.Path == real })
	if i < 0 || !slices.Contains(all[i].Aliases, "/usr/bin/runc") || all[i].RunC != "1.2" || all[i].Mode != "replace" || all[i].Shim == "" {
		t.Errorf("Status = %+v", all)
	}
	mustUninstall(t, h)
	if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
		t.Errorf("after uninstall (-before +after):\n%s", diff)
	}
}

func TestVerifySaysWhatIsOff(t *testing.T) {
	h := testHost(t)
	mustInstall(t, h)
	path := filepath.Join(h.Root, "usr/sbin/runc")
	kept := h.place("/usr/sbin/runc", nil).kept()
	for _, tt := range []struct {
		name, want string
		spoil      func() error
	}{
		{"runC is another", "the runC beside it is another file", func() error { return os.WriteFile(kept, []byte(fakeRunC("6.6")), 0o755) }},
		{"runC does not run", "runC does not run through the shim", func() error { return os.WriteFile(kept, []byte("#!/bin/sh\nexit 3\n"), 0o755) }},
		{"the record is gone", "there is no record of it", func() error { return os.Remove(h.recordPath()) }},
		{"a package replaced the shim", "replaced by a package", func() error {
			return errors.Join(os.Remove(path), os.WriteFile(path, []byte(fakeRunC("7.0")), 0o755))
		}},
	} {
		if err := tt.spoil(); err != nil {
			t.Fatal(err)
		}
		_, problems, err := h.Verify(t.Context())
		if err != nil || !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, tt.want) }) {
			t.Errorf("%s: Verify = %q, %v, want %q", tt.name, problems, err, tt.want)
		}
	}
	mustInstall(t, h)
	if checked, problems, err := h.Verify(t.Context()); checked != 1 || len(problems) != 0 || err != nil {
		t.Errorf("installed again: Verify = %d, %q, %v", checked, problems, err)
	}
	if got := version(t, h, "/usr/sbin/runc"); got != "runc version 7.0" {
		t.Errorf("runC says %q, want the newest", got)
	}
}

func TestNamesAreTheShims(t *testing.T) {
	_, this, _, _ := runtime.Caller(0)
	for file, want := range map[string][]string{
		"realrunc.go": {`Name = "` + ShimName + `"`, `KeptSuffix = "` + KeptSuffix + `"`},
		"shim.go":     {"LargestShim = 6 << 20"},
	} {
		raw, err := os.ReadFile(filepath.Join(filepath.Dir(this), "../../services/enforcer/runc-shim/internal/realrunc", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range want {
			if !strings.Contains(string(raw), word) {
				t.Errorf("the shim's %s does not say %s", file, word)
			}
		}
	}
}

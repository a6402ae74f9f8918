package bundle

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOverlay(t *testing.T) {
	const line = "36 35 0:50 / %s rw,relatime shared:1 - overlay overlay rw,%s\n"
	for _, test := range []struct {
		name, options string
		want          []string
	}{
		{name: "containerd", options: "lowerdir=/s/3/fs:/s/2/fs:/s/1/fs,upperdir=/s/4/fs,workdir=/s/4/work", want: []string{"/s/3/fs", "/s/2/fs", "/s/1/fs"}},
		{name: "Docker", options: "lowerdir=/d/abc-init/diff:/d/base/diff,upperdir=/d/abc/diff,workdir=/d/abc/work", want: []string{"/d/base/diff"}},
		{name: "an image that is called so", options: "lowerdir=/d/xyz-init/diff:/d/base/diff,upperdir=/d/abc/diff", want: []string{"/d/xyz-init/diff", "/d/base/diff"}},
		{name: "one for each", options: `lowerdir+=/a,lowerdir+=/b,upperdir=/u`, want: []string{"/a", "/b"}},
		{name: "colons and blanks", options: `lowerdir=/a\134:b:/c\040d,upperdir=/u`, want: []string{"/a:b", "/c d"}},
		{name: "data only", options: `lowerdir=/a::/data,upperdir=/u`, want: []string{"/a", "/data"}},
		{name: "none", options: "upperdir=/u"},
	} {
		mounts := "1 1 8:1 / / rw - ext4 /dev/root rw\n" + fmt.Sprintf(line, "/other", "lowerdir=/wrong") + fmt.Sprintf(line, `/b\040x/rootfs`, test.options)
		if got := overlay(mounts, "/b x/rootfs"); !slices.Equal(got, test.want) {
			t.Errorf("%s: overlay() = %q, want %q", test.name, got, test.want)
		}
	}
	if got := overlay("", "/x"); got != nil {
		t.Errorf("overlay() of no mounts = %q", got)
	}
}

// A real overlay, with links in the place of layers as Docker has them.
func TestLayersOfAMount(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root mounts")
	}
	directory := t.TempDir()
	for _, name := range []string{"1/diff", "2/diff", "abc/diff", "abc-init/diff", "work", "bundle/rootfs", "l"} {
		if err := os.MkdirAll(filepath.Join(directory, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := func(name, to string) string {
		path := filepath.Join(directory, "l", name)
		if err := os.Symlink("../"+to, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	lower := strings.Join([]string{link("I", "abc-init/diff"), link("B", "2/diff"), link("A", "1/diff")}, ":")
	target := filepath.Join(directory, "bundle/rootfs")
	options := "lowerdir=" + lower + ",upperdir=" + filepath.Join(directory, "abc/diff") + ",workdir=" + filepath.Join(directory, "work")
	if err := unix.Mount("overlay", target, "overlay", 0, options); err != nil {
		t.Skipf("no overlay here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	want := []string{filepath.Join(directory, "2/diff"), filepath.Join(directory, "1/diff")}
	for _, root := range []string{"rootfs", target, "../bundle/./rootfs"} {
		spec := fmt.Appendf(nil, `{"root":{"path":%q}}`, root)
		if got := Layers(filepath.Join(directory, "bundle"), spec); !slices.Equal(got, want) {
			t.Errorf("Layers(%s) = %q, want %q", spec, got, want)
		}
	}
	for _, spec := range []string{"", "null", "{", `{"root":{"path":"/nonexistent"}}`, `{"root":{"path":"/"}}`, `{"root":null}`} {
		if got := Layers(directory, []byte(spec)); got != nil {
			t.Errorf("Layers(%q) = %q, want none", spec, got)
		}
	}
}

func TestOnlyRegularFilesOfSomeSizeAreRead(t *testing.T) {
	directory := t.TempDir()
	path := filepath.Join(directory, "config.json")
	if got := Spec(directory); got != nil {
		t.Errorf("Spec() of nothing = %q", got)
	}
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := Spec(directory); string(got) != "{}" {
		t.Errorf("Spec() = %q", got)
	}
	if err := os.Truncate(path, 1<<30); err != nil { // a hole of 1 GiB
		t.Fatal(err)
	}
	if got := Spec(directory); got != nil {
		t.Errorf("Spec() of 1 GiB has %d bytes, want none", len(got))
	}
	for name, make := range map[string]func() error{
		"a pipe":      func() error { return syscall.Mkfifo(path, 0o600) },
		"a directory": func() error { return os.Mkdir(path, 0o700) },
		"a loop":      func() error { return os.Symlink("config.json", path) },
		"a device":    func() error { return os.Symlink("/dev/zero", path) },
	} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if got := Spec(directory); got != nil {
			t.Errorf("Spec() of %s = %d bytes, want none", name, len(got))
		}
	}
}

func TestCgroupID(t *testing.T) {
	directory := t.TempDir()
	cgroup := t.TempDir()
	state := func(id, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(directory, id), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(directory, id, "state.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var stat syscall.Stat_t
	if err := syscall.Stat(cgroup, &stat); err != nil {
		t.Fatal(err)
	}
	state("v2", fmt.Sprintf(`{"cgroup_paths":{"":%q}}`, cgroup))
	state("v1", fmt.Sprintf(`{"cgroup_paths":{"cpu":%q,"memory":%q}}`, cgroup, cgroup))
	state("relative", `{"cgroup_paths":{"":"."}}`)
	state("gone", `{"cgroup_paths":{"":"/nonexistent"}}`)
	state("file", `{"cgroup_paths":{"":"/etc/passwd"}}`)
	state("broken", `{"cgroup_paths":`)
	for id, want := range map[string]uint64{"v2": stat.Ino, "v1": 0, "relative": 0, "gone": 0, "file": 0, "broken": 0, "nobody": 0, "": 0, "../x": 0} {
		if got := CgroupID(directory, id); got != want {
			t.Errorf("CgroupID(%q) = %d, want %d", id, got, want)
		}
	}
}

func FuzzOverlay(f *testing.F) {
	f.Add("36 35 0:50 / /r rw - overlay overlay rw,lowerdir=/a\\134:b:/c,upperdir=/u\n", "/r")
	f.Add("1 1 1:1 / / - \\04", "/")
	f.Fuzz(func(t *testing.T, mounts, root string) {
		if got := overlay(mounts, root); len(got) > maxLayers || slices.Contains(got, "") {
			t.Errorf("overlay(%q, %q) = %q", mounts, root, got)
		}
	})
}

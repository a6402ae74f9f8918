package kerneltest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// secret makes a file and returns its path and inode.
func secret(t *testing.T, dir string) (path string, inode uint64) {
	t.Helper()
	path = filepath.Join(dir, "shadow")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, inodeOf(t, path)
}

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestB11EveryWayToOpen(t *testing.T) {
	w := watch(t)
	for _, call := range []string{"open", "openat", "openat2", "creat", "handle"} {
		t.Run(call, func(t *testing.T) {
			path, inode := secret(t, t.TempDir())
			pid, _ := perform(t, "open", call, path)
			got := w.await(t, "open by "+call, isOpen(pid, inode)).GetFileOpen()
			if got.GetFile().GetPath() != path || got.GetFile().GetPathSource() != eventv1.PathSource_PATH_SOURCE_KERNEL {
				t.Errorf("path = %q (%v), want %q from the kernel", got.GetFile().GetPath(), got.GetFile().GetPathSource(), path)
			}
			if got.GetFile().GetMode() != unix.S_IFREG|0o600 {
				t.Errorf("mode = %o, want a regular file, 0600", got.GetFile().GetMode())
			}
			if writes := got.GetFlags()&unix.O_ACCMODE == unix.O_WRONLY; writes != (call == "creat") {
				t.Errorf("flags = %#x, writes = %v", got.GetFlags(), writes)
			}
		})
	}
}

// An open file has no trace any more of what was asked of its open alone; the event has.
func TestFlagsOfAnOpen(t *testing.T) {
	w := watch(t)
	const once = unix.O_CREAT | unix.O_EXCL | unix.O_NOCTTY | unix.O_TRUNC
	for _, tt := range []struct {
		call        string
		asked, want int
	}{
		{"open", unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC, unix.O_CREAT | unix.O_TRUNC},
		{"openat", unix.O_WRONLY | unix.O_TRUNC | unix.O_NOCTTY, unix.O_TRUNC | unix.O_NOCTTY},
		{"openat", unix.O_RDWR | unix.O_APPEND, 0},
		{"openat2", unix.O_WRONLY | unix.O_TRUNC, unix.O_TRUNC},
		{"creat", unix.O_RDONLY, unix.O_CREAT | unix.O_TRUNC},
		{"handle", unix.O_WRONLY | unix.O_TRUNC, unix.O_TRUNC},
	} {
		t.Run(fmt.Sprintf("%s %#x", tt.call, tt.asked), func(t *testing.T) {
			path, inode := secret(t, t.TempDir())
			pid, _ := perform(t, "open", tt.call, path, strconv.Itoa(tt.asked))
			got := int(w.await(t, "open", isOpen(pid, inode)).GetFileOpen().GetFlags())
			if got&once != tt.want {
				t.Errorf("flags = %#x, of those that only an open has %#x, want %#x", got, got&once, tt.want)
			}
		})
	}
}

func TestB7SymlinkAndRelativePath(t *testing.T) {
	w := watch(t)
	dir := t.TempDir()
	path, inode := secret(t, dir)
	if err := os.Mkdir(filepath.Join(dir, "security"), 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "x")
	if err := os.Symlink(filepath.Join(dir, "security"), link); err != nil {
		t.Fatal(err)
	}
	pid, _ := perform(t, "open", "openat", link+"/../shadow")
	if got := w.await(t, "open", isOpen(pid, inode)).GetFileOpen().GetFile().GetPath(); got != path {
		t.Errorf("path = %q, want %q", got, path)
	}
}

func TestB8HardLinkKeepsTheInode(t *testing.T) {
	w := watch(t)
	dir := t.TempDir()
	path, inode := secret(t, dir)
	alias := filepath.Join(dir, "harmless")
	if err := os.Link(path, alias); err != nil {
		t.Fatal(err)
	}
	pid, _ := perform(t, "open", "openat", alias)
	if got := w.await(t, "open", isOpen(pid, inode)).GetFileOpen().GetFile().GetPath(); got != alias {
		t.Errorf("path = %q, want %q", got, alias)
	}
}

func TestB14LongPaths(t *testing.T) {
	w := watch(t)
	tests := []struct {
		name      string
		component string
		depth     int
		truncated bool
	}{
		{name: "200 components", component: "d", depth: 200},
		{name: "1900 components", component: "d", depth: 1900},
		{name: "names of 255 bytes", component: strings.Repeat("n", 255), depth: 15},
		{name: "201 bytes", component: strings.Repeat("n", 67), depth: 3},
		{name: "longer than 4096 bytes", component: strings.Repeat("n", 255), depth: 20, truncated: true},
	}
	root := t.TempDir() // one for all, so that no inode number comes twice
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			base := filepath.Join(root, strconv.Itoa(i))
			if err := os.Mkdir(base, 0o700); err != nil {
				t.Fatal(err)
			}
			inode := openDeep(t, base, tt.component, tt.depth)
			pid := uint32(os.Getpid())
			file := w.await(t, "open", isOpen(pid, inode)).GetFileOpen().GetFile()
			if file.GetPathTruncated() != tt.truncated {
				t.Errorf("truncated = %v, want %v", file.GetPathTruncated(), tt.truncated)
			}
			want := base + strings.Repeat("/"+tt.component, tt.depth) + "/shadow"
			if got := file.GetPath(); !tt.truncated && got != want {
				t.Errorf("path of %d bytes %.40q…, want %d bytes", len(got), got, len(want))
			}
			if got := file.GetPath(); tt.truncated && (len(got) < 3800 || !strings.HasSuffix(want, got)) {
				t.Errorf("path of %d bytes is not the end of the real one", len(got))
			}
		})
	}
}

// openDeep makes directories one inside the other, which one path could not name, and a file in the last.
func openDeep(t *testing.T, base, component string, depth int) (inode uint64) {
	t.Helper()
	at, err := unix.Open(base, unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range depth {
		if err := unix.Mkdirat(at, component, 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(at, component, unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(at)
		at = next
	}
	fd, err := unix.Openat(at, "shadow", unix.O_CREAT|unix.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(at)
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestPathCrossesMountsAndSeesOverlayLayers(t *testing.T) {
	w := watch(t)
	dir := t.TempDir()
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "lower", "image"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", filepath.Join(dir, "merged"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	merged := filepath.Join(dir, "merged", "root")
	if err := os.Mkdir(merged, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(filepath.Join(dir, "merged"), unix.MNT_DETACH) })
	options := fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", dir, dir, dir)
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		t.Skipf("no overlayfs on %s: %v", dir, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(merged, unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(merged, "dropped"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, upper := range map[string]bool{"image": false, "dropped": true} {
		path := filepath.Join(merged, name)
		pid, _ := perform(t, "open", "openat", path)
		file := w.await(t, "open of "+name, isOpen(pid, inodeOf(t, path))).GetFileOpen().GetFile()
		if file.GetPath() != path || file.GetUpperLayer() != upper || file.GetMemfd() {
			t.Errorf("path, upper, memfd = %q, %v, %v, want %q, %v, false", file.GetPath(), file.GetUpperLayer(), file.GetMemfd(), path, upper)
		}
	}
}

package overlay_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/services/scanner/internal/overlay"
)

var plenty = overlay.Limits{Entries: 1 << 20, Bytes: 1 << 30}

// tree makes files in a directory: content by name; a name that ends in "/" is a directory, content "-> x" a link to x, "dev" a
// whiteout, "fifo" a FIFO.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		target, isLink := strings.CutPrefix(content, "-> ")
		switch {
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(path, 0o755)
		case isLink:
			err = os.Symlink(target, path)
		case content == "dev":
			if err = unix.Mknod(path, unix.S_IFCHR|0o600, 0); errors.Is(err, unix.EPERM) {
				t.Skip("only root can make a whiteout")
			}
		case content == "disk":
			if err = unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 250))); errors.Is(err, unix.EPERM) {
				t.Skip("only root can make a device node")
			}
		case content == "fifo":
			err = unix.Mkfifo(path, 0o600)
		default:
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func open(t *testing.T, limits overlay.Limits, layers ...string) *overlay.FS {
	t.Helper()
	f, err := overlay.New(layers, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func read(t *testing.T, f *overlay.FS, name, want string) {
	t.Helper()
	got, err := fs.ReadFile(f, name)
	if err != nil || string(got) != want {
		t.Errorf("ReadFile(%s) = %q, %v, want %q", name, got, err, want)
	}
}

func absent(t *testing.T, f *overlay.FS, name string, want error) {
	t.Helper()
	if got, err := fs.ReadFile(f, name); !errors.Is(err, want) {
		t.Errorf("ReadFile(%s) = %q, %v, want %v", name, got, err, want)
	}
}

func TestLayersAreOneFileSystem(t *testing.T) {
	top := tree(t, map[string]string{
		"a/new": "top", "a/both": "top", "gone": "dev", "a/gone": "dev", "wasdir": "now a file", "wasfile/x": "in a directory now", "lib": "-> usr/lib",
	})
	bottom := tree(t, map[string]string{
		"a/old": "bottom", "a/both": "bottom", "gone/x": "x", "a/gone": "x", "wasdir/x": "x", "wasfile": "x", "usr/lib/os-release": "ID=debian",
		"etc/os-release": "-> ../usr/lib/os-release",
	})
	f := open(t, plenty, top, bottom)
	read(t, f, "a/new", "top")
	read(t, f, "a/both", "top")
	read(t, f, "a/old", "bottom")
	read(t, f, "wasdir", "now a file")
	read(t, f, "wasfile/x", "in a directory now")
	read(t, f, "etc/os-release", "ID=debian")
	read(t, f, "lib/os-release", "ID=debian") // a link of one layer into a directory of another
	absent(t, f, "gone", fs.ErrNotExist)
	absent(t, f, "gone/x", fs.ErrNotExist)
	absent(t, f, "a/gone", fs.ErrNotExist)
	absent(t, f, "wasdir/x", unix.ENOTDIR)
	if err := fstest.TestFS(f, "a/new", "a/both", "a/old", "wasdir", "wasfile/x"); err != nil {
		t.Error(err)
	}
}

func TestOpaqueDirectoriesHideWhatIsBelow(t *testing.T) {
	for _, attribute := range []string{"user.overlay.opaque", "trusted.overlay.opaque"} {
		t.Run(attribute, func(t *testing.T) {
			top := tree(t, map[string]string{"d/new": "top"})
			bottom := tree(t, map[string]string{"d/old": "bottom", "d/sub/x": "x"})
			if err := unix.Setxattr(filepath.Join(top, "d"), attribute, []byte("y"), 0); err != nil {
				t.Skipf("cannot set %s here: %v", attribute, err)
			}
			f := open(t, plenty, top, bottom)
			read(t, f, "d/new", "top")
			absent(t, f, "d/old", fs.ErrNotExist)
			absent(t, f, "d/sub/x", fs.ErrNotExist)
			if entries, err := f.ReadDir("d"); err != nil || len(entries) != 1 {
				t.Errorf("ReadDir(d) = %v, %v, want new alone", entries, err)
			}
		})
	}
}

// TestNoLinkLeadsOut performs the attack: links of every kind to a file beside the layers.
func TestNoLinkLeadsOut(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 40)
	layer := tree(t, map[string]string{
		"absolute": "-> " + outside, "relative": "-> " + up + outside[1:], "directory": "-> " + filepath.Dir(outside), "up": "-> " + up,
		"root": "-> /proc/self/root", "fd": "-> /proc/self/fd/3", "here": "inside", "loop": "-> loop", "a": "-> b", "b": "-> a", "deep": "-> deep/deep",
		"chain/x": "-> ../up/here",
	})
	f := open(t, plenty, layer)
	for _, name := range []string{"absolute", "relative", "directory/secret", "up" + outside, "root" + outside, "root", "fd"} {
		absent(t, f, name, fs.ErrNotExist)
	}
	for _, name := range []string{"loop", "a", "b", "deep", "deep/x"} {
		absent(t, f, name, unix.ELOOP)
	}
	read(t, f, "up/here", "inside") // above the root is the root
	read(t, f, "chain/x", "inside")
	absent(t, f, "../"+filepath.Base(outside), fs.ErrInvalid)
	absent(t, f, outside, fs.ErrInvalid)
}

// TestMountsAreNotEntered: a root directory may have /proc or a disk of the host's mounted in it.
func TestMountsAreNotEntered(t *testing.T) {
	layer := tree(t, map[string]string{"mnt/": ""})
	mnt := filepath.Join(layer, "mnt")
	if err := unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("cannot mount here: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(mnt, unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(mnt, "x"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := open(t, plenty, layer)
	absent(t, f, "mnt/x", unix.EXDEV)
}

func TestOnlyRegularFilesAreOpened(t *testing.T) {
	layer := tree(t, map[string]string{"disk": "disk", "fifo": "fifo", "to-fifo": "-> fifo"})
	f := open(t, plenty, layer)
	done := make(chan struct{})
	go func() {
		defer close(done)
		absent(t, f, "disk", fs.ErrPermission)
		absent(t, f, "fifo", fs.ErrPermission)
		absent(t, f, "to-fifo", fs.ErrPermission)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("opening a FIFO blocks")
	}
	for name, want := range map[string]fs.FileMode{"disk": fs.ModeDevice, "fifo": fs.ModeNamedPipe} {
		if info, err := f.Stat(name); err != nil || info.Mode().Type() != want {
			t.Errorf("Stat(%s) = %v, %v, want %v", name, info, err, want)
		}
	}
}

func TestBoundsHold(t *testing.T) {
	files := map[string]string{"big": strings.Repeat("x", 4096)}
	for _, name := range []string{"1", "2", "3", "4", "5"} {
		files["d/"+name] = ""
	}
	layer := tree(t, files)

	f := open(t, overlay.Limits{Entries: 1000, Bytes: 1000}, layer)
	file, err := f.Open("big")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, file); !errors.Is(err, overlay.ErrExhausted) || n > 1000 {
		t.Errorf("read %d bytes, %v, want at most 1000 and ErrExhausted", n, err)
	}
	if _, err := file.(io.ReaderAt).ReadAt(make([]byte, 8), 0); !errors.Is(err, overlay.ErrExhausted) {
		t.Errorf("ReadAt after that = %v, want ErrExhausted", err)
	}
	if _, err := f.Stat("big"); !errors.Is(err, overlay.ErrExhausted) || !f.Exhausted() {
		t.Errorf("Stat after that = %v, Exhausted() = %v", err, f.Exhausted())
	}

	f = open(t, overlay.Limits{Entries: 3, Bytes: 1000}, layer)
	if _, err := f.ReadDir("d"); !errors.Is(err, overlay.ErrExhausted) {
		t.Errorf("ReadDir of five with a bound of three = %v, want ErrExhausted", err)
	}
}

// TestDirectoriesDeeperThanAnyPath: such are made step by step.
func TestDirectoriesDeeperThanAnyPath(t *testing.T) {
	layer := t.TempDir()
	at, err := unix.Open(layer, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 3000 {
		if err := unix.Mkdirat(at, "dd", 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(at, "dd", unix.O_PATH|unix.O_DIRECTORY, 0)
		unix.Close(at)
		if err != nil {
			t.Fatal(err)
		}
		at = next
	}
	unix.Close(at)
	f := open(t, plenty, layer)
	deepest := 0
	err = fs.WalkDir(f, ".", func(name string, _ fs.DirEntry, err error) error {
		deepest = max(deepest, strings.Count(name, "/"))
		return err
	})
	if !errors.Is(err, unix.ENAMETOOLONG) || deepest < 1300 {
		t.Errorf("walk = %v at depth %d, want ENAMETOOLONG below 1300", err, deepest)
	}
}

func TestListingsAreSorted(t *testing.T) {
	f := open(t, plenty, tree(t, map[string]string{"b": "", "d": ""}), tree(t, map[string]string{"a": "", "c": "", "b": ""}))
	entries, err := f.ReadDir(".")
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if err != nil || !slices.Equal(names, []string{"a", "b", "c", "d"}) {
		t.Errorf("ReadDir(.) = %v, %v", names, err)
	}
}

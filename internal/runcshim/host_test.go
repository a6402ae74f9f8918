package runcshim

import (
	"errors"
	"fmt"
	"io/fs"
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

	"github.com/palisade-sec/palisade/internal/runcshim/beside"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(built.directory)
	os.Exit(code)
}

var built struct {
	once      sync.Once
	directory string
	err       error
	output    []byte
}

// shimBinary builds the shim, once, and returns its path.
func shimBinary(tb testing.TB) string {
	tb.Helper()
	built.once.Do(func() {
		if built.directory, built.err = os.MkdirTemp("", "palisade-shim-"); built.err != nil {
			return
		}
		flags := "-s -w"
		if runtime.GOARCH == "amd64" {
			flags += " -E github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/handover.entry"
		}
		build := exec.Command("go", "build", "-C", "../../services/enforcer", "-trimpath", "-ldflags", flags, "-o", filepath.Join(built.directory, ShimName), "./runc-shim")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		built.output, built.err = build.CombinedOutput()
	})
	if built.err != nil {
		tb.Fatalf("build the shim: %v: %s", built.err, built.output)
	}
	return filepath.Join(built.directory, ShimName)
}

// fakeRunC is a program that answers to --version as runC does.
func fakeRunC(version string) string {
	return "#!/bin/sh\necho \"runc version " + version + "\"\n"
}

// compiled builds a Go program and returns where it is.
func compiled(tb testing.TB, source string) string {
	tb.Helper()
	directory := tb.TempDir()
	write(tb, filepath.Join(directory, "main.go"), source, 0o644)
	build := exec.Command("go", "build", "-o", filepath.Join(directory, "program"), filepath.Join(directory, "main.go"))
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		tb.Fatalf("go build: %v: %s", err, out)
	}
	return filepath.Join(directory, "program")
}

// testHost is a root with a runC in /usr/sbin, an engine that calls it, and the shim's binary.
func testHost(tb testing.TB) Host {
	tb.Helper()
	root := tb.TempDir()
	write(tb, filepath.Join(root, "usr/sbin/runc"), fakeRunC("1.0"), 0o755)
	write(tb, filepath.Join(root, "usr/bin/containerd"), "#!/bin/sh\n", 0o755)
	if err := os.MkdirAll(filepath.Join(root, "var/lib"), 0o755); err != nil {
		tb.Fatal(err)
	}
	alone := filepath.Join(tb.TempDir(), beside.AloneProgram)
	write(tb, alone, "#!/bin/sh\n", 0o755)
	return Host{Root: root, Binary: shimBinary(tb), Beside: beside.Set{Alone: alone, Socket: "/run/other/enforcer-admission.sock"}}
}

// What belongs to a shim comes and goes with it, and verify misses it.
func TestWhatIsBesideAShim(t *testing.T) {
	h := testHost(t)
	before := tree(t, h.Root)
	mustInstall(t, h)
	directory := filepath.Join(h.Root, "usr/sbin/runc"+KeptSuffix)
	if got, err := os.Readlink(filepath.Join(directory, beside.Socket)); got != h.Beside.Socket {
		t.Errorf("socket = %q, %v, want a link to %s", got, err, h.Beside.Socket)
	}
	problems := func() string {
		t.Helper()
		_, found, err := h.Verify(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(found, "\n")
	}
	if got := problems(); got != "" {
		t.Errorf("Verify() = %s, want nothing", got)
	}
	for want, spoil := range map[string]func(path string) error{
		"nothing decides there": os.Remove,
		"another version":       func(path string) error { return os.WriteFile(path, []byte("#!/bin/false\n"), 0o755) },
		"no program":            func(path string) error { return os.Chmod(path, 0o644) },
	} {
		if err := spoil(filepath.Join(directory, beside.Alone)); err != nil {
			t.Fatal(err)
		}
		if got := problems(); !strings.Contains(got, want) {
			t.Errorf("Verify() = %s, want %q", got, want)
		}
		mustInstall(t, h)
		if got := problems(); got != "" {
			t.Errorf("Verify() after another install = %s, want nothing", got)
		}
	}
	h.Beside.Socket = ""
	mustInstall(t, h)
	if _, err := os.Lstat(filepath.Join(directory, beside.Socket)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket: %v, want no link", err)
	}
	mustUninstall(t, h)
	if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
		t.Errorf("uninstalled (-before +after):\n%s", diff)
	}
}

func write(tb testing.TB, path, content string, mode fs.FileMode) {
	tb.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		tb.Fatal(err)
	}
}

// version is what the program at a host's path answers to --version.
func version(tb testing.TB, h Host, path string) string {
	tb.Helper()
	out, err := exec.Command(filepath.Join(h.Root, path), "--version").CombinedOutput()
	if err != nil {
		tb.Fatalf("%s --version: %v: %s", path, err, out)
	}
	return strings.TrimSpace(string(out))
}

// tree is every name below a directory, with what tells one file from another.
func tree(tb testing.TB, root string) map[string]string {
	tb.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var stat unix.Stat_t
		if err := unix.Lstat(path, &stat); err != nil {
			return err
		}
		content := ""
		switch stat.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			content, err = Hash(path)
		case unix.S_IFLNK:
			content, err = os.Readlink(path)
		}
		value := make([]byte, 100)
		n, _ := unix.Lgetxattr(path, "trusted.palisade-test", value)
		files[strings.TrimPrefix(path, root)] = fmt.Sprintf("%o %d:%d %s %q", stat.Mode, stat.Uid, stat.Gid, content, value[:max(n, 0)])
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return files
}

func state(tb testing.TB, h Host, path string) State {
	tb.Helper()
	got, err := h.place(path, h.newSteps()).state()
	if err != nil {
		tb.Fatal(err)
	}
	return got
}

func mustInstall(tb testing.TB, h Host) {
	tb.Helper()
	if err := h.Install(tb.Context(), Selection{}); err != nil {
		tb.Fatalf("Install: %v", err)
	}
}

func mustUninstall(tb testing.TB, h Host) {
	tb.Helper()
	if err := h.Uninstall(tb.Context(), Selection{}); err != nil {
		tb.Fatalf("Uninstall: %v", err)
	}
}

func requireRoot(tb testing.TB) {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Skip("needs root")
	}
}

func TestUninstallRestoresBytesModeOwnerAndAttributes(t *testing.T) {
	requireRoot(t)
	h := testHost(t)
	path := filepath.Join(h.Root, "usr/sbin/runc")
	if err := os.Chown(path, 12, 34); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o751|fs.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	_ = unix.Setxattr(path, "trusted.palisade-test", []byte("label"), 0) // tmpfs of old kernels has none
	before := tree(t, h.Root)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}

	mustInstall(t, h)
	if got := state(t, h, "/usr/sbin/runc"); got != Installed {
		t.Errorf("state = %q, want %q", got, Installed)
	}
	if got := version(t, h, "/usr/sbin/runc"); got != "runc version 1.0" {
		t.Errorf("through the shim runC says %q", got)
	}
	shimInfo, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	stat := shimInfo.Sys().(*syscall.Stat_t)
	if shimInfo.Mode() != 0o751 || stat.Uid != 12 || stat.Gid != 34 {
		t.Errorf("the shim is %v of %d:%d, want runC's permissions and owner without its set-group-id bit", shimInfo.Mode(), stat.Uid, stat.Gid)
	}

	mustUninstall(t, h)
	if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
		t.Errorf("after uninstall (-before +after):\n%s", diff)
	}
	after, err := os.Stat(path)
	if err != nil || !os.SameFile(info, after) {
		t.Errorf("what stands there is not the very file that did: %v", err)
	}
}

func TestInstallTwiceIsInstallOnce(t *testing.T) {
	h := testHost(t)
	mustInstall(t, h)
	before := tree(t, h.Root)
	var told []string
	h.Say = func(step string) { told = append(told, step) }
	mustInstall(t, h)
	if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
		t.Errorf("the second install changed something (-before +after):\n%s", diff)
	}
	if len(told) != 0 {
		t.Errorf("the second install took the steps %q", told)
	}
	mustUninstall(t, h)
	before = tree(t, h.Root)
	mustUninstall(t, h)
	if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
		t.Errorf("the second uninstall changed something (-before +after):\n%s", diff)
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	h := testHost(t)
	before := tree(t, h.Root)
	dry := h
	var told []string
	dry.DryRun, dry.Say = true, func(step string) { told = append(told, step) }
	mustInstall(t, dry)
	if len(told) < 5 || !slices.Contains(told, "put the shim at /usr/sbin/runc") {
		t.Errorf("install tells of %q", told)
	}
	if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
		t.Errorf("a dry install changed something (-before +after):\n%s", diff)
	}
	mustInstall(t, h)
	before, told = tree(t, h.Root), nil
	mustUninstall(t, dry)
	if !slices.Contains(told, "put runC back at /usr/sbin/runc") {
		t.Errorf("uninstall tells of %q", told)
	}
	if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
		t.Errorf("a dry uninstall changed something (-before +after):\n%s", diff)
	}
}

var errCrash = errors.New("crash")

// crash is a host whose process dies after a step.
func crash(h Host, after int) Host {
	h.after = func(step int) error {
		if step == after {
			return errCrash
		}
		return nil
	}
	return h
}

// noExchange is a file system that cannot exchange files.
func noExchange(string, string) error { return errors.ErrUnsupported }

func TestInterruptedAfterEveryStep(t *testing.T) {
	for name, exchanging := range map[string]func(a, b string) error{"exchange": exchange, "rename": noExchange} {
		t.Run(name, func(t *testing.T) {
			crashes := 0
			for n := 1; ; n++ {
				h := testHost(t)
				h.exchange = exchanging
				before := tree(t, h.Root)
				err := crash(h, n).Install(t.Context(), Selection{})
				if err == nil {
					break // there are no more steps
				}
				if !errors.Is(err, errCrash) {
					t.Fatalf("step %d: Install: %v", n, err)
				}
				crashes++
				if got := version(t, h, "/usr/sbin/runc"); got != "runc version 1.0" {
					t.Errorf("after step %d runC says %q", n, got)
				}
				undone(t, h, n, before)
				mustInstall(t, h)
				if got := state(t, h, "/usr/sbin/runc"); got != Installed {
					t.Errorf("step %d: installed again, state = %q", n, got)
				}
				if _, err := os.Lstat(h.place("/usr/sbin/runc", nil).stage()); err == nil {
					t.Errorf("step %d: the stage is still there", n)
				}
				crashes += interruptUninstall(t, h, before)
			}
			if crashes < 40 {
				t.Errorf("%d crashes were tried, want 40 at least", crashes)
			}
		})
	}
}

// undone checks on a copy that an interrupted install can be undone, too.
func undone(t *testing.T, h Host, step int, before map[string]string) {
	t.Helper()
	other := h
	other.Root = filepath.Join(t.TempDir(), "copy")
	if out, err := exec.Command("cp", "-a", h.Root, other.Root).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	mustUninstall(t, other)
	if diff := cmp.Diff(before, tree(t, other.Root)); diff != "" {
		t.Errorf("step %d: uninstalled (-before +after):\n%s", step, diff)
	}
}

// interruptUninstall dies after every step of an uninstall, one after the other, installing again between.
func interruptUninstall(t *testing.T, h Host, before map[string]string) (crashes int) {
	t.Helper()
	for n := 1; ; n++ {
		err := crash(h, n).Uninstall(t.Context(), Selection{})
		if err == nil {
			break
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("step %d: Uninstall: %v", n, err)
		}
		crashes++
		if got := version(t, h, "/usr/sbin/runc"); got != "runc version 1.0" {
			t.Errorf("after step %d of an uninstall runC says %q", n, got)
		}
		if n%2 == 0 {
			mustUninstall(t, h) // and an uninstall completes, as an install does
			if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
				t.Errorf("step %d: uninstalled again (-before +after):\n%s", n, diff)
			}
		}
		mustInstall(t, h)
		if got := state(t, h, "/usr/sbin/runc"); got != Installed {
			t.Errorf("step %d of an uninstall: installed again, state = %q", n, got)
		}
	}
	if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
		t.Errorf("uninstalled at last (-before +after):\n%s", diff)
	}
	return crashes
}

// TestAPackageIsFaster replaces runC in the moment before the exchange, in both directions.
func TestAPackageIsFaster(t *testing.T) {
	h := testHost(t)
	path := filepath.Join(h.Root, "usr/sbin/runc")
	racing := h
	racing.exchange = func(a, b string) error {
		write(t, path+".dpkg-new", fakeRunC("2.0"), 0o755)
		if err := os.Rename(path+".dpkg-new", path); err != nil {
			t.Fatal(err)
		}
		return exchange(a, b)
	}
	mustInstall(t, racing)
	if got := state(t, h, "/usr/sbin/runc"); got != Installed {
		t.Errorf("state = %q, want %q", got, Installed)
	}
	if got := version(t, h, "/usr/sbin/runc"); got != "runc version 2.0" {
		t.Errorf("the newer runC is lost: %q", got)
	}
	racing.exchange = func(a, b string) error {
		write(t, path+".dpkg-new", fakeRunC("3.0"), 0o755)
		if err := os.Rename(path+".dpkg-new", path); err != nil {
			t.Fatal(err)
		}
		return exchange(a, b)
	}
	mustUninstall(t, racing)
	if got := version(t, h, "/usr/sbin/runc"); got != "runc version 3.0" {
		t.Errorf("the newest runC is lost: %q", got)
	}
	if got := state(t, h, "/usr/sbin/runc"); got != NotInstalled {
		t.Errorf("state = %q, want %q", got, NotInstalled)
	}
}

// TestNeverAGap calls runC all the time while the shim comes and goes.
func TestNeverAGap(t *testing.T) {
	h := testHost(t)
	path := filepath.Join(h.Root, "usr/sbin/runc")
	// No script: its interpreter opens it once more by its name, which is of another file by then.
	if err := os.Rename(compiled(t, `package main; func main() { println("runc version 1.0") }`), path); err != nil {
		t.Fatal(err)
	}
	stop, failed := make(chan struct{}), make(chan string, 1)
	var calls int
	var caller sync.WaitGroup
	caller.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			calls++
			cmd := exec.Command(path, "--version")
			cmd.Env = []string{"PATH=/nonexistent"}
			out, err := cmd.CombinedOutput()
			if err != nil || string(out) != "runc version 1.0\n" {
				select {
				case failed <- fmt.Sprintf("%v: %s", err, out):
				default:
				}
			}
		}
	})
	for range 30 {
		mustInstall(t, h)
		mustUninstall(t, h)
	}
	close(stop)
	caller.Wait()
	select {
	case text := <-failed:
		t.Errorf("a call of runC failed: %s", text)
	default:
	}
	if calls < 30 {
		t.Errorf("runC was called %d times, want 30 at least", calls)
	}
}

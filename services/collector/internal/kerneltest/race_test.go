package kerneltest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

const fromKernel = eventv1.PathSource_PATH_SOURCE_KERNEL

// twoFiles makes a and b in a directory and returns their inodes.
func twoFiles(t *testing.T, dir string) (inodes [2]uint64) {
	t.Helper()
	for i, name := range []string{"a", "b"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		inodes[i] = inodeOf(t, path)
	}
	return inodes
}

// twoCounts reads what an attacker printed.
func twoCounts(t *testing.T, output string) (counts [2]int) {
	t.Helper()
	for i, line := range strings.Fields(output) {
		n, err := strconv.Atoi(line)
		if err != nil {
			t.Fatal(err)
		}
		counts[i] = n
	}
	return counts
}

// awaitAll waits until all that has happened so far has been read: a file that is opened now comes last on the ring that is
// read last.
func awaitAll(t *testing.T, w *watcher) {
	t.Helper()
	_, inode := secret(t, t.TempDir())
	w.await(t, "mark", isOpen(uint32(os.Getpid()), inode))
}

// Who reads the caller's memory again, whether before or after the call, is told what an attacker wants. The events must say
// what the kernel did, each time.
func TestB1PathRewrittenDuringTheCall(t *testing.T) { raceOpens(t, "rewrite-path") }

func TestB2LinkSwappedDuringTheCall(t *testing.T) { raceOpens(t, "swap-link") }

func raceOpens(t *testing.T, role string) {
	t.Helper()
	w := watch(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	inodes := twoFiles(t, dir)
	pid, output := perform(t, role, strconv.Itoa(scaled(20_000)), dir)
	real := twoCounts(t, output)
	awaitAll(t, w)
	if real[0] == 0 || real[1] == 0 {
		t.Logf("the race was never won: %v", real)
	}
	for i, name := range []string{"a", "b"} {
		path := filepath.Join(dir, name)
		opens := w.count(isOpen(pid, inodes[i]))
		right := w.count(func(e *eventv1.Event) bool {
			file := e.GetFileOpen().GetFile()
			return isOpen(pid, inodes[i])(e) && file.GetPath() == path && file.GetPathSource() == fromKernel
		})
		if opens != real[i] || right != opens {
			t.Errorf("%s: %d opens told, %d of them with the path from the kernel, want %d", name, opens, right, real[i])
		}
	}
}

func TestB1AddressRewrittenDuringTheCall(t *testing.T) {
	w := watch(t)
	pid, output := perform(t, "rewrite-address", strconv.Itoa(scaled(20_000)))
	real := twoCounts(t, output)
	awaitAll(t, w)
	for i, want := range []string{"127.0.0.9:4242", "127.0.0.10:4242"} {
		told := w.count(func(e *eventv1.Event) bool {
			c := e.GetConnect()
			return isConnect(pid)(e) && endpoint(c.GetRemote()) == want && c.GetRemoteSource() == fromKernel
		})
		if told != real[i] {
			t.Errorf("%d connects to %s told from the kernel, want %d", told, want, real[i])
		}
	}
	if n := w.count(isConnect(pid)); n != real[0]+real[1] {
		t.Errorf("%d connects told, want %d", n, real[0]+real[1])
	}
}

// The call is held between its begin and its end, so that the attacker has all the time it wants.
func TestB3PathRewrittenWhileTheCallBlocks(t *testing.T) {
	w := watch(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "real")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "fake"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pid, _ := perform(t, "block-open", dir)
	reads := func(e *eventv1.Event) bool {
		return isOpen(pid, inodeOf(t, path))(e) && e.GetFileOpen().GetFlags()&unix.O_ACCMODE == unix.O_RDONLY
	}
	file := w.await(t, "open of the FIFO", reads).GetFileOpen().GetFile()
	if file.GetPath() != path || file.GetPathSource() != fromKernel {
		t.Errorf("path = %q (%v), want %q from the kernel", file.GetPath(), file.GetPathSource(), path)
	}
	awaitAll(t, w)
	fakes := func(e *eventv1.Event) bool {
		return e.GetProcess().GetPid() == pid && filepath.Base(e.GetFileOpen().GetFile().GetPath()) == "fake"
	}
	if n := w.count(fakes); n != 0 {
		t.Errorf("%d opens told of a file that was not opened", n)
	}
}

// The call has its answer, and is read at its end: by then the caller's memory says something else.
func TestB4AddressRewrittenBeforeTheEnd(t *testing.T) {
	w := watch(t)
	pid, want := perform(t, "block-connect")
	awaitAll(t, w)
	told := w.count(func(e *eventv1.Event) bool {
		c := e.GetConnect()
		return isConnect(pid)(e) && endpoint(c.GetRemote()) == want && c.GetRemoteSource() == fromKernel
	})
	if all := w.count(isConnect(pid)); told != 2 || all != 2 {
		t.Errorf("%d connects told, %d of them to %s from the kernel, want 2, both", all, told, want)
	}
}

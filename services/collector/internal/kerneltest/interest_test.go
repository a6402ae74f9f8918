package kerneltest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
)

// below is an interest in opens only, below directories.
func below(reads, writes []string) *collectorv1.Interest {
	return &collectorv1.Interest{
		Classes: []string{"file_open"},
		Reads:   &collectorv1.Opens{Prefixes: reads},
		Writes:  &collectorv1.Opens{Prefixes: writes},
	}
}

func (w *watcher) wants(t *testing.T, interest *collectorv1.Interest) {
	t.Helper()
	if err := w.set.WantInterest(interest); err != nil {
		t.Fatal(err)
	}
}

// place makes a directory with a file of each of the names.
func place(t testing.TB, names ...string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestInterestInOpens(t *testing.T) {
	const exactName = "read/exact"
	dir := place(t, "read/file", exactName, exactName+"ly", "write/file", "other/file", "readable/file", "last")
	w := watch(t)
	type open struct {
		name  string
		flags int
		seen  bool
	}
	someReads := []string{dir + "/read/", dir + "/last"}
	someWrites := []string{dir + "/write/"}
	tests := []struct {
		name     string
		interest *collectorv1.Interest
		opens    []open
	}{
		{"below one directory each", below(someReads, someWrites), []open{
			{"read/file", unix.O_RDONLY, true},
			{"read/file", unix.O_WRONLY, false},
			{"read/file", unix.O_RDWR, true},
			{"read/file", unix.O_ACCMODE, true}, // neither, for ioctl: counts as a read
			{"write/file", unix.O_RDONLY, false},
			{"write/file", unix.O_WRONLY, true},
			{"write/file", unix.O_RDWR, true},
			{"write/file", unix.O_ACCMODE, false},
			{"other/file", unix.O_RDONLY, false},
			{"other/file", unix.O_WRONLY, false},
			{"other/file", unix.O_RDWR, false},
			{"readable/file", unix.O_RDONLY, false},
		}},
		{"a file, and all that begin so", below([]string{dir + "/" + exactName, dir + "/last"}, nil), []open{
			{exactName, unix.O_RDONLY, true},
			{exactName + "ly", unix.O_RDONLY, true},
			{exactName, unix.O_WRONLY, false},
			{"read/file", unix.O_RDONLY, false},
		}},
		{"everything that writes", &collectorv1.Interest{
			Classes: []string{"file_open"}, Reads: &collectorv1.Opens{Prefixes: []string{dir + "/last"}}, Writes: &collectorv1.Opens{All: true},
		}, []open{
			{"other/file", unix.O_WRONLY, true},
			{"other/file", unix.O_RDWR, true},
			{"other/file", unix.O_RDONLY, false},
		}},
		{"without lists", &collectorv1.Interest{Classes: []string{"file_open"}}, []open{
			{"other/file", unix.O_WRONLY, true},
			{"other/file", unix.O_RDONLY, true},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.wants(t, tt.interest)
			for _, o := range tt.opens {
				path := filepath.Join(dir, o.name)
				before := w.count(isOpen(uint32(os.Getpid()), inodeOf(t, path)))
				openClose(t, path, o.flags)
				marks := w.count(isOpen(uint32(os.Getpid()), inodeOf(t, dir+"/last")))
				openClose(t, dir+"/last", unix.O_RDONLY) // records come in order
				w.awaitCount(t, marks+1, uint32(os.Getpid()), inodeOf(t, dir+"/last"))
				if seen := w.count(isOpen(uint32(os.Getpid()), inodeOf(t, path))) > before; seen != o.seen {
					t.Errorf("open of %s, flags %#x: seen = %v, want %v", o.name, o.flags, seen, o.seen)
				}
			}
		})
	}
}

func openClose(t *testing.T, path string, flags int) {
	t.Helper()
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
}

// awaitCount waits until so many opens of a file were seen.
func (w *watcher) awaitCount(t *testing.T, want int, pid uint32, inode uint64) {
	t.Helper()
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		got := w.count(isOpen(pid, inode))
		if got >= want {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%d opens, want %d (lost %v)", got, want, w.lost(t))
		}
	}
}

// A path that does not fit may be on a list, if it begins as one of the prefixes there.
func TestTruncatedPathIsOfInterest(t *testing.T) {
	w := watch(t)
	w.wants(t, below([]string{t.TempDir()[:3] + "/nowhere/"}, nil))
	inode := openDeep(t, t.TempDir(), strings.Repeat("n", 255), 20)
	w.await(t, "open", isOpen(uint32(os.Getpid()), inode))
	w.wants(t, below(nil, nil))
	inode = openDeep(t, t.TempDir(), strings.Repeat("n", 255), 20)
	w.wants(t, &collectorv1.Interest{Classes: []string{"file_open"}})
	path, last := secret(t, t.TempDir())
	openClose(t, path, unix.O_RDONLY)
	w.await(t, "open", isOpen(uint32(os.Getpid()), last))
	if n := w.count(isOpen(uint32(os.Getpid()), inode)); n != 0 {
		t.Errorf("%d opens of a truncated path that neither list wants, want none", n)
	}
}

func TestChangingInterestLosesNothing(t *testing.T) {
	const opens = 20_000
	w := watch(t)
	path, inode := secret(t, place(t))
	wanted := filepath.Dir(path) + "/"
	w.wants(t, below([]string{wanted}, nil))
	child := actor(t, "open-many", strconv.Itoa(opens), path)
	output := &strings.Builder{}
	child.Stdout, child.Stderr = output, output
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	changes, running := 0, true
	for running {
		others := make([]string, changes%7)
		for i := range others {
			others[i] = fmt.Sprintf("/other/%d/", i)
		}
		interests := []*collectorv1.Interest{
			below(append(others, wanted), others),
			below([]string{path}, nil),
			{Classes: []string{"file_open", "connect"}, Reads: &collectorv1.Opens{All: true}, Writes: &collectorv1.Opens{}},
		}
		w.wants(t, interests[changes%len(interests)])
		changes++
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("%v: %s", err, output)
			}
			running = false
		default:
		}
	}
	w.awaitCount(t, opens, uint32(child.Process.Pid), inode)
	t.Logf("%d changes of interest during %d opens", changes, opens)
}

package kerneltest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/snapshot"
)

const (
	fromArgument = eventv1.PathSource_PATH_SOURCE_ARGUMENT
	fromNowhere  = eventv1.PathSource_PATH_SOURCE_UNSPECIFIED
)

// openWithTampering is the role: it opens the FIFO args[0], which blocks, and does to the path in its memory what args[1] says before
// the call returns.
func openWithTampering(args []string) error {
	fifo := args[0]
	memory, err := unix.Mmap(-1, 0, 4*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	copy(memory, fifo)
	return during(unix.SYS_OPENAT, func() error {
		_, err := openBuffer(memory)
		return err
	}, func() error {
		var done error
		switch args[1] {
		case "rewrite":
			copy(memory, "/innocent\x00")
		case "lengthen":
			copy(memory, strings.Repeat("x", 3*os.Getpagesize()))
		case "unmap":
			done = unix.Munmap(memory)
		}
		_, err := unix.Open(fifo, unix.O_WRONLY, 0) // which lets the other go on
		return errorsOf(done, err)
	})
}

// givenOf is what an open says of the path as the caller wrote it.
func givenOf(e *eventv1.Event) string {
	o := e.GetFileOpen()
	return fmt.Sprintf("%q %v truncated=%v unreadable=%v", o.GetGivenPath(), o.GetGivenPathSource(), o.GetGivenPathTruncated(), o.GetGivenPathUnreadable())
}

// withGiven is an interest in opens with the paths as the callers wrote them.
func withGiven() *collectorv1.Interest {
	return &collectorv1.Interest{Classes: []string{"file_open", "io_uring"}, GivenPaths: true}
}

func TestPathAsTheCallerWroteIt(t *testing.T) {
	w := watch(t)
	w.wants(t, withGiven())
	source := fromArgument
	if w.set.Tier().CanDeny() {
		source = fromKernel
	}
	dir := place(t, "a/b/file")
	as := dir + "/a/../a/b/../../a/b/file"
	long := dir + strings.Repeat("/a/..", (unix.PathMax-1-len(dir)-len("/a/b/file"))/len("/a/..")) + "/a/b/file"
	for _, tt := range []struct{ call, path, want string }{
		{"open", as, fmt.Sprintf("%q %v truncated=false unreadable=false", as, source)},
		{"openat", as, fmt.Sprintf("%q %v truncated=false unreadable=false", as, source)},
		{"openat2", as, fmt.Sprintf("%q %v truncated=false unreadable=false", as, source)},
		{"creat", as, fmt.Sprintf("%q %v truncated=false unreadable=false", as, source)},
		{"openat", long, fmt.Sprintf("%q %v truncated=false unreadable=false", long, source)},
		{"handle", dir + "/a/b/file", fmt.Sprintf("%q %v truncated=false unreadable=false", "", fromNowhere)},
	} {
		t.Run(fmt.Sprintf("%s of %d bytes", tt.call, len(tt.path)), func(t *testing.T) {
			pid, _ := perform(t, "open", tt.call, tt.path)
			e := w.await(t, "open", isOpen(pid, inodeOf(t, dir+"/a/b/file")))
			if got := givenOf(e); got != tt.want {
				t.Errorf("given = %s, want %s", got, tt.want)
			}
			if got := e.GetFileOpen().GetFile().GetPath(); got != dir+"/a/b/file" {
				t.Errorf("path = %q, want the kernel's", got)
			}
		})
	}
	w.wants(t, &collectorv1.Interest{Classes: []string{"file_open"}})
	pid, _ := perform(t, "open", "openat", as)
	if got := givenOf(w.await(t, "open", isOpen(pid, inodeOf(t, as)))); !strings.HasPrefix(got, fmt.Sprintf("%q %v", "", fromNowhere)) {
		t.Errorf("given = %s though nobody asked", got)
	}
}

// A ring's open enters no system call of that name; the kernel keeps the name all the same.
func TestPathAsTheCallerGaveItToARing(t *testing.T) {
	if reason := lacks("io_uring"); reason != "" {
		t.Skip(reason)
	}
	w := watch(t)
	if !w.set.Tier().CanDeny() {
		t.Skipf("tier %s sees no opens of rings but as operations, which name nothing", w.set.Tier())
	}
	w.wants(t, withGiven())
	dir := place(t, "a/file")
	as := dir + "/a/../a/file"
	pid, _ := perform(t, "ring-open", as)
	e := w.await(t, "open", func(e *eventv1.Event) bool {
		return isOpen(e.GetProcess().GetPid(), inodeOf(t, as))(e) && byRing(e, pid)
	})
	if got, want := givenOf(e), fmt.Sprintf("%q %v truncated=false unreadable=false", as, fromKernel); got != want {
		t.Errorf("given = %s, want %s", got, want)
	}
}

// What another thread did to the path meanwhile is told where only the caller's memory is left, and marked as such: a lie as an
// argument, a path that is longer than any as truncated, one that is gone as missing and not as empty.
func TestB25PathTamperedWithDuringTheCall(t *testing.T) {
	w := watch(t)
	w.wants(t, withGiven())
	for _, tt := range []struct{ how, want string }{
		{"rewrite", fmt.Sprintf("%q %v truncated=false unreadable=false", "/innocent", fromArgument)},
		{"lengthen", fmt.Sprintf("%q %v truncated=true unreadable=false", strings.Repeat("x", unix.PathMax), fromArgument)},
		{"unmap", fmt.Sprintf("%q %v truncated=false unreadable=true", "", fromArgument)},
	} {
		t.Run(tt.how, func(t *testing.T) {
			fifo := filepath.Join(place(t), "fifo")
			if err := unix.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			want := tt.want
			if w.set.Tier().CanDeny() {
				want = fmt.Sprintf("%q %v truncated=false unreadable=false", fifo, fromKernel)
			}
			pid, _ := perform(t, "open-tampering", fifo, tt.how)
			e := w.await(t, "open", func(e *eventv1.Event) bool {
				return isOpen(pid, inodeOf(t, fifo))(e) && e.GetFileOpen().GetFlags()&unix.O_ACCMODE == unix.O_RDONLY
			})
			if got := givenOf(e); got != want {
				t.Errorf("given = %s, want %s", got, want)
			}
		})
	}
}

// The times of a program's file are those that stat(2) tells, at an exec and of what ran before.
func TestTimesOfTheProgramsFile(t *testing.T) {
	w := watch(t)
	program := filepath.Join(place(t), "program")
	raw, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, raw, 0o700); err != nil {
		t.Fatal(err)
	}
	written := time.Unix(1_234_567_890, 123_456_789)
	if err := os.Chtimes(program, written, written); err != nil {
		t.Fatal(err)
	}
	ctime := ctimeOf(t, program)
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = actor(t, "nothing").Env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	e := w.await(t, "exec", isExec(uint32(cmd.Process.Pid))).GetExec()
	if e.GetExeMtimeNs() != written.UnixNano() || e.GetExeCtimeNs() != ctime {
		t.Errorf("mtime and ctime = %d and %d, want %d and %d", e.GetExeMtimeNs(), e.GetExeCtimeNs(), written.UnixNano(), ctime)
	}
	existing, err := snapshot.Snapshot{Open: w.set.Tasks, Decoder: decoder(), Proc: "/proc"}.Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range existing {
		if event.GetProcess().GetPid() != uint32(os.Getpid()) {
			continue
		}
		if got, want := event.GetExisting().GetExeCtimeNs(), ctimeOf(t, "/proc/self/exe"); got != want {
			t.Errorf("ctime of what runs already = %d, want %d", got, want)
		}
		return
	}
	t.Error("this process is not among those that run already")
}

func ctimeOf(t *testing.T, path string) int64 {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Ctim.Nano()
}

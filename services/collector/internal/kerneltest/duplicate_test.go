package kerneltest

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
)

// duplicate is the role: by the call args[0] it makes a duplicate of what args[1] says at descriptor args[2], and prints which
// descriptor it duplicated and what the ends of its connection are.
func duplicate(args []string) error {
	to, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	from, ends, err := connection(args[1])
	if err != nil {
		return err
	}
	fmt.Println(from, ends)
	if !strings.HasPrefix(args[0], "dup2") && args[0] != "dup3" {
		// The others take the first that is free.
		if err := unix.Close(to); err != nil {
			return err
		}
	}
	got, err := duplicateBy(args[0], from, to)
	if err == nil && got != to {
		err = fmt.Errorf("%s made descriptor %d, want %d", args[0], got, to)
	}
	return err
}

func duplicateBy(call string, from, to int) (int, error) {
	switch call {
	case "dup":
		return unix.Dup(from)
	case "dup2":
		return to, rawDup2(from, to)
	case "dup2 and F_GETFD": // whose result is 0 as well
		if err := rawDup2(from, to); err != nil {
			return -1, err
		}
		return unix.FcntlInt(uintptr(from), unix.F_GETFD, 0)
	case "dup3":
		return to, unix.Dup3(from, to, 0)
	case "F_DUPFD":
		return unix.FcntlInt(uintptr(from), unix.F_DUPFD, to)
	case "F_DUPFD_CLOEXEC":
		return unix.FcntlInt(uintptr(from), unix.F_DUPFD_CLOEXEC, to)
	case "pidfd_getfd":
		pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
		if err != nil {
			return -1, err
		}
		if pidfd == to { // the very descriptor that was free
			if pidfd, err = unix.FcntlInt(uintptr(pidfd), unix.F_DUPFD, to+1); err != nil {
				return -1, err
			}
			if err := unix.Close(to); err != nil {
				return -1, err
			}
		}
		return unix.PidfdGetfd(pidfd, from, 0)
	}
	return -1, fmt.Errorf("no call %q", call)
}

// connection is a descriptor of one, and what its ends are called. It stays open.
func connection(what string) (fd int, ends string, err error) {
	switch what {
	case "unix":
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		return pair[0], "", err
	case "pipe":
		var pair [2]int
		err := unix.Pipe(pair[:])
		return pair[0], "", err
	case "unconnected":
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
		return fd, "[::]:0 [::]:0", err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return -1, "", err
	}
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return -1, "", err
	}
	server, err := l.Accept()
	if err != nil {
		return -1, "", err
	}
	conn := client
	if what == "accepted" {
		conn = server
	}
	file, err := conn.(*net.TCPConn).File()
	if err != nil {
		return -1, "", err
	}
	fd, err = unix.Dup(int(file.Fd())) // one that nobody else closes
	return fd, conn.LocalAddr().String() + " " + conn.RemoteAddr().String(), err
}

func isDuplicate(pid uint32) func(*eventv1.Event) bool {
	return func(e *eventv1.Event) bool { return e.GetProcess().GetPid() == pid && e.GetDuplicate() != nil }
}

// Whatever call puts it there, a socket that becomes a standard stream is told, with both ends as the kernel has them.
func TestB11DuplicatesOfSockets(t *testing.T) {
	w := watch(t)
	missing := map[string]bool{}
	for _, hook := range w.set.Missing() {
		missing[hook.Name] = true
	}
	if missing["duplicate"] && w.set.Tier() != probe.TierTracepoint {
		t.Fatalf("hook duplicate is missing in tier %s", w.set.Tier())
	}
	for _, tt := range []struct {
		call, what string
		to         int
		want       eventv1.DuplicateCall
	}{
		{"dup", "connected", 0, eventv1.DuplicateCall_DUPLICATE_CALL_DUP},
		{"dup2", "connected", 1, eventv1.DuplicateCall_DUPLICATE_CALL_DUP2},
		{"dup3", "connected", 2, eventv1.DuplicateCall_DUPLICATE_CALL_DUP3},
		{"F_DUPFD", "connected", 0, eventv1.DuplicateCall_DUPLICATE_CALL_FCNTL},
		{"F_DUPFD_CLOEXEC", "connected", 0, eventv1.DuplicateCall_DUPLICATE_CALL_FCNTL},
		{"pidfd_getfd", "connected", 0, eventv1.DuplicateCall_DUPLICATE_CALL_PIDFD_GETFD},
		{"dup2", "accepted", 0, eventv1.DuplicateCall_DUPLICATE_CALL_DUP2},
		{"dup2", "unconnected", 0, eventv1.DuplicateCall_DUPLICATE_CALL_DUP2},
	} {
		t.Run(fmt.Sprintf("%s of %s to %d", tt.call, tt.what, tt.to), func(t *testing.T) {
			pid, output := perform(t, "duplicate", tt.call, tt.what, strconv.Itoa(tt.to))
			e := w.await(t, "duplicate", isDuplicate(pid))
			d := e.GetDuplicate()
			got := fmt.Sprint(d.GetSource(), " ", endpoint(d.GetLocal()), " ", endpoint(d.GetRemote()))
			if got != output {
				t.Errorf("source, local and remote = %s, want %s", got, output)
			}
			if e.GetResult() != int64(tt.to) || !e.GetResultKnown() || d.GetCall() != tt.want {
				t.Errorf("result %s of %v, want %d of %v", result(e), d.GetCall(), tt.to, tt.want)
			}
			if d.GetAccepted() != (tt.what == "accepted") {
				t.Errorf("accepted = %v", d.GetAccepted())
			}
		})
	}
}

// What tells nobody anything is filtered: sockets in other places, what is no socket, sockets that do not leave the machine, and
// other commands of fcntl whose results look like descriptors.
func TestDuplicatesOfNoInterest(t *testing.T) {
	w := watch(t)
	var pids []uint32
	for _, args := range [][]string{
		{"dup3", "connected", "77"}, {"dup2", "unix", "0"}, {"dup2", "pipe", "0"},
	} {
		pid, _ := perform(t, "duplicate", args...)
		pids = append(pids, pid)
	}
	pid, _ := perform(t, "duplicate", "dup2 and F_GETFD", "connected", "0")
	w.await(t, "duplicate", isDuplicate(pid))
	awaitAll(t, w)
	for _, pid := range pids {
		if n := w.count(isDuplicate(pid)); n != 0 {
			t.Errorf("%d duplicates of process %d, want none", n, pid)
		}
	}
	if n := w.count(isDuplicate(pid)); n != 1 {
		t.Errorf("%d duplicates, want 1", n)
	}
	w.wants(t, &collectorv1.Interest{Classes: []string{"file_open"}})
	pid, _ = perform(t, "duplicate", "dup2", "connected", "0")
	w.await(t, "exit", func(e *eventv1.Event) bool { return e.GetProcess().GetPid() == pid && e.GetExit() != nil })
	awaitAll(t, w)
	if n := w.count(isDuplicate(pid)); n != 0 {
		t.Errorf("%d duplicates though nobody asked for them", n)
	}
}

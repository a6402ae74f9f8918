package kerneltest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/privilege"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
	"github.com/palisade-sec/palisade/services/collector/internal/snapshot"
)

// play does what a role's name says with the command line's arguments and returns the exit code.
func play(role string) int {
	roles := map[string]func(args []string) error{
		"nothing":      func([]string) error { return nil },
		"wait":         waitForInput,
		"open":         openWith,
		"work":         work,
		"rewrite-path": rewritePath, "swap-link": swapLink, "rewrite-address": rewriteAddress,
		"ring-open-and-connect": ringOpenAndConnect, "disguise": disguise, "unpin": unpin,
		"run-long":   runLong,
		"block-open": blockOpen, "block-connect": blockConnect,
		"every-call":     everyCall,
		"more":           moreOperations,
		"connect":        connectTo,
		"duplicate":      duplicate,
		"open-tampering": openWithTampering,
		"ring-open":      ringOpen,
		"connect-many":   connectMany,
		"open-many":      openMany,
		"exec-many":      execMany,
		"getppid-many":   getppidMany,
		"exec-memfd":     func([]string) error { return execMemfd() },
		"no-new-privs":   execWithoutNewPrivileges,
		"trigger":        trigger,
		"forbidden":      tryForbidden,
		"try-on":         tryOn,
		"ask":            ask,
		"ask-stream":     askStream,
		"x32":            x32Operations,
		"guard-and-wait": guardAndWait,
		"unprivileged":   func([]string) error { return loadUnprivileged() },
	}
	if code, ok := strings.CutPrefix(role, "exit-"); ok {
		n, _ := strconv.Atoi(code)
		return n
	}
	act, ok := roles[role]
	if !ok {
		return fails(fmt.Errorf("no role %q", role))
	}
	runtime.LockOSThread()
	if err := act(os.Args[1:]); err != nil {
		return fails(err)
	}
	return 0
}

// waitForInput says that it runs and waits until standard input is closed.
func waitForInput([]string) error {
	fmt.Println("ready")
	_, err := os.Stdin.Read(make([]byte, 1))
	if err.Error() == "EOF" {
		return nil
	}
	return err
}

// openWith opens args[1] by the system call args[0], to read or with the flags args[2]; creat has flags of its own.
func openWith(args []string) error {
	path, flags := args[1], unix.O_RDONLY
	if len(args) > 2 {
		var err error
		if flags, err = strconv.Atoi(args[2]); err != nil {
			return err
		}
	}
	calls := map[string]func() (int, error){
		"open": func() (int, error) { return rawOpen(path, flags) },
		"openat": func() (int, error) {
			return unix.Openat(unix.AT_FDCWD, path, flags, 0o600)
		},
		"openat2": func() (int, error) {
			return unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: uint64(flags)})
		},
		"creat": func() (int, error) { return unix.Creat(path, 0o600) },
		"handle": func() (int, error) {
			handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
			if err != nil {
				return -1, err
			}
			mount, err := unix.Open(filepath.Dir(path), unix.O_RDONLY|unix.O_DIRECTORY, 0)
			if err != nil {
				return -1, err
			}
			return unix.OpenByHandleAt(mount, handle, flags)
		},
	}
	fd, err := calls[args[0]]()
	if err != nil {
		return fmt.Errorf("%s %s: %w", args[0], path, err)
	}
	return unix.Close(fd)
}

func openMany(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for range n {
		fd, err := unix.Open(args[1], unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return nil
}

func getppidMany(args []string) error {
	n, err := strconv.Atoi(args[0])
	for range n {
		unix.Getppid()
	}
	return err
}

func execMany(args []string) error {
	n, err := strconv.Atoi(args[0])
	for range n {
		err = errors.Join(err, exec.Command("/bin/true").Run())
	}
	return err
}

// connectMany makes the same socket's connection again and again.
func connectMany(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for range n {
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return err
		}
	}
	return nil
}

// connectTo connects a socket of type args[0] (tcp, udp) to the address args[1] and prints what came of it.
func connectTo(args []string) error {
	addr, err := net.ResolveTCPAddr("tcp", args[1])
	if err != nil {
		return err
	}
	kind := unix.SOCK_STREAM
	if args[0] == "udp" {
		kind = unix.SOCK_DGRAM
	}
	family, to := unix.AF_INET, unix.Sockaddr(nil)
	if ip := addr.IP.To4(); ip != nil {
		to = &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(ip)}
	} else {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Port: addr.Port, Addr: [16]byte(addr.IP)}
	}
	fd, err := unix.Socket(family, kind, 0)
	if err != nil {
		return err
	}
	err = unix.Connect(fd, to)
	var errno syscall.Errno
	if err != nil && !errors.As(err, &errno) {
		return err
	}
	fmt.Println(int(errno))
	return nil
}

// execMemfd becomes a program that lies in memory only: a copy of this one, with nothing to do.
func execMemfd() error {
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("innocent", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	if _, err := unix.Write(fd, program); err != nil {
		return err
	}
	return unix.Exec(fmt.Sprintf("/proc/self/fd/%d", fd), []string{"innocent"}, []string{roleVariable + "=nothing", "GORACE=atexit_sleep_ms=0"})
}

// execWithoutNewPrivileges becomes the program args[0], whose file can give it nothing.
func execWithoutNewPrivileges(args []string) error {
	return errorsOf(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), unix.Exec(args[0], args, nil))
}

// loadUnprivileged is a collector as it is deployed: load, drop what is no longer needed, go on working.
func loadUnprivileged() error {
	set, err := probe.Load(probe.DefaultConfig())
	if err != nil {
		return err
	}
	if err := privilege.DropAllBut(set.Keeps()...); err != nil {
		return err
	}
	if _, err := set.Lost(); err != nil {
		return err
	}
	existing, err := snapshot.Snapshot{Open: set.Tasks, Decoder: decoder(), Proc: "/proc"}.Processes(context.Background())
	if err != nil {
		return err
	}
	if len(existing) < 2 {
		return fmt.Errorf("snapshot of %d processes", len(existing))
	}
	return set.Close()
}

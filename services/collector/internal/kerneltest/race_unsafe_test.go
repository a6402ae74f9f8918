package kerneltest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The roles in this file are attackers that change what a call was given, while it runs. What they print is what the kernel
// really did.

// swapper changes something back and forth on a second thread until it is stopped.
func swapper(swap func(i int) error) (stop func() error) {
	var halt atomic.Bool
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		for i := 0; !halt.Load(); i++ {
			if err := swap(i); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	return func() error { halt.Store(true); return <-ended }
}

// rewritePath opens args[0] times the file a in the directory args[1], while another thread makes b of the a and back, and
// prints how often it got which.
func rewritePath(args []string) error {
	path := append([]byte(filepath.Join(args[1], "a")), 0)
	letter := &path[len(path)-2]
	stop := swapper(func(i int) error { *letter = "ab"[i&1]; return nil })
	return openTimes(args[0], args[1], stop, func() (int, error) { return openBuffer(path) })
}

// swapLink does the same to a symbolic link.
func swapLink(args []string) error {
	dir, link := args[1], filepath.Join(args[1], "link")
	if err := unix.Symlink("a", link); err != nil {
		return err
	}
	stop := swapper(func(i int) error {
		next := filepath.Join(dir, "next")
		return errorsOf(unix.Symlink("ba"[i&1:i&1+1], next), unix.Rename(next, link))
	})
	return openTimes(args[0], dir, stop, func() (int, error) { return unix.Open(link, unix.O_RDONLY, 0) })
}

func openBuffer(path []byte) (int, error) {
	at := unix.AT_FDCWD
	fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(&path[0])), unix.O_RDONLY, 0, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// openTimes opens and asks each descriptor which file it is of.
func openTimes(times, dir string, stop func() error, open func() (int, error)) error {
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	got := map[uint64]int{}
	for i := range n {
		if i%16 == 0 {
			_ = rawCall(unix.SYS_SCHED_YIELD, 0, 0, 0) // there may be one processor for both threads
		}
		fd, err := open()
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := errorsOf(unix.Fstat(fd, &st), unix.Close(fd)); err != nil {
			return err
		}
		got[st.Ino]++
	}
	if err := stop(); err != nil {
		return err
	}
	for _, name := range []string{"a", "b"} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, name), &st); err != nil {
			return err
		}
		fmt.Println(got[st.Ino])
	}
	return nil
}

// rewriteAddress connects args[0] times to 127.0.0.9, while another thread makes 127.0.0.10 of it and back, and prints how
// often it got to which.
func rewriteAddress(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	to := inet4(netip.MustParseAddrPort("127.0.0.9:4242"))
	stop := swapper(func(i int) error { to.Addr[3] = 9 + byte(i&1); return nil })
	var got [2]int
	for i := range n {
		if i%16 == 0 {
			_ = rawCall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		}
		if err := connectBuffer(fd, to); err != nil {
			return err
		}
		peer, err := unix.Getpeername(fd)
		if err != nil {
			return err
		}
		got[peer.(*unix.SockaddrInet4).Addr[3]-9]++
	}
	fmt.Println(got[0])
	fmt.Println(got[1])
	return stop()
}

func inet4(to netip.AddrPort) *unix.RawSockaddrInet4 {
	return &unix.RawSockaddrInet4{Family: unix.AF_INET, Port: to.Port()<<8 | to.Port()>>8, Addr: to.Addr().As4()}
}

func connectBuffer(fd int, to *unix.RawSockaddrInet4) error {
	if _, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(to)), unix.SizeofSockaddrInet4); errno != 0 {
		return errno
	}
	return nil
}

// during runs a call on a thread of its own and does something while the call blocks.
func during(number int, call, something func() error) error {
	thread, ended := make(chan int), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		thread <- unix.Gettid()
		ended <- call()
	}()
	path := fmt.Sprintf("/proc/self/task/%d/syscall", <-thread)
	for deadline := time.Now().Add(patience); ; {
		in, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.HasPrefix(string(in), strconv.Itoa(number)+" ") {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the call does not block: %s", in)
		}
		time.Sleep(time.Millisecond)
	}
	return errorsOf(something(), <-ended)
}

// blockOpen opens the FIFO real in the directory args[0], which blocks, and has its path rewritten to fake before it returns.
func blockOpen(args []string) error {
	real, fake := filepath.Join(args[0], "real"), filepath.Join(args[0], "fake")
	path := append([]byte(real), 0)
	return during(unix.SYS_OPENAT, func() error {
		_, err := openBuffer(path)
		return err
	}, func() error {
		copy(path, fake)
		_, err := unix.Open(real, unix.O_WRONLY, 0) // which lets the other go on
		return err
	})
}

// blockConnect connects to a listener that has no place, which blocks, and has the address rewritten before it returns. It
// prints where it got to.
func blockConnect([]string) error {
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := errorsOf(unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(listener, 0)); err != nil {
		return err
	}
	name, err := unix.Getsockname(listener)
	if err != nil {
		return err
	}
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(name.(*unix.SockaddrInet4).Port)) //nolint:gosec // a port
	if _, err := net.Dial("tcp", at.String()); err != nil {                                             // takes the only place
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	to := inet4(at)
	err = during(unix.SYS_CONNECT, func() error { return connectBuffer(fd, to) }, func() error {
		to.Addr, to.Port = [4]byte{192, 0, 2, 1}, 0x5000
		_, _, err := unix.Accept(listener) // makes a place
		return err
	})
	fmt.Println(at)
	return err
}

// Command trigger does one thing that a rule is about, under whatever name it was copied to: a rule that asks for sshd or
// debugfs sees the name of the file. It is static, needs no file but itself, and speaks to nobody but itself.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) < 2 {
		return
	}
	do, ok := deeds[os.Args[1]]
	if !ok {
		fmt.Fprintf(os.Stderr, "%s: nothing is called %q\n", os.Args[0], os.Args[1])
		os.Exit(2)
	}
	if err := do(os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
		os.Exit(1)
	}
}

// deeds are what can be asked for, by the first argument.
var deeds = map[string]func(args []string) error{
	"attach":   attach,
	"connect":  connect,
	"memfd":    fromMemory,
	"module":   loadModule,
	"nothing":  func([]string) error { return nil },
	"packet":   packetSocket,
	"read":     read,
	"readlate": readLate,
	"redirect": redirect,
	"resolve":  resolve,
	"run":      func(args []string) error { return run(nil, args) },
	"runas":    runAs,
	"traceme":  traceMe,
}

// read opens a file, by the path as it is written.
func read(args []string) error {
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	return f.Close()
}

// trusted is for how long a rule takes a program for one that starts, and a little more.
const trusted = 5*time.Second + 200*time.Millisecond

func readLate(args []string) error {
	time.Sleep(trusted)
	return read(args)
}

// run has a child do it.
func run(attributes *syscall.SysProcAttr, args []string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = attributes
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// runAs has a child of another uid and gid do it.
func runAs(args []string) error {
	id, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil {
		return err
	}
	return run(&syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(id), Gid: uint32(id)}}, args[1:])
}

func packetSocket([]string) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// loadModule offers the kernel what is no module.
func loadModule([]string) error {
	if err := unix.InitModule([]byte("no module"), ""); err == nil {
		return errors.New("the kernel took it")
	}
	return nil
}

// attach stops a child of its own as a debugger does, and lets it go.
func attach([]string) error {
	runtime.LockOSThread() // the thread that attached is the one that may detach
	child := exec.Command("/proc/self/exe", "readlate", "/")
	if err := child.Start(); err != nil {
		return err
	}
	err := unix.PtraceAttach(child.Process.Pid)
	if err == nil {
		_, err = unix.Wait4(child.Process.Pid, nil, 0, nil)
	}
	if err == nil {
		err = unix.PtraceDetach(child.Process.Pid)
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	return err
}

// traceMe keeps debuggers away by having one already.
func traceMe([]string) error {
	if _, _, errno := unix.Syscall(unix.SYS_PTRACE, unix.PTRACE_TRACEME, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// fromMemory executes a copy of itself that never was in a file system.
func fromMemory([]string) error {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("payload", 0)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), "payload")
	if _, err := file.Write(self); err != nil {
		return err
	}
	return unix.Exec(fmt.Sprintf("/proc/self/fd/%d", fd), []string{"payload", "nothing"}, nil)
}

// connected reaches an address of this machine, where it listens itself, and shows the connection.
func connected(address string, show func(*net.TCPConn) error) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	return show(conn.(*net.TCPConn))
}

// connect makes a connection.
func connect(args []string) error {
	return connected(args[0], func(conn *net.TCPConn) error { return conn.Close() })
}

// redirect makes a connection its standard input, as a shell for somebody else has it.
func redirect(args []string) error {
	return connected(args[0], func(conn *net.TCPConn) error {
		file, err := conn.File()
		if err != nil {
			return err
		}
		return unix.Dup3(int(file.Fd()), 0, 0)
	})
}

// resolve asks a name server of its own for a name, and connects to the address that it told: NAME ADDRESS PORT.
func resolve(args []string) error {
	server, err := net.ListenPacket("udp", "127.0.0.1:53")
	if err != nil {
		return err
	}
	defer server.Close()
	go answer(server, net.ParseIP(args[1]).To4())
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", "127.0.0.1:53")
	}}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	found, err := resolver.LookupIP(ctx, "ip4", args[0]+".")
	if err != nil {
		return err
	}
	return connect([]string{net.JoinHostPort(found[0].String(), args[2])})
}

// answer says that every name has the address (RFC 1035): the question again, and one record that points to its name.
func answer(server net.PacketConn, ip net.IP) {
	const header, fixed = 12, 4 // bytes of the header, and of type and class behind a name
	question := make([]byte, 512)
	for {
		n, from, err := server.ReadFrom(question)
		if err != nil {
			return
		}
		end := header
		for end < n && question[end] != 0 {
			end += int(question[end]) + 1
		}
		if end += 1 + fixed; end > n {
			continue
		}
		reply := append([]byte(nil), question[:end]...)
		reply[2], reply[3] = 0x84, 0             // an answer, authoritative, no error
		binary.BigEndian.PutUint16(reply[6:], 1) // one answer
		binary.BigEndian.PutUint32(reply[8:], 0) // nothing else
		reply = append(reply, 0xC0, header)      // the name is the question's
		reply = append(reply, 0, 1, 0, 1)        // type A, class IN
		reply = append(reply, 0, 0, 0, 60, 0, 4) // for a minute, four bytes
		_, err = server.WriteTo(append(reply, ip...), from)
		if err != nil && !errors.Is(err, io.EOF) {
			return
		}
	}
}

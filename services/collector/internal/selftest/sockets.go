package selftest

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

var loopback = [4]byte{127, 0, 0, 1}

// soon is how long a connection to ourselves may take, in ms.
const soon = 50

func makeSocket(*ground) error {
	return withSocket(unix.AF_UNIX, unix.SOCK_STREAM, func(int) error { return nil })
}

func bindSocket(*ground) error {
	return withSocket(unix.AF_UNIX, unix.SOCK_STREAM, func(fd int) error { return unix.Bind(fd, &unix.SockaddrUnix{}) })
}

func listenSocket(*ground) error {
	return withListener(unix.AF_UNIX, &unix.SockaddrUnix{}, func(int, unix.Sockaddr) error { return nil })
}

// connectSocket connects to a name in the network namespace, which the kernel chose.
func connectSocket(*ground) error {
	return withListener(unix.AF_UNIX, &unix.SockaddrUnix{}, func(_ int, at unix.Sockaddr) error {
		return withSocket(unix.AF_UNIX, unix.SOCK_STREAM, func(fd int) error { return unix.Connect(fd, at) })
	})
}

// sendDatagram sends to itself. Where there is no loopback network the kernel asks before it finds out.
func sendDatagram(*ground) error {
	return withSocket(unix.AF_INET, unix.SOCK_DGRAM, func(fd int) error {
		to := unix.Sockaddr(&unix.SockaddrInet4{Addr: loopback, Port: 9})
		if unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback}) == nil {
			to, _ = unix.Getsockname(fd)
		}
		return unix.Sendto(fd, []byte{0}, unix.MSG_DONTWAIT, to)
	})
}

// socketAsInput makes a socket this process's input, which nothing reads, and gives it the old one back.
func socketAsInput(*ground) error {
	const input, above = 0, 2
	return withSocket(unix.AF_INET, unix.SOCK_DGRAM, func(fd int) error {
		before, err := unix.FcntlInt(input, unix.F_DUPFD_CLOEXEC, above+1)
		if err != nil {
			return fmt.Errorf("keep the input: %w", err)
		}
		done := refused(unix.Dup3(fd, input, 0))
		return errors.Join(done, unix.Dup3(before, input, 0), unix.Close(before))
	})
}

// acceptConnection accepts its own. Without a loopback network there is none.
func acceptConnection(*ground) error {
	return withListener(unix.AF_INET, &unix.SockaddrInet4{Addr: loopback}, func(listener int, at unix.Sockaddr) error {
		return withSocket(unix.AF_INET, unix.SOCK_STREAM, func(fd int) error {
			if err := unix.Connect(fd, at); err != nil && !errors.Is(err, unix.EINPROGRESS) {
				return err
			}
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}, soon); err != nil { //nolint:gosec // a descriptor
				return err
			}
			accepted, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
			if err != nil {
				return err
			}
			return unix.Close(accepted)
		})
	})
}

// withSocket makes a socket that does not block, for as long as do runs.
func withSocket(family, kind int, do func(fd int) error) error {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	return errors.Join(do(fd), unix.Close(fd))
}

// withListener makes one that listens, and says where.
func withListener(family int, at unix.Sockaddr, do func(fd int, at unix.Sockaddr) error) error {
	return withSocket(family, unix.SOCK_STREAM, func(fd int) error {
		if err := unix.Bind(fd, at); err != nil {
			return err
		}
		if err := unix.Listen(fd, 1); err != nil {
			return err
		}
		name, err := unix.Getsockname(fd)
		if err != nil {
			return err
		}
		return do(fd, name)
	})
}

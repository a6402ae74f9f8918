// Command compat32 is built for GOARCH=386 by the test of 32-bit system calls: it opens a file and connects a socket.
//
// # Privileges
//
// None of its own: the test that starts it decides.
package main

import (
	"net"
	"os"
	"strconv"
	"syscall"
)

func main() {
	fd, err := syscall.Open(os.Args[1], syscall.O_RDONLY, 0)
	if err != nil {
		panic(err)
	}
	_ = syscall.Close(fd)
	host, port, err := net.SplitHostPort(os.Args[2])
	if err != nil {
		panic(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		panic(err)
	}
	to := &syscall.SockaddrInet4{Port: number, Addr: [4]byte(net.ParseIP(host).To4())}
	if fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0); err != nil {
		panic(err)
	}
	if err := syscall.Connect(fd, to); err != nil {
		panic(err)
	}
}

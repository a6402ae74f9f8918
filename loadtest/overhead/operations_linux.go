package main

import (
	"errors"
	"net"
	"os/exec"
	"path/filepath"
	"syscall"
)

// operation is one thing programs do all the time.
type operation struct {
	name  string
	times int // in one measurement
	run   func() error
}

func operations(directory string) []operation {
	path := filepath.Join(directory, "file")
	return []operation{
		{name: "getppid", times: 500_000, run: func() error { syscall.Getppid(); return nil }},
		{name: "open for write, close", times: 50_000, run: func() error { return openClose(path, syscall.O_RDWR|syscall.O_CREAT) }},
		{name: "open, close", times: 50_000, run: func() error { return openClose(path, syscall.O_RDONLY) }},
		{name: "listen, connect, accept, close", times: 1_000, run: connectAccept},
		{name: "spawn /bin/true, wait", times: 100, run: func() error { return exec.Command("/bin/true").Run() }},
	}
}

func openClose(path string, flags int) error {
	fd, err := syscall.Open(path, flags|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	return syscall.Close(fd)
}

// connectAccept makes one connection over loopback, from socket to close. The server resets it, because one that is
// closed in order holds its port for a minute, and a benchmark runs out of them.
func connectAccept() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return err
	}
	defer client.Close()
	server, err := listener.Accept()
	if err != nil {
		return err
	}
	if tcp, ok := server.(*net.TCPConn); ok {
		err = tcp.SetLinger(0)
	}
	return errors.Join(err, server.Close())
}

// Package ask asks the enforcer whether a container may be created, and tells it that one starts.
//
// In: what the shim knows of the container. Out: yes, no with a text, or that there was no answer in time. The form is docs/adr/0015's: one
// message of api/palisade/enforcer/v1/admission.proto behind its length, over a unix socket. It speaks with the kernel itself, for
// what package net links costs a start more than the question does.
package ask

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// maxAnswer bounds an answer in bytes; a text is some 4 KiB.
const maxAnswer = 64 << 10

// ErrStranger says that another than root serves the socket.
var ErrStranger = errors.New("it is not root that answers")

// Ask waits until the deadline at most. Any error means that there is no answer.
func Ask(socket string, q Question, deadline time.Time) (Answer, error) {
	fd, err := connect(socket, deadline)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = syscall.Close(fd) }() // it was only read
	message := q.marshal()
	out := binary.BigEndian.AppendUint32(make([]byte, 0, lengthBytes+len(message)), uint32(len(message))) //nolint:gosec // bounded by package bundle
	if err := send(fd, append(out, message...), deadline); err != nil {
		return Answer{}, err
	}
	length := make([]byte, lengthBytes)
	if err := receive(fd, length, deadline); err != nil {
		return Answer{}, err
	}
	n := binary.BigEndian.Uint32(length)
	if n > maxAnswer {
		return Answer{}, fmt.Errorf("the answer has %d bytes, at most %d", n, maxAnswer)
	}
	raw := make([]byte, n)
	if err := receive(fd, raw, deadline); err != nil {
		return Answer{}, err
	}
	return parse(raw)
}

const lengthBytes = 4

// connect returns a socket that root serves.
func connect(path string, deadline time.Time) (fd int, err error) {
	fd, err = syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			_ = syscall.Close(fd)
		}
	}()
	if err := until(fd, syscall.SO_SNDTIMEO, deadline); err != nil { // a full queue of callers makes connect wait (unix(7))
		return -1, err
	}
	if err := ignoringSignals(func() error { return syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}) }); err != nil {
		return -1, fmt.Errorf("connect to %s: %w", path, err)
	}
	peer, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil {
		return -1, err
	}
	if peer.Uid != 0 {
		return -1, ErrStranger
	}
	return fd, nil
}

func send(fd int, raw []byte, deadline time.Time) error {
	for len(raw) > 0 {
		if err := until(fd, syscall.SO_SNDTIMEO, deadline); err != nil {
			return err
		}
		n, err := syscall.SendmsgN(fd, raw, nil, nil, syscall.MSG_NOSIGNAL)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return err
		}
		raw = raw[max(n, 0):]
	}
	return nil
}

func receive(fd int, into []byte, deadline time.Time) error {
	for len(into) > 0 {
		if err := until(fd, syscall.SO_RCVTIMEO, deadline); err != nil {
			return err
		}
		n, err := syscall.Read(fd, into)
		switch {
		case err != nil && !errors.Is(err, syscall.EINTR):
			return err
		case err == nil && n == 0:
			return errors.New("the enforcer hung up")
		}
		into = into[max(n, 0):]
	}
	return nil
}

// errLate says that the time is up.
var errLate = errors.New("there is no answer in time")

// until bounds the next call on a socket.
func until(fd, option int, deadline time.Time) error {
	left := time.Until(deadline)
	if left <= 0 {
		return errLate
	}
	// 0 would mean for ever.
	timeout := syscall.NsecToTimeval(max(left, time.Microsecond).Nanoseconds())
	return syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, option, &timeout)
}

func ignoringSignals(call func() error) error {
	for {
		if err := call(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

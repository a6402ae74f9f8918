package unixsock

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestListenIsNeverOpenToOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "collector.sock")
	l, err := Listen(path, os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode(), os.ModeSocket|0o660; got != want {
		t.Errorf("mode of %s = %v, want %v", path, got, want)
	}
	if err := l.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close, Lstat(%s) = %v, want it gone", path, err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 0 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}

func TestListenRefusesALiveSocketAndReplacesADeadOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gate.sock")
	first, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	first.SetUnlinkOnClose(false)
	if _, err := Listen(path, os.Getgid()); !errors.Is(err, ErrInUse) {
		t.Errorf("Listen on a served socket = %v, want ErrInUse", err)
	}
	first.Close() // as a killed process leaves it: the name stays
	second, err := Listen(path, os.Getgid())
	if err != nil {
		t.Fatalf("Listen on a dead socket = %v, want it replaced", err)
	}
	defer second.Close()
}

func TestCloseLeavesASuccessorAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gate.sock")
	old, err := Listen(path, os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	old.UnixListener.Close() // no longer serving, name not yet removed
	next, err := Listen(path, os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	_ = old.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("after the predecessor's Close, Lstat(%s) = %v, want the successor's socket", path, err)
	}
}

func TestPeerOf(t *testing.T) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fds[1])
	file := os.NewFile(uintptr(fds[0]), "pair")
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer, err := PeerOf(conn)
	if err != nil {
		t.Fatal(err)
	}
	if int(peer.UID) != os.Getuid() || int(peer.PID) != os.Getpid() {
		t.Errorf("PeerOf(own pair) = %+v, want uid %d, pid %d", peer, os.Getuid(), os.Getpid())
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	client, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := PeerOf(client); err == nil {
		t.Error("PeerOf(tcp connection) = nil error, want one")
	}
}

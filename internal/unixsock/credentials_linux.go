package unixsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
)

// Peer is the process at the other end, as the kernel saw it when it connected (or, for a server, when it listened).
// The uid holds for the life of the connection. The pid is for logs: its process may be gone.
type Peer struct {
	credentials.CommonAuthInfo
	PID uint32
	UID uint32
	GID uint32
}

// AuthType names the scheme, as credentials.AuthInfo asks.
func (Peer) AuthType() string { return "unix" }

// PeerOf asks the kernel who is at the other end of conn (SO_PEERCRED, unix(7)).
func PeerOf(conn net.Conn) (Peer, error) {
	sock, ok := conn.(*net.UnixConn)
	if !ok {
		return Peer{}, fmt.Errorf("peer of a %T: not a unix socket", conn)
	}
	raw, err := sock.SyscallConn()
	if err != nil {
		return Peer{}, fmt.Errorf("peer of unix socket: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return Peer{}, fmt.Errorf("peer of unix socket: %w", err)
	}
	if credErr != nil {
		return Peer{}, fmt.Errorf("peer of unix socket: %w", credErr)
	}
	return Peer{
		// A unix socket does not leave the kernel: nobody can read or change what is on it.
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		PID:            uint32(cred.Pid), //nolint:gosec // a pid is never negative
		UID:            cred.Uid,
		GID:            cred.Gid,
	}, nil
}

// ServerCredentials attach the Peer to every connection a gRPC server accepts. They refuse nobody: the caller table
// does, per method.
func ServerCredentials() credentials.TransportCredentials { return creds{} }

// ClientCredentials let a gRPC client talk only to a server that runs as one of the uids.
func ClientCredentials(uids ...uint32) credentials.TransportCredentials {
	return creds{serverUIDs: slices.Clone(uids)}
}

type creds struct{ serverUIDs []uint32 }

func (c creds) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	peer, err := servedBy(conn, c.serverUIDs...)
	if err != nil {
		return nil, nil, err
	}
	return conn, peer, nil
}

// servedBy is who serves the other end of conn, an error if that is none of the uids.
func servedBy(conn net.Conn, uids ...uint32) (Peer, error) {
	peer, err := PeerOf(conn)
	if err == nil && !slices.Contains(uids, peer.UID) {
		err = fmt.Errorf("%s is served by uid %d, want %v", conn.RemoteAddr(), peer.UID, uids)
	}
	return peer, err
}

// Dial connects to the socket at path, and to nobody but the uid, for what speaks no gRPC. It gives up after timeout.
func Dial(ctx context.Context, path string, uid uint32, timeout time.Duration) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: timeout}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if _, err := servedBy(conn, uid); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (c creds) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	peer, err := PeerOf(conn)
	if err != nil {
		return nil, nil, err
	}
	return conn, peer, nil
}

func (c creds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix"}
}

func (c creds) Clone() credentials.TransportCredentials { return c }

func (c creds) OverrideServerName(string) error {
	return errors.New("a unix socket has no server name")
}

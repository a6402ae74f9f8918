package record

import (
	"bytes"
	"fmt"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// Address families.
const (
	familyUnix = 1
	familyIPv4 = 2
	familyIPv6 = 10
)

// underWay is what a connection is that has not succeeded or failed yet (EINPROGRESS).
const underWay = -115

func decodeConnect(raw []byte) (*eventv1.Event_Connect, error) {
	if len(raw) < socketSize {
		return nil, fmt.Errorf("connect of %d bytes: %w", len(raw), ErrShort)
	}
	result := int32(underWay)
	if u32(raw, headerFlags)&headerResultKnown != 0 {
		result = int32(u64(raw, headerResult)) //nolint:gosec // the C field is signed, and an errno
	}
	return &eventv1.Event_Connect{Connect: &eventv1.Connect{
		Family:       uint32(u16(raw, socketFamily)),
		Protocol:     uint32(u16(raw, socketProtocol)),
		Local:        address(raw, socketLocal, u16(raw, socketLocalPort)),
		Remote:       address(raw, socketRemote, u16(raw, socketRemotePort)),
		RemoteSource: addressSource(raw),
		Result:       result,
	}}, nil
}

func addressSource(raw []byte) eventv1.PathSource {
	if u32(raw, socketFlags)&socketRemoteIsGiven != 0 {
		return eventv1.PathSource_PATH_SOURCE_ARGUMENT
	}
	return eventv1.PathSource_PATH_SOURCE_KERNEL
}

func decodeAccept(raw []byte) (*eventv1.Event_Accept, error) {
	if len(raw) < socketSize {
		return nil, fmt.Errorf("accept of %d bytes: %w", len(raw), ErrShort)
	}
	return &eventv1.Event_Accept{Accept: &eventv1.Accept{
		Family:   uint32(u16(raw, socketFamily)),
		Protocol: uint32(u16(raw, socketProtocol)),
		Local:    address(raw, socketLocal, u16(raw, socketLocalPort)),
		Remote:   address(raw, socketRemote, u16(raw, socketRemotePort)),
	}}, nil
}

// address reads one end of a socket_record or dns_record, whose families lie in the same place; nil if they are not of IP.
func address(raw []byte, ip int, port uint16) *eventv1.SocketAddress {
	size := 16
	switch u16(raw, socketFamily) {
	case familyIPv4:
		size = 4
	case familyIPv6:
	default:
		return nil
	}
	return &eventv1.SocketAddress{Ip: bytes.Clone(raw[ip : ip+size]), Port: uint32(port)}
}

// sockets are the kinds of record that a Socket stands for.
var sockets = map[Kind]eventv1.SocketOperation{
	Socket:      eventv1.SocketOperation_SOCKET_OPERATION_CREATE,
	Bind:        eventv1.SocketOperation_SOCKET_OPERATION_BIND,
	Listen:      eventv1.SocketOperation_SOCKET_OPERATION_LISTEN,
	Send:        eventv1.SocketOperation_SOCKET_OPERATION_SEND,
	ConnectUnix: eventv1.SocketOperation_SOCKET_OPERATION_CONNECT_UNIX,
}

func decodeSocket(raw []byte, operation eventv1.SocketOperation) (*eventv1.Event_Socket, error) {
	if len(raw) < socketSize {
		return nil, fmt.Errorf("socket of %d bytes: %w", len(raw), ErrShort)
	}
	path, _, err := take(raw[socketSize:], uint32(u16(raw, socketUnixLen)), "path of a unix socket")
	if err != nil {
		return nil, err
	}
	s := &eventv1.Socket{
		Operation: operation,
		Family:    uint32(u16(raw, socketFamily)), Type: uint32(u16(raw, socketType)), Protocol: uint32(u16(raw, socketProtocol)),
		UnixPath: unixPath(path), AddressSource: addressSource(raw),
	}
	switch operation { //nolint:exhaustive // the others have no address of IP
	case eventv1.SocketOperation_SOCKET_OPERATION_BIND, eventv1.SocketOperation_SOCKET_OPERATION_LISTEN:
		s.Address = address(raw, socketLocal, u16(raw, socketLocalPort))
	case eventv1.SocketOperation_SOCKET_OPERATION_SEND:
		s.Address = address(raw, socketRemote, u16(raw, socketRemotePort))
	}
	return &eventv1.Event_Socket{Socket: s}, nil
}

func decodeDuplicate(raw []byte) (*eventv1.Event_Duplicate, error) {
	if len(raw) < duplicateSize {
		return nil, fmt.Errorf("duplicate of %d bytes: %w", len(raw), ErrShort)
	}
	return &eventv1.Event_Duplicate{Duplicate: &eventv1.Duplicate{
		Call:     eventv1.DuplicateCall(u32(raw, duplicateCall)), //nolint:gosec // a small number
		Source:   int32(u32(raw, duplicateSource)),               //nolint:gosec // the C field is signed
		Family:   uint32(u16(raw, socketFamily)),
		Type:     uint32(u16(raw, socketType)),
		Protocol: uint32(u16(raw, socketProtocol)),
		Local:    address(raw, socketLocal, u16(raw, socketLocalPort)),
		Remote:   address(raw, socketRemote, u16(raw, socketRemotePort)),
		Accepted: u32(raw, socketFlags)&socketAccepted != 0,
	}}, nil
}

// unixPath is sun_path as people write it: up to the NUL, or, of an abstract address, all of it behind an @ (unix(7)).
func unixPath(raw []byte) string {
	if len(raw) == 0 {
		return ""
	}
	if raw[0] == 0 {
		return "@" + text(bytes.ReplaceAll(raw[1:], []byte{0}, []byte("@")))
	}
	path, _, _ := bytes.Cut(raw, []byte{0})
	return text(path)
}

package record

import (
	"bytes"
	"fmt"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

const familyIPv4 = 2

func decodeConnect(raw []byte) (*eventv1.Event_Connect, error) {
	if len(raw) < socketSize {
		return nil, fmt.Errorf("connect of %d bytes: %w", len(raw), ErrShort)
	}
	source := eventv1.PathSource_PATH_SOURCE_KERNEL
	if u32(raw, socketFlags)&socketRemoteIsGiven != 0 {
		source = eventv1.PathSource_PATH_SOURCE_ARGUMENT
	}
	return &eventv1.Event_Connect{Connect: &eventv1.Connect{
		Family:       uint32(u16(raw, socketFamily)),
		Protocol:     uint32(u16(raw, socketProtocol)),
		Local:        address(raw, socketLocal, socketLocalPort),
		Remote:       address(raw, socketRemote, socketRemotePort),
		RemoteSource: source,
		Result:       int32(u32(raw, socketResult)), //nolint:gosec // the C field is signed
	}}, nil
}

func decodeAccept(raw []byte) (*eventv1.Event_Accept, error) {
	if len(raw) < socketSize {
		return nil, fmt.Errorf("accept of %d bytes: %w", len(raw), ErrShort)
	}
	return &eventv1.Event_Accept{Accept: &eventv1.Accept{
		Family:   uint32(u16(raw, socketFamily)),
		Protocol: uint32(u16(raw, socketProtocol)),
		Local:    address(raw, socketLocal, socketLocalPort),
		Remote:   address(raw, socketRemote, socketRemotePort),
	}}, nil
}

// address reads one end of a socket_record of at least socketSize bytes.
func address(raw []byte, ip, port int) *eventv1.SocketAddress {
	size := 16
	if u16(raw, socketFamily) == familyIPv4 {
		size = 4
	}
	return &eventv1.SocketAddress{Ip: bytes.Clone(raw[ip : ip+size]), Port: uint32(u16(raw, port))}
}

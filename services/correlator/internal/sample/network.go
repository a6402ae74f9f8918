package sample

import (
	"net/netip"
	"strings"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
	"github.com/palisade-sec/palisade/services/correlator/internal/uapi"
)

// protocols are what a sample may call them.
var protocols = map[string]uint32{"": 6, "tcp": 6, "udp": 17, "icmp": 1}

// Address families.
const (
	familyUnix = 1
	familyIPv4 = 2
	familyIPv6 = 10
)

// endpoint is address:port, nil if it is absent.
func (d *decoder) endpoint(key string) (*eventv1.SocketAddress, uint32) {
	s := d.str(key)
	if s == "" {
		return nil, familyIPv4
	}
	end, err := netip.ParseAddrPort(s)
	if err != nil {
		d.fail(d.values[key], "%s must be ADDRESS:PORT, as in 192.0.2.1:443 or [2001:db8::1]:443, not %q", key, s)
		return nil, familyIPv4
	}
	family := uint32(familyIPv4)
	if end.Addr().Is6() {
		family = familyIPv6
	}
	return &eventv1.SocketAddress{Ip: end.Addr().AsSlice(), Port: uint32(end.Port())}, family
}

func (d *decoder) protocol() uint32 {
	s := d.str("protocol")
	number, ok := protocols[s]
	if !ok {
		d.fail(d.values["protocol"], "protocol must be tcp, udp or icmp, not %q", s)
	}
	return number
}

// remoteNames are what the workload asked for to get the far end's address.
func (d *decoder) remoteNames(remote *eventv1.SocketAddress) field.Resolver {
	ip, _ := netip.AddrFromSlice(remote.GetIp())
	return known{ip: ip.Unmap(), names: d.strs("remote_name")}
}

func connect(d *decoder, e *eventv1.Event, c *field.Context) {
	remote, family := d.endpoint("remote")
	local, _ := d.endpoint("local")
	c.Names = d.remoteNames(remote)
	e.Kind = &eventv1.Event_Connect{Connect: &eventv1.Connect{
		Family: family, Protocol: d.protocol(), Local: local, Remote: remote, Result: int32(e.GetResult()), //nolint:gosec // a negative errno
	}}
}

func accept(d *decoder, e *eventv1.Event, _ *field.Context) {
	remote, family := d.endpoint("remote")
	local, _ := d.endpoint("local")
	e.Kind = &eventv1.Event_Accept{Accept: &eventv1.Accept{Family: family, Protocol: d.protocol(), Local: local, Remote: remote}}
}

// duplicate is of a socket that becomes a standard stream, its input if the sample does not say.
func duplicate(d *decoder, e *eventv1.Event, c *field.Context) {
	remote, family := d.endpoint("remote")
	local, _ := d.endpoint("local")
	c.Names = d.remoteNames(remote)
	e.ResultKnown = true
	e.Kind = &eventv1.Event_Duplicate{Duplicate: &eventv1.Duplicate{
		Call: eventv1.DuplicateCall_DUPLICATE_CALL_DUP2, Source: 3,
		Family: family, Type: 1, Protocol: d.protocol(), Local: local, Remote: remote, Accepted: d.boolean("accepted"),
	}}
}

// socketOf is an operation with one address.
func socketOf(operation eventv1.SocketOperation) filler {
	return func(d *decoder, e *eventv1.Event, c *field.Context) {
		address, family := d.endpoint("address")
		s := &eventv1.Socket{Operation: operation, Family: family, Protocol: d.protocol(), Address: address, UnixPath: d.str("unix_path")}
		if s.UnixPath != "" {
			s.Family = familyUnix
		}
		c.Names = d.remoteNames(address)
		e.Kind = &eventv1.Event_Socket{Socket: s}
	}
}

func connectUnix(d *decoder, e *eventv1.Event, _ *field.Context) {
	e.Kind = &eventv1.Event_Socket{Socket: &eventv1.Socket{
		Operation: eventv1.SocketOperation_SOCKET_OPERATION_CONNECT_UNIX, Family: familyUnix, UnixPath: d.str("unix_path"),
	}}
}

func newSocket(d *decoder, e *eventv1.Event, _ *field.Context) {
	family := d.word("family", func(n uint64) string { return uapi.Family(uint32(n)) }, familyIPv4) //nolint:gosec // below maxWord
	kind := d.word("type", func(n uint64) string { return uapi.SocketType(uint32(n)) }, 1)          //nolint:gosec // below maxWord
	e.Kind = &eventv1.Event_Socket{Socket: &eventv1.Socket{
		Operation: eventv1.SocketOperation_SOCKET_OPERATION_CREATE,
		Family:    uint32(family), Type: uint32(kind), Protocol: d.number32("protocol", 0), //nolint:gosec // small numbers
	}}
}

func dns(response bool) filler {
	return func(d *decoder, e *eventv1.Event, _ *field.Context) {
		server, _ := d.endpoint("server")
		kind := d.word("type", func(n uint64) string { return uapi.DNSType(uint32(n)) }, 1) //nolint:gosec // below maxWord
		m := &eventv1.Dns{Response: response, Server: server, Malformed: d.boolean("malformed")}
		for _, name := range d.strs("question") {
			m.Questions = append(m.Questions, &eventv1.DnsQuestion{Name: strings.TrimSuffix(name, "."), Type: uint32(kind)}) //nolint:gosec // a type has 16 bits
		}
		if response {
			m.ResponseCode = uint32(d.word("rcode", func(n uint64) string { return uapi.DNSCode(uint32(n)) }, 0)) //nolint:gosec // below maxWord
			for _, data := range d.strs("answers") {
				m.Answers = append(m.Answers, &eventv1.DnsAnswer{Data: data, Type: uint32(kind)}) //nolint:gosec // a type has 16 bits
			}
		}
		e.Kind = &eventv1.Event_Dns{Dns: m}
	}
}

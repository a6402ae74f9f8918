package field

import (
	"net/netip"
	"strconv"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/uapi"
)

// Kinds by which ends of a connection they have.
const (
	boundKinds     = KindBind | KindListen
	connectedKinds = KindConnect | KindAccept | KindDuplicate
	// peerKinds have a socket's other end, and all but a duplicate gave it to it.
	peerKinds   = connectedKinds | KindSend
	serverKinds = peerKinds | boundKinds
	localKinds  = connectedKinds | boundKinds
	socketKinds = serverKinds | KindSocket | KindConnectUnix
	dnsKinds    = KindDNSQuestion | KindDNSAnswer
)

// networkFields are fd.* of sockets. In an outgoing connection the server is the remote end, in an incoming one, and
// where a socket is bound or listens, the local end.
var networkFields = map[string]Field{
	"fd.l4proto":      {Doc: "tcp, udp, icmp or raw", Kinds: serverKinds | KindSocket, Str: l4proto},
	"fd.connected":    {Doc: "the connection is established", Type: Bool, Kinds: peerKinds | KindConnectUnix, Num: connected},
	"fd.name_changed": {Doc: "the event gave the socket its other end", Type: Bool, Kinds: peerKinds&^KindDuplicate | KindConnectUnix, Num: func(*Context) (int64, bool) { return 1, true }},

	"fd.sockfamily": {Doc: "ip or unix", Kinds: socketKinds, Str: socketFamily},
	"fd.is_server":  {Doc: "the process is the server's end", Type: Bool, Kinds: serverKinds, Num: isServer},

	"fd.sip.name": {Doc: "name by which the workload asked for the server's address", Kinds: serverKinds, Needs: Needs{Kinds: KindDNSAnswer}, AllNotEqual: true, AnyStr: names(server), Show: shown(names(server))},
	"fd.cip.name": {Doc: "name by which the workload asked for the client's address", Kinds: connectedKinds, Needs: Needs{Kinds: KindDNSAnswer}, AllNotEqual: true, AnyStr: names(client), Show: shown(names(client))},
	"fd.lip.name": {Doc: "name by which the workload asked for the local address", Kinds: localKinds, Needs: Needs{Kinds: KindDNSAnswer}, AllNotEqual: true, AnyStr: names(local), Show: shown(names(local))},
	"fd.rip.name": {Doc: "name by which the workload asked for the remote address", Kinds: peerKinds, Needs: Needs{Kinds: KindDNSAnswer}, AllNotEqual: true, AnyStr: names(remote), Show: shown(names(remote))},

	"fd.sip":   {Doc: "server's address", Type: Address, Kinds: serverKinds, Peer: PeerAddress, IP: address(server)},
	"fd.cip":   {Doc: "client's address", Type: Address, Kinds: connectedKinds, IP: address(client)},
	"fd.lip":   {Doc: "local address", Type: Address, Kinds: localKinds, IP: address(local)},
	"fd.rip":   {Doc: "remote address", Type: Address, Kinds: peerKinds, Peer: PeerAddress, IP: address(remote)},
	"fd.ip":    {Doc: "address of either end", Type: Address, Kinds: serverKinds, AnyIP: eitherAddress, AllNotEqual: true},
	"fd.snet":  {Doc: "network of the server's address", Type: Network, Kinds: serverKinds, Peer: PeerAddress, IP: address(server)},
	"fd.cnet":  {Doc: "network of the client's address", Type: Network, Kinds: connectedKinds, IP: address(client)},
	"fd.lnet":  {Doc: "network of the local address", Type: Network, Kinds: localKinds, IP: address(local)},
	"fd.rnet":  {Doc: "network of the remote address", Type: Network, Kinds: peerKinds, Peer: PeerAddress, IP: address(remote)},
	"fd.net":   {Doc: "network of the address of either end", Type: Network, Kinds: serverKinds, AnyIP: eitherAddress, AllNotEqual: true},
	"fd.sport": {Doc: "server's port", Type: Number, Kinds: serverKinds, Peer: PeerPort, Num: port(server)},
	"fd.cport": {Doc: "client's port", Type: Number, Kinds: connectedKinds, Num: port(client)},
	"fd.lport": {Doc: "local port", Type: Number, Kinds: localKinds, Num: port(local)},
	"fd.rport": {Doc: "remote port", Type: Number, Kinds: peerKinds, Peer: PeerPort, Num: port(remote)},
	"fd.port":  {Doc: "port of either end", Type: Number, Kinds: serverKinds, AnyNum: eitherPort, AllNotEqual: true},
}

// Address families, types of socket and protocols that are looked at.
const (
	familyUnix    = 1
	familyIPv4    = 2
	familyIPv6    = 10
	familyNetlink = 16

	typeStream   = 1
	typeDatagram = 2
	typeRaw      = 3

	protocolICMP   = 1
	protocolTCP    = 6
	protocolUDP    = 17
	protocolICMPv6 = 58
	protocolRaw    = 255
)

// socket is what all that happens to sockets has in common.
type socket struct {
	family, protocol, kind uint32
	local, remote          *eventv1.SocketAddress
	// incoming: the server is the local end.
	incoming bool
	unixPath string
}

func socketOf(e *eventv1.Event) (socket, bool) {
	switch kind := e.GetKind().(type) {
	case *eventv1.Event_Connect:
		k := kind.Connect
		return socket{family: k.GetFamily(), protocol: k.GetProtocol(), local: k.GetLocal(), remote: k.GetRemote()}, true
	case *eventv1.Event_Accept:
		k := kind.Accept
		return socket{family: k.GetFamily(), protocol: k.GetProtocol(), local: k.GetLocal(), remote: k.GetRemote(), incoming: true}, true
	case *eventv1.Event_Duplicate:
		k := kind.Duplicate
		return socket{
			family: k.GetFamily(), protocol: k.GetProtocol(), kind: k.GetType(), incoming: k.GetAccepted(),
			local: known(k.GetLocal()), remote: known(k.GetRemote()),
		}, true
	case *eventv1.Event_Socket:
		k := kind.Socket
		s := socket{family: k.GetFamily(), protocol: k.GetProtocol(), kind: k.GetType(), unixPath: k.GetUnixPath()}
		switch KindOf(e) {
		case KindSend:
			s.remote = k.GetAddress()
		case KindBind, KindListen:
			s.local, s.incoming = k.GetAddress(), true
		default: // no address
		}
		return s, true
	}
	return socket{}, false
}

// known is an end that a socket has: one without has zeros in its place.
func known(a *eventv1.SocketAddress) *eventv1.SocketAddress {
	if ip, ok := parseIP(a); ok && a.GetPort() == 0 && ip.IsUnspecified() {
		return nil
	}
	return a
}

func local(s socket) *eventv1.SocketAddress  { return s.local }
func remote(s socket) *eventv1.SocketAddress { return s.remote }

func server(s socket) *eventv1.SocketAddress {
	if s.incoming {
		return s.local
	}
	return s.remote
}

func client(s socket) *eventv1.SocketAddress {
	if s.incoming {
		return s.remote
	}
	return s.local
}

// parseIP reads network-order bytes. An IPv4 address inside IPv6 is the IPv4 address: a rule that
// names one means it, whatever family the socket has.
func parseIP(a *eventv1.SocketAddress) (netip.Addr, bool) {
	ip, ok := netip.AddrFromSlice(a.GetIp())
	return ip.Unmap(), ok
}

// address reads the address of one end.
func address(end func(socket) *eventv1.SocketAddress) func(*Context) (netip.Addr, bool) {
	return func(c *Context) (netip.Addr, bool) {
		s, _ := socketOf(c.Event)
		return parseIP(end(s))
	}
}

// port reads the port of one end; missing where the end is.
func port(end func(socket) *eventv1.SocketAddress) func(*Context) (int64, bool) {
	return func(c *Context) (int64, bool) {
		s, _ := socketOf(c.Event)
		return int64(end(s).GetPort()), end(s) != nil
	}
}

// names asks by which names the workload looked the address of one end up.
func names(end func(socket) *eventv1.SocketAddress) func(*Context, func(string) bool) bool {
	return func(c *Context, match func(string) bool) bool {
		s, _ := socketOf(c.Event)
		ip, ok := parseIP(end(s))
		return ok && c.Names != nil && c.Names.Any(c.Event, ip, match)
	}
}

func socketFamily(c *Context) (string, bool) {
	switch s, _ := socketOf(c.Event); s.family {
	case familyUnix:
		return "unix", true
	case familyIPv4, familyIPv6:
		return "ip", true
	}
	return "", false
}

func isServer(c *Context) (int64, bool) {
	s, ok := socketOf(c.Event)
	if !ok {
		return 0, false
	}
	return flag(s.incoming)
}

func eitherAddress(c *Context, match func(netip.Addr) bool) bool {
	s, _ := socketOf(c.Event)
	if ip, ok := parseIP(s.remote); ok && match(ip) {
		return true
	}
	ip, ok := parseIP(s.local)
	return ok && match(ip)
}

func eitherPort(c *Context, match func(int64) bool) bool {
	s, _ := socketOf(c.Event)
	return s.remote != nil && match(int64(s.remote.GetPort())) ||
		s.local != nil && match(int64(s.local.GetPort()))
}

// l4proto is missing for a protocol that Falco has no name for. A new socket may leave the protocol to its type.
func l4proto(c *Context) (string, bool) {
	s, _ := socketOf(c.Event)
	protocol := s.protocol
	switch {
	case s.family != familyIPv4 && s.family != familyIPv6:
		return "", false
	case s.kind == typeRaw:
		return "raw", true
	case protocol == 0 && s.kind == typeStream:
		protocol = protocolTCP
	case protocol == 0 && s.kind == typeDatagram:
		protocol = protocolUDP
	}
	switch protocol {
	case protocolICMP, protocolICMPv6:
		return "icmp", true
	case protocolTCP:
		return "tcp", true
	case protocolUDP:
		return "udp", true
	case protocolRaw:
		return "raw", true
	}
	return "", false
}

// connected is missing where nothing has said yet whether the connection came about.
func connected(c *Context) (int64, bool) {
	switch kind := c.Event.GetKind().(type) {
	case *eventv1.Event_Connect:
		return flag(kind.Connect.GetResult() == 0)
	case *eventv1.Event_Accept:
		return flag(true)
	case *eventv1.Event_Duplicate:
		return flag(known(kind.Duplicate.GetRemote()) != nil)
	}
	if KindOf(c.Event) == KindSend {
		return flag(false)
	}
	if !c.Event.GetResultKnown() {
		return 0, false
	}
	return flag(c.Event.GetResult() == 0)
}

// name is client->server, or the one end there is. Falco writes both families so, without brackets.
func (s socket) name() string {
	if s.incoming && s.remote == nil {
		return endName(s.local)
	}
	return endName(client(s)) + "->" + endName(server(s))
}

func endName(a *eventv1.SocketAddress) string {
	ip, ok := parseIP(a)
	if !ok {
		return "?:" + strconv.FormatUint(uint64(a.GetPort()), 10)
	}
	return ip.String() + ":" + strconv.FormatUint(uint64(a.GetPort()), 10)
}

// dnsFields are ours: DNS messages over UDP and TCP. Names have no final dot. A message may hold several questions and answers:
// a comparison is true if one of them satisfies it, != if none equals.
var dnsFields = map[string]Field{
	"dns.question":  {Doc: "name asked for", Kinds: dnsKinds, AllNotEqual: true, AnyStr: anyQuestion(questionName), Show: shown(anyQuestion(questionName))},
	"dns.type":      {Doc: "type asked for: A, AAAA, TXT, ...", Kinds: dnsKinds, AllNotEqual: true, AnyStr: anyQuestion(questionType), Show: shown(anyQuestion(questionType))},
	"dns.answer":    {Doc: "address, name or text that answers", Kinds: KindDNSAnswer, AllNotEqual: true, AnyStr: anyAnswer, Show: shown(anyAnswer)},
	"dns.rcode":     {Doc: "response code: NOERROR, NXDOMAIN, ...", Kinds: KindDNSAnswer, Str: func(c *Context) (string, bool) { return uapi.DNSCode(c.Event.GetDns().GetResponseCode()), true }},
	"dns.server":    {Doc: "address of the name server", Type: Address, Kinds: dnsKinds, IP: func(c *Context) (netip.Addr, bool) { return parseIP(c.Event.GetDns().GetServer()) }},
	"dns.malformed": {Doc: "the message could not be parsed to its end", Type: Bool, Kinds: dnsKinds, Num: func(c *Context) (int64, bool) { return flag(c.Event.GetDns().GetMalformed()) }},
}

func questionName(q *eventv1.DnsQuestion) string { return q.GetName() }
func questionType(q *eventv1.DnsQuestion) string { return uapi.DNSType(q.GetType()) }

func anyQuestion(get func(*eventv1.DnsQuestion) string) func(*Context, func(string) bool) bool {
	return func(c *Context, match func(string) bool) bool {
		for _, q := range c.Event.GetDns().GetQuestions() {
			if match(get(q)) {
				return true
			}
		}
		return false
	}
}

func anyAnswer(c *Context, match func(string) bool) bool {
	for _, a := range c.Event.GetDns().GetAnswers() {
		if a.GetData() != "" && match(a.GetData()) {
			return true
		}
	}
	return false
}

// shown joins all values by commas.
func shown(each func(*Context, func(string) bool) bool) func([]byte, *Context) ([]byte, bool) {
	return func(dst []byte, c *Context) ([]byte, bool) {
		start := len(dst)
		each(c, func(s string) bool {
			if len(dst) > start {
				dst = append(dst, ',')
			}
			dst = append(dst, s...)
			return false
		})
		return dst, len(dst) > start
	}
}

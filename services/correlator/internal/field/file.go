package field

import (
	"net/netip"
	"strconv"
	"strings"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

const (
	socketKinds = KindConnect | KindAccept
	fdKinds     = KindFileOpen | socketKinds
)

// fileFields are fd.*: the file or connection that the event is about. In an outgoing connection
// the server is the remote end, in an incoming one the local end.
var fileFields = map[string]Field{
	"fd.name":           {Doc: "the kernel's path, or client:port->server:port", Kinds: fdKinds, Str: fdName},
	"fs.path.name":      {Doc: "the kernel's path of the file", Kinds: KindFileOpen, Str: filePath},
	"fd.directory":      {Doc: "directory of the file", Kinds: KindFileOpen, Str: fileDir},
	"fd.filename":       {Doc: "last element of the file's path", Kinds: KindFileOpen, Str: fileBase},
	"fd.type":           {Doc: "file, directory, ipv4 or ipv6", Kinds: fdKinds, Str: fdType},
	"fd.typechar":       {Doc: "f, d, 4 or 6, as fd.type", Kinds: fdKinds, Str: fdTypeChar},
	"fd.num":            {Doc: "descriptor; known only to be 0 or more", Type: Number, Kinds: KindFileOpen | KindAccept, Num: noNumber, Sign: descriptorSign},
	"fd.dev":            {Doc: "device of the file, major<<20 | minor", Type: Number, Kinds: KindFileOpen, Num: fileDevice},
	"fd.ino":            {Doc: "inode of the file", Type: Number, Kinds: KindFileOpen, Num: fileInode},
	"fd.is_upper_layer": {Doc: "the file was written after the image was made", Type: Bool, Kinds: KindFileOpen, Num: fileUpper},
	"fd.l4proto":        {Doc: "tcp, udp, icmp or raw", Kinds: socketKinds, Str: l4proto},
	"fd.connected":      {Doc: "the connection is established", Type: Bool, Kinds: socketKinds, Num: connected},
	"fd.name_changed":   {Doc: "the event gave the socket its other end", Type: Bool, Kinds: socketKinds, Num: nameChanged},

	"fd.sip":   {Doc: "server's address", Type: Address, Kinds: socketKinds, IP: address(server)},
	"fd.cip":   {Doc: "client's address", Type: Address, Kinds: socketKinds, IP: address(client)},
	"fd.lip":   {Doc: "local address", Type: Address, Kinds: socketKinds, IP: address(local)},
	"fd.rip":   {Doc: "remote address", Type: Address, Kinds: socketKinds, IP: address(remote)},
	"fd.ip":    {Doc: "address of either end", Type: Address, Kinds: socketKinds, AnyIP: eitherAddress, AllNotEqual: true},
	"fd.snet":  {Doc: "network of the server's address", Type: Network, Kinds: socketKinds, IP: address(server)},
	"fd.cnet":  {Doc: "network of the client's address", Type: Network, Kinds: socketKinds, IP: address(client)},
	"fd.lnet":  {Doc: "network of the local address", Type: Network, Kinds: socketKinds, IP: address(local)},
	"fd.rnet":  {Doc: "network of the remote address", Type: Network, Kinds: socketKinds, IP: address(remote)},
	"fd.net":   {Doc: "network of the address of either end", Type: Network, Kinds: socketKinds, AnyIP: eitherAddress, AllNotEqual: true},
	"fd.sport": {Doc: "server's port", Type: Number, Kinds: socketKinds, Num: port(server)},
	"fd.cport": {Doc: "client's port", Type: Number, Kinds: socketKinds, Num: port(client)},
	"fd.lport": {Doc: "local port", Type: Number, Kinds: socketKinds, Num: port(local)},
	"fd.rport": {Doc: "remote port", Type: Number, Kinds: socketKinds, Num: port(remote)},
	"fd.port":  {Doc: "port of either end", Type: Number, Kinds: socketKinds, AnyNum: eitherPort, AllNotEqual: true},
}

func filePath(c *Context) (string, bool) {
	return text(c.Event.GetFileOpen().GetFile().GetPath())
}

func fileDir(c *Context) (string, bool) {
	path, ok := filePath(c)
	slash := strings.LastIndexByte(path, '/')
	switch {
	case !ok || slash < 0:
		return "", false
	case slash == 0:
		return "/", true
	}
	return path[:slash], true
}

func fileBase(c *Context) (string, bool) {
	path, ok := filePath(c)
	if !ok {
		return "", false
	}
	return path[strings.LastIndexByte(path, '/')+1:], true
}

func fileDevice(c *Context) (int64, bool) {
	open := c.Event.GetFileOpen()
	return int64(open.GetFile().GetDevice()), open != nil
}

func fileInode(c *Context) (int64, bool) {
	open := c.Event.GetFileOpen()
	return int64(open.GetFile().GetInode()), open != nil //nolint:gosec // compared for equality only
}

func fileUpper(c *Context) (int64, bool) {
	open := c.Event.GetFileOpen()
	if open == nil {
		return 0, false
	}
	return flag(open.GetFile().GetUpperLayer())
}

func noNumber(*Context) (int64, bool) { return 0, false }

// descriptorSign: only opens and accepts that succeeded are reported.
func descriptorSign(c *Context) (int64, bool) {
	return 0, KindOf(c.Event).Has(KindFileOpen | KindAccept)
}

// fdClass is a row of what fd.type and fd.typechar answer.
type fdClass struct{ name, char string }

// Address families, and the type bits of st_mode with their value for a directory.
const (
	familyIPv4 = 2
	familyIPv6 = 10
	modeType   = 0o170000
	modeDir    = 0o040000
)

func classOf(c *Context) (fdClass, bool) {
	if open := c.Event.GetFileOpen(); open != nil {
		if open.GetFile().GetMode()&modeType == modeDir {
			return fdClass{"directory", "d"}, true
		}
		return fdClass{"file", "f"}, true
	}
	s, ok := socketOf(c.Event)
	switch {
	case ok && s.family == familyIPv4:
		return fdClass{"ipv4", "4"}, true
	case ok && s.family == familyIPv6:
		return fdClass{"ipv6", "6"}, true
	}
	return fdClass{}, false
}

func fdType(c *Context) (string, bool) {
	class, ok := classOf(c)
	return class.name, ok
}

func fdTypeChar(c *Context) (string, bool) {
	class, ok := classOf(c)
	return class.char, ok
}

// socket is what connect and accept have in common.
type socket struct {
	family, protocol uint32
	local, remote    *eventv1.SocketAddress
	incoming         bool
}

func socketOf(e *eventv1.Event) (socket, bool) {
	switch kind := e.GetKind().(type) {
	case *eventv1.Event_Connect:
		k := kind.Connect
		return socket{k.GetFamily(), k.GetProtocol(), k.GetLocal(), k.GetRemote(), false}, true
	case *eventv1.Event_Accept:
		k := kind.Accept
		return socket{k.GetFamily(), k.GetProtocol(), k.GetLocal(), k.GetRemote(), true}, true
	}
	return socket{}, false
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
		s, ok := socketOf(c.Event)
		if !ok {
			return netip.Addr{}, false
		}
		return parseIP(end(s))
	}
}

// port reads the port of one end; missing where the end is.
func port(end func(socket) *eventv1.SocketAddress) func(*Context) (int64, bool) {
	return func(c *Context) (int64, bool) {
		s, ok := socketOf(c.Event)
		if !ok || end(s) == nil {
			return 0, false
		}
		return int64(end(s).GetPort()), true
	}
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

// l4proto is missing for a protocol that Falco has no name for.
func l4proto(c *Context) (string, bool) {
	s, ok := socketOf(c.Event)
	if !ok {
		return "", false
	}
	switch s.protocol {
	case 1, 58:
		return "icmp", true
	case 6:
		return "tcp", true
	case 17:
		return "udp", true
	case 255:
		return "raw", true
	}
	return "", false
}

func connected(c *Context) (int64, bool) {
	if connect := c.Event.GetConnect(); connect != nil {
		return flag(connect.GetResult() == 0)
	}
	_, ok := socketOf(c.Event)
	return 1, ok
}

func nameChanged(c *Context) (int64, bool) {
	_, ok := socketOf(c.Event)
	return 1, ok
}

// fdName is put together once for an event if it is a connection.
func fdName(c *Context) (string, bool) {
	if path, ok := filePath(c); ok {
		return path, true
	}
	s, ok := socketOf(c.Event)
	if !ok {
		return "", false
	}
	cache := c.cached()
	if cache.connName == "" {
		cache.connName = endName(client(s)) + "->" + endName(server(s))
	}
	return cache.connName, true
}

// endName is address:port without brackets, as Falco writes both families.
func endName(a *eventv1.SocketAddress) string {
	ip, ok := parseIP(a)
	if !ok {
		return "?:" + strconv.FormatUint(uint64(a.GetPort()), 10)
	}
	return ip.String() + ":" + strconv.FormatUint(uint64(a.GetPort()), 10)
}

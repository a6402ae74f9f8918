package interest

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strconv"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/condition"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

// maxNetworks bounds a set: beyond it, every peer is wanted.
const maxNetworks = 1024

// Network is peers whose address begins so, at one port or, as port 0, at any.
type Network struct {
	Prefix netip.Prefix
	Port   uint16
}

// anywhere is all addresses. The collector compares IPv4 as ::ffff:a.b.c.d, so this is those, too.
func anywhere() netip.Prefix { return netip.PrefixFrom(netip.IPv6Unspecified(), 0) }

// covers says whether every peer of the other network is in this one.
func (n Network) covers(other Network) bool {
	within := n.Prefix.Bits() <= other.Prefix.Bits() && n.Prefix.Contains(other.Prefix.Addr())
	return (n.Port == 0 || n.Port == other.Port) && (within || n.Prefix == anywhere())
}

// Peers is a set of far ends of connections: all of them, or those in some networks. The zero value is the empty set. It does
// not change once made.
type Peers struct {
	All bool
	// Networks are sorted. Empty if All.
	Networks []Network
}

// Everybody is the set of all peers.
func Everybody() Peers { return Peers{All: true} }

func peersIn(networks []Network) Peers {
	slices.SortFunc(networks, func(a, b Network) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), cmp.Compare(a.Port, b.Port))
	})
	networks = slices.Compact(networks)
	if len(networks) > maxNetworks {
		return Everybody()
	}
	return Peers{Networks: networks}
}

// Has says whether the peer is in the set.
func (p Peers) Has(ip netip.Addr, port uint16) bool {
	one := Network{Prefix: netip.PrefixFrom(ip, ip.BitLen()), Port: port}
	return p.All || slices.ContainsFunc(p.Networks, func(n Network) bool { return n.covers(one) })
}

// admit says whether the far end of a connection or datagram is in the set, or not known.
func (p Peers) admit(e *eventv1.Event) bool {
	to := e.GetConnect().GetRemote()
	if to == nil {
		to = e.GetSocket().GetAddress()
	}
	ip, ok := netip.AddrFromSlice(to.GetIp())
	return !ok || ip.IsUnspecified() && to.GetPort() == 0 || p.Has(ip.Unmap(), uint16(to.GetPort())) //nolint:gosec // a port
}

// Empty says whether no peer is in the set.
func (p Peers) Empty() bool { return !p.All && len(p.Networks) == 0 }

// Or is the set of the peers that are in either.
func (p Peers) Or(q Peers) Peers {
	switch {
	case p.All || q.Empty():
		return p
	case q.All || p.Empty():
		return q
	}
	return peersIn(slices.Concat(p.Networks, q.Networks))
}

// And is the set of the peers that are in both.
func (p Peers) And(q Peers) Peers {
	switch {
	case p.All || q.Empty():
		return q
	case q.All || p.Empty():
		return p
	}
	if len(p.Networks)*len(q.Networks) > maxNetworks*maxNetworks/16 {
		return p // holds those in both
	}
	var both []Network
	for _, a := range p.Networks {
		for _, b := range q.Networks {
			if n, ok := a.and(b); ok {
				both = append(both, n)
			}
		}
	}
	return peersIn(both)
}

// and is the network of the peers that are in both, which is the narrower one's addresses and the port that either names.
func (n Network) and(m Network) (Network, bool) {
	addresses := m.Prefix
	if (Network{Prefix: m.Prefix}).covers(Network{Prefix: n.Prefix}) {
		addresses = n.Prefix
	} else if !(Network{Prefix: n.Prefix}).covers(Network{Prefix: m.Prefix}) {
		return Network{}, false
	}
	if n.Port != 0 && m.Port != 0 && n.Port != m.Port {
		return Network{}, false
	}
	return Network{Prefix: addresses, Port: max(n.Port, m.Port)}, true
}

// equal are the operators that are true of certain values only.
func equal(op condition.Op) bool {
	return op == condition.Equal || op == condition.In || op == condition.Intersects
}

// MatchingAddresses is a set that holds every peer of which the comparison with these networks can be true, where the field
// holds that part of it.
func MatchingAddresses(part field.PeerPart, op condition.Op, nets []netip.Prefix) Peers {
	if part != field.PeerAddress || !equal(op) {
		return Everybody()
	}
	networks := make([]Network, 0, len(nets))
	for _, prefix := range nets {
		networks = append(networks, Network{Prefix: prefix})
	}
	return peersIn(networks)
}

// MatchingPorts is the same for a comparison with these ports.
func MatchingPorts(part field.PeerPart, op condition.Op, ports []int64) Peers {
	if part != field.PeerPort || !equal(op) {
		return Everybody()
	}
	var networks []Network
	for _, port := range ports {
		if port == 0 { // which to the collector is any
			return Everybody()
		}
		if port > 0 && port <= math.MaxUint16 {
			networks = append(networks, Network{Prefix: anywhere(), Port: uint16(port)})
		}
	}
	return peersIn(networks)
}

func (p Peers) message() *collectorv1.Peers {
	m := &collectorv1.Peers{All: p.All}
	for _, n := range p.Networks {
		m.Networks = append(m.Networks, &collectorv1.Network{Cidr: n.Prefix.String(), Port: uint32(n.Port)})
	}
	return m
}

func (p Peers) words() string {
	switch {
	case p.All:
		return "all"
	case p.Empty():
		return "none"
	case len(p.Networks) == 1:
		return "in 1 network"
	}
	return "in " + strconv.Itoa(len(p.Networks)) + " networks"
}

package probe

import (
	"errors"
	"fmt"
	"math"
	"net/netip"

	"github.com/cilium/ebpf"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
)

const (
	// peersListed is what settings.peers says if not all peers are wanted, see bpf/ring.h; the lower half numbers the list.
	peersListed uint64 = 1 << 32
	// peerFixedBits are those of a key before the address.
	peerFixedBits = 64
	// maxPeers on a list; of a longer one every peer is recorded. There is room for the list of before beside it.
	maxPeers = 2048
)

// addPeers puts an interest's peers where the programs find them, once the settings say so.
func (s *Set) addPeers(before uint64, peers *collectorv1.Peers) (word uint64, err error) {
	list := uint32(before) + 1 //nolint:gosec // the lower half
	// A crash may have left some of any number.
	if err := s.removePeers(before); err != nil {
		return 0, err
	}
	if peers == nil || peers.GetAll() || len(peers.GetNetworks()) > maxPeers {
		return uint64(list), nil
	}
	for _, network := range peers.GetNetworks() {
		key, err := peerKey(list, network)
		if err != nil {
			return 0, err
		}
		if err := s.maps.PeerInterests.Put(key, uint8(1)); err != nil {
			return 0, fmt.Errorf("set which peers are wanted: %w", err)
		}
	}
	return uint64(list) | peersListed, nil
}

func peerKey(list uint32, network *collectorv1.Network) (collectorPeerInterestKey, error) {
	prefix, err := netip.ParsePrefix(network.GetCidr())
	if err != nil || network.GetPort() > math.MaxUint16 {
		return collectorPeerInterestKey{}, fmt.Errorf("no network %q, port %d", network.GetCidr(), network.GetPort())
	}
	bits := prefix.Bits()
	if prefix.Addr().Is4() { // the kernel side compares IPv4 as ::ffff:a.b.c.d
		bits += 96
	}
	return collectorPeerInterestKey{
		Bits: uint32(peerFixedBits + bits), List: list, Port: network.GetPort(), Ip: prefix.Masked().Addr().As16(), //nolint:gosec // at most 192
	}, nil
}

// removePeers removes every list but that of one word of settings.
func (s *Set) removePeers(keep uint64) error {
	var key collectorPeerInterestKey
	var value uint8
	var old []collectorPeerInterestKey
	entries := s.maps.PeerInterests.Iterate()
	for entries.Next(&key, &value) {
		if key.List != uint32(keep) { //nolint:gosec // the lower half
			old = append(old, key)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read which peers were wanted: %w", err)
	}
	for _, key := range old {
		if err := s.maps.PeerInterests.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove which peers were wanted: %w", err)
		}
	}
	return nil
}

package probe

import (
	"errors"
	"fmt"
	"math"
	"net/netip"

	"github.com/cilium/ebpf"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// Rates bound, by workload, what goes on each ring. What is over is dropped, counted and told.
type Rates struct {
	// UrgentPerSecond and BulkPerSecond are records a second; 0 is no bound.
	UrgentPerSecond uint32 `yaml:"urgent_per_second"`
	BulkPerSecond   uint32 `yaml:"bulk_per_second"`
	// BurstSeconds is for how many seconds' worth of records a workload may go beyond that.
	BurstSeconds uint32 `yaml:"burst_seconds"`
}

// DefaultRates are far above what a busy container does, and below what one core of the collector reads.
func DefaultRates() Rates {
	return Rates{UrgentPerSecond: 20_000, BulkPerSecond: 60_000, BurstSeconds: 2}
}

const (
	second   = 1_000_000_000
	maxRate  = second
	maxBurst = 3600
)

func (r Rates) validate() error {
	var errs []error
	for key, rate := range map[string]uint32{"urgent_per_second": r.UrgentPerSecond, "bulk_per_second": r.BulkPerSecond} {
		if rate > maxRate {
			errs = append(errs, fmt.Errorf("probes.rates.%s: %d is above %d", key, rate, maxRate))
		}
	}
	if r.BurstSeconds > maxBurst {
		errs = append(errs, fmt.Errorf("probes.rates.burst_seconds: %d is above %d", r.BurstSeconds, maxBurst))
	}
	return errors.Join(errs...)
}

// Kinds is a set of kinds of record, one bit each.
type Kinds uint64

// AllKinds is every kind.
const AllKinds Kinds = 1<<record.Kinds - 1

// KindsOf is the set of the given kinds.
func KindsOf(kinds ...record.Kind) Kinds {
	var set Kinds
	for _, kind := range kinds {
		set |= 1 << kind
	}
	return set
}

// wish is what is to be recorded.
type wish struct {
	kinds Kinds
	opens opens
	peers uint64 // settings.peers
}

func wishOf(now collectorSettings) wish {
	return wish{
		kinds: Kinds(now.Wanted),
		opens: opens{word: now.Opens, reads: now.ReadBeginnings, writes: now.WriteBeginnings},
		peers: now.Peers,
	}
}

// put makes a wish what is recorded from now on. Kinds that are not in it cost a look-up.
func (s *Set) put(w wish) error {
	rates := s.rates
	value := collectorSettings{
		Owner:         s.generation,
		Wanted:        uint64(w.kinds),
		UrgentCostNs:  cost(rates.UrgentPerSecond),
		BulkCostNs:    cost(rates.BulkPerSecond),
		UrgentBurstNs: uint64(rates.BurstSeconds) * second,
		BulkBurstNs:   uint64(rates.BurstSeconds) * second,
		Opens:         w.opens.word,
		Peers:         w.peers,

		ReadBeginnings:  w.opens.reads,
		WriteBeginnings: w.opens.writes,
	}
	if err := s.maps.Settings.Put(uint32(0), value); err != nil {
		return fmt.Errorf("set what is wanted: %w", err)
	}
	return nil
}

// WantAll records everything until restore is called. One call at a time, and none of WantInterest in between.
func (s *Set) WantAll() (restore func() error, err error) {
	now, err := s.settings()
	if err != nil {
		return nil, err
	}
	before := wishOf(now)
	all := before // with the numbers of its lists
	all.kinds, all.opens.word, all.peers = AllKinds, all.opens.word|opensEverything, all.peers&^peersListed
	if err := s.put(all); err != nil {
		return nil, err
	}
	return func() error { return s.put(before) }, nil
}

// settings are those in force.
func (s *Set) settings() (collectorSettings, error) {
	var now collectorSettings
	if err := s.maps.Settings.Lookup(uint32(0), &now); err != nil {
		return now, fmt.Errorf("read settings: %w", err)
	}
	return now, nil
}

// cost is the nanoseconds a record takes at a rate, 0 if there is no bound.
func cost(perSecond uint32) uint64 {
	if perSecond == 0 {
		return 0
	}
	return second / uint64(perSecond)
}

// always is recorded whoever asks for what: without the life cycle of processes nothing else can be told whose it is.
const always = Kinds(1<<record.Exec | 1<<record.Fork | 1<<record.Exit)

// WantInterest records what a subscriber asks for, from now on: until the change nothing is missing of what was asked
// for before, and after it nothing of what is asked for now. One call at a time. It fails if the subscriber names a class that
// does not exist, or what is no network.
func (s *Set) WantInterest(interest *collectorv1.Interest) error {
	kinds := always
	for _, class := range interest.GetClasses() {
		kind := record.KindOfClass(class)
		if kind == 0 {
			return fmt.Errorf("no class %q", class)
		}
		kinds |= KindsOf(kind)
	}
	now, err := s.settings()
	if err != nil {
		return err
	}
	before := wishOf(now)
	number := uint32(before.opens.word) + listsPerInterest //nolint:gosec // the lower half
	// A crash may have left some of any number.
	if err := s.removeLists(uint32(before.opens.word)); err != nil { //nolint:gosec // the lower half
		return err
	}
	after, err := s.addLists(number, interest)
	if err != nil {
		return err
	}
	peers, err := s.addPeers(now.Peers, interest.GetPeers())
	if err != nil {
		return err
	}
	if err := s.change(before, wish{kinds: kinds, opens: after, peers: peers}); err != nil {
		return err
	}
	return errors.Join(s.removeLists(number), s.removePeers(peers))
}

// change puts one wish in another's place. The words of the settings do not change together: while the lists do, what begins
// as any on either goes through.
func (s *Set) change(before, after wish) error {
	either, wide := before, after
	either.opens.reads |= after.opens.reads
	either.opens.writes |= after.opens.writes
	wide.opens.reads, wide.opens.writes = either.opens.reads, either.opens.writes
	for _, w := range []wish{either, wide, after} {
		if err := s.put(w); err != nil {
			return err
		}
	}
	return nil
}

// What settings.opens says, see bpf/ring.h. The lower half numbers the list of reads; the list of writes is the next one.
const (
	opensReads uint64 = 1 << (32 + iota)
	opensWrites
	opensReadsAll
	opensWritesAll

	// opensGiven is of those that are wanted: with the path as the caller wrote it.
	opensGiven

	listsPerInterest = 2
)

// opens is what is wanted of files, as the programs are told.
type opens struct {
	word          uint64 // settings.opens
	reads, writes uint64 // how the prefixes on the two lists begin
}

// opensEverything needs no lists.
const opensEverything = opensReadsAll | opensWritesAll

const (
	// maxPrefixes on one list, see bpf/event.h; of a longer one every file is recorded.
	maxPrefixes = 4096
	// maxPrefix bytes of a prefix are looked at.
	maxPrefix = len(collectorPrefixKey{}.Path)
	// listBits are those of a key before the path.
	listBits = 32
)

// translate makes of an interest what the programs are told, and what is on the lists of that number.
func translate(number uint32, interest *collectorv1.Interest) (o opens, keys []collectorPrefixKey) {
	o.word = uint64(number)
	if interest.GetGivenPaths() {
		o.word |= opensGiven
	}
	for i, list := range []struct {
		opens      *collectorv1.Opens
		all, some  uint64
		beginnings *uint64
	}{
		{interest.GetReads(), opensReadsAll, opensReads, &o.reads},
		{interest.GetWrites(), opensWritesAll, opensWrites, &o.writes},
	} {
		prefixes, all := prefixesOf(list.opens)
		switch {
		case all:
			o.word |= list.all
		case len(prefixes) > 0:
			o.word |= list.some
		}
		for _, prefix := range prefixes {
			*list.beginnings |= beginning(prefix)
			keys = append(keys, keyOf(number+uint32(i), prefix)) //nolint:gosec // 0 or 1
		}
	}
	return o, keys
}

// prefixesOf is what the programs look for, or that they need not look: also if the subscriber does not say, or says
// more than they can hold.
func prefixesOf(o *collectorv1.Opens) (prefixes []string, all bool) {
	if o == nil || o.GetAll() || len(o.GetPrefixes()) > maxPrefixes {
		return nil, true
	}
	for _, prefix := range o.GetPrefixes() {
		if prefix == "" {
			return nil, true
		}
		prefixes = append(prefixes, prefix[:min(len(prefix), maxPrefix)])
	}
	return prefixes, false
}

// beginning is the bit of paths that begin as the prefix does, whose first byte is a slash: one of 64, by two bytes more.
func beginning(prefix string) uint64 {
	if len(prefix) < 3 {
		return math.MaxUint64
	}
	return 1 << ((prefix[1]*37 + prefix[2]) >> 2)
}

func keyOf(list uint32, prefix string) collectorPrefixKey {
	key := collectorPrefixKey{Bits: listBits + 8*uint32(len(prefix)), List: list} //nolint:gosec // at most maxPrefix
	copy(key.Path[:], prefix)
	return key
}

// addLists puts an interest's prefixes where the programs find them, once the settings name the number.
func (s *Set) addLists(number uint32, interest *collectorv1.Interest) (opens, error) {
	o, keys := translate(number, interest)
	for _, key := range keys {
		if err := s.maps.Prefixes.Put(key, uint8(1)); err != nil {
			return opens{}, fmt.Errorf("set which files are wanted: %w", err)
		}
	}
	return o, nil
}

// removeLists removes every list but those of one interest. A program that still looks at others sees that the settings have
// changed.
func (s *Set) removeLists(keep uint32) error {
	err := removeOthers(s.maps.Prefixes, func(k collectorPrefixKey) bool { return k.List == keep || k.List == keep+1 })
	if err != nil {
		return fmt.Errorf("remove which files were wanted: %w", err)
	}
	return nil
}

// removeOthers removes every key that is not to be kept. Values are a byte.
func removeOthers[K any](m *ebpf.Map, keep func(K) bool) error {
	var key K
	var value uint8
	var others []K
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		if !keep(key) {
			others = append(others, key)
		}
	}
	if err := entries.Err(); err != nil {
		return err
	}
	for _, key := range others {
		if err := m.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

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
	bits, ip := MappedPrefix(prefix)
	return collectorPeerInterestKey{Bits: uint32(peerFixedBits + bits), List: list, Port: network.GetPort(), Ip: ip}, nil //nolint:gosec // at most 192
}

// removePeers removes every list but that of one word of settings.
func (s *Set) removePeers(keep uint64) error {
	err := removeOthers(s.maps.PeerInterests, func(k collectorPeerInterestKey) bool { return k.List == uint32(keep) }) //nolint:gosec // the lower half
	if err != nil {
		return fmt.Errorf("remove which peers were wanted: %w", err)
	}
	return nil
}

// MappedPrefix is a network as the programs compare it, in which IPv4 is ::ffff:a.b.c.d: how many of the address's bits count.
func MappedPrefix(prefix netip.Prefix) (bits int, ip [16]byte) {
	bits = prefix.Bits()
	if prefix.Addr().Is4() {
		bits += 96
	}
	return bits, prefix.Masked().Addr().As16()
}

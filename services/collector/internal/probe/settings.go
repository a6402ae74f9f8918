package probe

import (
	"errors"
	"fmt"

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

// put makes these kinds and opens what is recorded from now on. The other kinds cost a look-up.
func (s *Set) put(kinds Kinds, opens uint64) error {
	rates := s.rates
	value := collectorSettings{
		Owner:         s.generation,
		Wanted:        uint64(kinds),
		UrgentCostNs:  cost(rates.UrgentPerSecond),
		BulkCostNs:    cost(rates.BulkPerSecond),
		UrgentBurstNs: uint64(rates.BurstSeconds) * second,
		BulkBurstNs:   uint64(rates.BurstSeconds) * second,
		Opens:         opens,
	}
	if err := s.maps.Settings.Put(uint32(0), value); err != nil {
		return fmt.Errorf("set what is wanted: %w", err)
	}
	return nil
}

// WantAll records everything until restore is called. One call at a time, and none of WantInterest in between.
func (s *Set) WantAll() (restore func() error, err error) {
	before, err := s.settings()
	if err != nil {
		return nil, err
	}
	if err := s.put(AllKinds, before.Opens|opensEverything); err != nil {
		return nil, err
	}
	return func() error { return s.put(Kinds(before.Wanted), before.Opens) }, nil
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
// does not exist.
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
	number := uint32(now.Opens) + listsPerInterest //nolint:gosec // the lower half
	// A crash may have left some of any number.
	if err := s.removeLists(uint32(now.Opens)); err != nil { //nolint:gosec // the lower half
		return err
	}
	opens, err := s.addLists(number, interest)
	if err != nil {
		return err
	}
	if err := s.put(kinds, opens); err != nil {
		return err
	}
	return s.removeLists(number)
}

// What settings.opens says, see bpf/ring.h. The lower half numbers the list of reads; the list of writes is the next one.
const (
	opensReads uint64 = 1 << (32 + iota)
	opensWrites
	opensReadsAll
	opensWritesAll

	opensEverything  = opensReadsAll | opensWritesAll
	listsPerInterest = 2
	// beginnings is how many bits above those say how the prefixes begin.
	beginnings      = 28
	beginningsShift = 64 - beginnings
)

const (
	// maxPrefixes on one list, see bpf/event.h; of a longer one every file is recorded.
	maxPrefixes = 4096
	// maxPrefix bytes of a prefix are looked at.
	maxPrefix = len(collectorPrefixKey{}.Path)
	// listBits are those of a key before the path.
	listBits = 32
)

// opens is what an interest wants of files, as the programs are told: the word in the settings, and what is on its lists.
func opens(number uint32, interest *collectorv1.Interest) (word uint64, keys []collectorPrefixKey) {
	word = uint64(number)
	for i, list := range []struct {
		opens     *collectorv1.Opens
		all, some uint64
	}{
		{interest.GetReads(), opensReadsAll, opensReads},
		{interest.GetWrites(), opensWritesAll, opensWrites},
	} {
		prefixes, all := prefixesOf(list.opens)
		switch {
		case all:
			word |= list.all
		case len(prefixes) > 0:
			word |= list.some
		}
		for _, prefix := range prefixes {
			word |= beginning(prefix)
			keys = append(keys, keyOf(number+uint32(i), prefix)) //nolint:gosec // 0 or 1
		}
	}
	return word, keys
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

// beginning is the bit of paths that begin as the prefix does, whose first byte is a slash.
func beginning(prefix string) uint64 {
	if len(prefix) < 3 {
		return (1<<beginnings - 1) << beginningsShift
	}
	sum := prefix[1]*37 + prefix[2]
	return 1 << (beginningsShift + uint64(sum)*beginnings>>8)
}

func keyOf(list uint32, prefix string) collectorPrefixKey {
	key := collectorPrefixKey{Bits: listBits + 8*uint32(len(prefix)), List: list} //nolint:gosec // at most maxPrefix
	copy(key.Path[:], prefix)
	return key
}

// addLists puts an interest's prefixes where the programs find them, once the settings name the number.
func (s *Set) addLists(number uint32, interest *collectorv1.Interest) (word uint64, err error) {
	word, keys := opens(number, interest)
	for _, key := range keys {
		if err := s.maps.Prefixes.Put(key, uint8(1)); err != nil {
			return 0, fmt.Errorf("set which files are wanted: %w", err)
		}
	}
	return word, nil
}

// removeLists removes every list but those of one interest. A program that still looks at others sees that the settings have
// changed.
func (s *Set) removeLists(keep uint32) error {
	var key collectorPrefixKey
	var value uint8
	var old []collectorPrefixKey
	entries := s.maps.Prefixes.Iterate()
	for entries.Next(&key, &value) {
		if key.List != keep && key.List != keep+1 {
			old = append(old, key)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read which files were wanted: %w", err)
	}
	for _, key := range old {
		if err := s.maps.Prefixes.Delete(key); err != nil {
			return fmt.Errorf("remove which files were wanted: %w", err)
		}
	}
	return nil
}

package probe

import (
	"fmt"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
)

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

package probe

import (
	"encoding/hex"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// Progress says how far the reading of a ring has come, see ring.Progress.
type Progress struct {
	Acknowledged, Freed uint64
}

// Numbers of the rings, as in Event.ring.
const (
	UrgentRing uint32 = 1
	BulkRing   uint32 = 2
)

// Progress reads how far the reading of a ring had come, also by an earlier collector.
func (s *Set) Progress(ring uint32) (Progress, error) {
	var value collectorProgress
	if err := s.maps.Progress.Lookup(ring, &value); err != nil {
		return Progress{}, fmt.Errorf("read progress of ring %d: %w", ring, err)
	}
	return Progress{Acknowledged: value.Acknowledged, Freed: value.Freed}, nil
}

// SetProgress keeps it.
func (s *Set) SetProgress(ring uint32, p Progress) error {
	if err := s.maps.Progress.Put(ring, collectorProgress{Acknowledged: p.Acknowledged, Freed: p.Freed}); err != nil {
		return fmt.Errorf("keep progress of ring %d: %w", ring, err)
	}
	return nil
}

// Epoch names the rings, for ever: it was chosen at random when they were made.
func (s *Set) Epoch() (string, error) {
	var value collectorIdentity
	if err := s.maps.Identity.Lookup(uint32(0), &value); err != nil {
		return "", fmt.Errorf("read the rings' identity: %w", err)
	}
	return hex.EncodeToString(value.Epoch[:]), nil
}

// Told is what SetTold kept.
func (s *Set) Told() (map[Account]Shortfall, error) { return readAccounts(s.maps.Told) }

// SetTold notes that these counts are known to the subscriber.
func (s *Set) SetTold(told map[Account]Shortfall) error {
	for account, short := range told {
		key := collectorShortfallKey{CgroupId: account.CgroupID, Kind: uint32(account.Kind), Cpu: uint32(account.CPU)} //nolint:gosec // processors are few
		if err := s.maps.Told.Put(key, collectorShortfall{Lost: short.Lost, Dropped: short.Dropped}); err != nil {
			return fmt.Errorf("note what was told of lost records: %w", err)
		}
	}
	return nil
}

func readAccounts(from *ebpf.Map) (map[Account]Shortfall, error) {
	all := make(map[Account]Shortfall)
	var key collectorShortfallKey
	var value collectorShortfall
	entries := from.Iterate()
	for entries.Next(&key, &value) {
		all[Account{CgroupID: key.CgroupId, Kind: record.Kind(key.Kind), CPU: int(key.Cpu)}] = Shortfall{Lost: value.Lost, Dropped: value.Dropped}
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("read shortfalls: %w", err)
	}
	return all, nil
}

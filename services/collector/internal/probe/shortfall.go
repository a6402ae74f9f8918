package probe

import (
	"fmt"

	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// Account says whose records of which kind are missing.
type Account struct {
	// CgroupID is the workload's, 0 if it is not known.
	CgroupID uint64
	Kind     record.Kind
	CPU      int
}

// Shortfall counts records that nobody will read.
type Shortfall struct {
	// Lost did not fit the ring, Dropped were over the workload's rate.
	Lost, Dropped uint64
}

// Shortfalls reads the counters, which only grow.
func (s *Set) Shortfalls() (map[Account]Shortfall, error) {
	all, err := readAccounts(s.maps.Shortfalls)
	if err != nil {
		return nil, err
	}
	var perCPU []collectorShortfall
	for kind := record.Kind(1); kind < record.Kinds; kind++ {
		if err := s.maps.ShortfallsOther.Lookup(uint32(kind), &perCPU); err != nil {
			return nil, fmt.Errorf("read shortfalls of %s: %w", kind.Class(), err)
		}
		for cpu, value := range perCPU {
			if value.Lost+value.Dropped > 0 {
				all[Account{Kind: kind, CPU: cpu}] = Shortfall{Lost: value.Lost, Dropped: value.Dropped}
			}
		}
	}
	return all, nil
}

// Lost counts the records that are missing since Load, by kind, whyever and whoever's they are.
func (s *Set) Lost() ([record.Kinds]uint64, error) {
	var sums [record.Kinds]uint64
	all, err := s.Shortfalls()
	for account, short := range all {
		if account.Kind < record.Kinds {
			sums[account.Kind] += short.Lost + short.Dropped
		}
	}
	return sums, err
}

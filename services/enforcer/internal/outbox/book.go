package outbox

import (
	"slices"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
)

// entry is a registration, and when it came, in ns of CLOCK_BOOTTIME.
type entry struct {
	registration *correlatorv1.RegisterContainerRequest
	boottime     uint64
}

// book has the last registrations, oldest first: a correlator that begins anew has forgotten them.
type book struct {
	entries []entry
	// told is how many of them, from the first on, the correlator has.
	told int
	// floor is when the last one came that is not in the book any more: of containers that began before it is not known whether they
	// passed.
	floor uint64
}

// add returns true if one had to go that the correlator has not been told.
func (b *book) add(e entry) (lost bool) {
	if len(b.entries) >= maxRegistrations {
		b.floor = b.entries[0].boottime
		b.entries = slices.Delete(b.entries, 0, 1)
		lost = b.told == 0
		b.told = max(0, b.told-1)
	}
	b.entries = append(b.entries, e)
	return lost
}

// next are some that the correlator has not been told.
func (b *book) next(most int) []entry {
	return slices.Clone(b.entries[b.told:min(len(b.entries), b.told+most)])
}

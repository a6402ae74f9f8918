package probe

import (
	"fmt"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// always is recorded whoever asks for what: without the life cycle of processes nothing else can be told whose it is.
var always = KindsOf(record.Exec, record.Fork, record.Exit)

// WantInterest records what a subscriber asks for. It fails if the subscriber names a class that does not exist.
func (s *Set) WantInterest(interest *collectorv1.Interest) error {
	kinds := always
	for _, class := range interest.GetClasses() {
		kind := record.KindOfClass(class)
		if kind == 0 {
			return fmt.Errorf("no class %q", class)
		}
		kinds |= KindsOf(kind)
	}
	return s.Want(kinds)
}

package guard

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/services/collector/internal/probe"
)

// Bytes of the key of a name before what is compared by prefix, and the longest of that. See bpf/guard_name.h.
const (
	nameFixedBytes = 8
	maxName        = len(probe.GuardNameKey{}.Name)
	// maxLabel is RFC 1035's (2.3.4).
	maxLabel = 63
	// noGuard is the value of the entry that is a prefix of all names of its scope: it says that there are guards of names.
	noGuard = 0
)

func (e *entries) addName(scope uint32, name string, id uint32) error {
	pattern, err := backwards(name)
	if err != nil {
		return fmt.Errorf("dns_name: %q: %w", name, err)
	}
	key := probe.GuardNameKey{Bits: uint32(nameFixedBytes+len(pattern)) * 8, Scope: scope} //nolint:gosec // at most maxName
	copy(key.Name[:], pattern)
	e.families |= familyName
	e.names[key] = id
	e.names[probe.GuardNameKey{Bits: nameFixedBytes * 8, Scope: scope}] = noGuard
	return nil
}

// backwards is a name as bpf/guard_name.h has it: a prefix of all names below it, if it begins with a dot, or else that name
// alone.
func backwards(name string) ([]byte, error) {
	domain, below := strings.CutPrefix(name, ".")
	labels := strings.Split(strings.ToLower(strings.TrimSuffix(domain, ".")), ".")
	var pattern []byte
	for _, label := range slices.Backward(labels) {
		if err := checkLabel(label); err != nil {
			return nil, err
		}
		for at := len(label) - 1; at >= 0; at-- {
			pattern = append(pattern, label[at])
		}
		pattern = append(pattern, 0)
	}
	if !below {
		pattern = append(pattern, 0)
	}
	if len(pattern) > maxName {
		return nil, fmt.Errorf("longer than %d bytes", maxName-2)
	}
	return pattern, nil
}

// checkLabel allows what names of hosts and services have (RFC 1123 2.1, RFC 8552). Others have to be given as they are asked
// for: xn-- (RFC 5890).
func checkLabel(label string) error {
	if label == "" || len(label) > maxLabel {
		return fmt.Errorf("a label has from 1 to %d bytes", maxLabel)
	}
	allowed := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_'
	}
	if strings.TrimFunc(label, allowed) != "" {
		return errors.New("letters, digits, hyphens and underscores only")
	}
	return nil
}

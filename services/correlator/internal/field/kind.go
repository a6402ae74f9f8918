package field

import (
	"math/bits"
	"strings"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
)

// Kinds is a set of event kinds, one bit each.
type Kinds uint32

// The kinds a rule can match. Loss and Started are about the collector, not about a process, and
// are in no set: no rule sees them.
const (
	KindExec Kinds = 1 << iota
	KindFork
	KindExit
	KindFileOpen
	KindConnect
	KindAccept
	KindExisting

	// AllKinds is every kind a rule can match.
	AllKinds Kinds = 1<<iota - 1
)

// NumKinds is how many kinds there are; Kinds.Index is below it.
const NumKinds = 7

// kindName gives one name of evt.type to a kind. Of the names of a kind the first is its answer.
type kindName struct {
	name string
	kind Kinds
}

// kindNames are the names by which evt.type knows a kind. One record covers the whole family of
// system calls that end in the same kernel function, so every name of the family stands for all of
// it: `evt.type = open` is true of a file opened by openat2.
var kindNames = [...]kindName{
	{"execve", KindExec},
	{"execveat", KindExec},
	{"clone", KindFork},
	{"clone3", KindFork},
	{"fork", KindFork},
	{"vfork", KindFork},
	{"procexit", KindExit},
	{"openat", KindFileOpen},
	{"open", KindFileOpen},
	{"openat2", KindFileOpen},
	{"creat", KindFileOpen},
	{"connect", KindConnect},
	{"accept4", KindAccept},
	{"accept", KindAccept},
	// Ours: a process that ran before the collector did. It is no execve, nothing was started.
	{"existing", KindExisting},
}

// KindOf is the kind of an event, empty for one that no rule can match.
func KindOf(e *eventv1.Event) Kinds {
	switch e.GetKind().(type) {
	case *eventv1.Event_Exec:
		return KindExec
	case *eventv1.Event_Fork:
		return KindFork
	case *eventv1.Event_Exit:
		return KindExit
	case *eventv1.Event_FileOpen:
		return KindFileOpen
	case *eventv1.Event_Connect:
		return KindConnect
	case *eventv1.Event_Accept:
		return KindAccept
	case *eventv1.Event_Existing:
		return KindExisting
	}
	return 0
}

// KindsNamed are the kinds of which at least one name satisfies match.
func KindsNamed(match func(name string) bool) Kinds {
	var set Kinds
	for _, k := range kindNames {
		if match(k.name) {
			set |= k.kind
		}
	}
	return set
}

// Has says whether any kind of other is in the set.
func (k Kinds) Has(other Kinds) bool { return k&other != 0 }

// Index is the place of a single kind, from 0 to NumKinds-1, and -1 for the empty set.
func (k Kinds) Index() int {
	if k == 0 {
		return -1
	}
	return bits.TrailingZeros32(uint32(k))
}

// String lists the set by the names evt.type answers.
func (k Kinds) String() string {
	var names []string
	for rest := k; rest != 0; rest &= rest - 1 {
		names = append(names, typeName(rest&-rest))
	}
	return strings.Join(names, ",")
}

// typeName is what evt.type answers for a single kind, empty for none.
func typeName(kind Kinds) string {
	for i := range kindNames {
		if kindNames[i].kind == kind {
			return kindNames[i].name
		}
	}
	return ""
}

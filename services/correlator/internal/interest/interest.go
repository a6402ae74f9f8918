// Package interest says what the kernel is to record for the rules in force: which classes, and of the files that are
// opened which paths. It may say too much and must never say too little. Data in: sets of paths that bound the events a
// condition can be true of; data out: the collector's Interest.
package interest

import (
	"fmt"
	"strings"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/correlator/internal/field"
)

// Access is how a file is opened.
type Access uint8

// The kinds of access. PathOnly is O_PATH, which lets neither read nor write.
const (
	ReadOnly Access = iota
	WriteOnly
	ReadWrite
	PathOnly
	// NumAccesses is how many there are.
	NumAccesses
)

const (
	accessMode = 0o3
	pathOnly   = 0o10000000
)

// AccessOf reads open(2)'s flags. The mode 3, which some drivers take for "neither", is for reading.
func AccessOf(flags uint32) Access {
	switch {
	case flags&pathOnly != 0:
		return PathOnly
	case flags&accessMode == 1:
		return WriteOnly
	case flags&accessMode == 2:
		return ReadWrite
	}
	return ReadOnly
}

// Flags are flags of an open with this access.
func (a Access) Flags() uint32 {
	if a == PathOnly {
		return pathOnly
	}
	return uint32(a)
}

// Opens are sets of paths by how the file is opened.
type Opens [NumAccesses]Paths

// Or joins the sets of each access.
func (o Opens) Or(other Opens) Opens {
	for access := range o {
		o[access] = o[access].Or(other[access])
	}
	return o
}

// Interest is what is wanted of the kernel.
type Interest struct {
	Kinds field.Kinds
	// Reads and Writes are of files that are opened. One that is opened for both is wanted if either wants it.
	Reads, Writes Paths
	// Peers are of connections that are made and of datagrams that are sent.
	Peers Peers
	// GivenPaths: opens are wanted with their paths as the callers wrote them.
	GivenPaths bool
}

// Or is what either wants.
func (i Interest) Or(other Interest) Interest {
	return Interest{
		Kinds: i.Kinds | other.Kinds, Reads: i.Reads.Or(other.Reads), Writes: i.Writes.Or(other.Writes), Peers: i.Peers.Or(other.Peers),
		GivenPaths: i.GivenPaths || other.GivenPaths,
	}
}

// peerKinds are those whose peers can be chosen.
const peerKinds = field.KindConnect | field.KindSend

// New is the interest in kinds of events, and in opens and peers if they are among them. The life cycle of processes is always of
// interest.
func New(kinds field.Kinds, opens Opens, peers Peers) Interest {
	i := Interest{Kinds: kinds | field.LifeCycle}
	if kinds.Has(peerKinds) {
		i.Peers = peers
	}
	if !kinds.Has(field.KindFileOpen) {
		return i
	}
	i.Reads = opens[ReadOnly].Or(opens[PathOnly])
	i.Writes = opens[WriteOnly]
	switch both := opens[ReadWrite]; {
	case both.All && !i.Reads.All:
		i.Writes = Everything()
	case !both.All:
		var rest []string
		for _, prefix := range both.Prefixes {
			if !i.Reads.Has(prefix) {
				rest = append(rest, prefix)
			}
		}
		i.Writes = i.Writes.Or(begin(rest))
	}
	return i
}

// WithGivenPaths is the interest with the paths of opens as the callers wrote them, if that is needed and there are opens in it.
func (i Interest) WithGivenPaths(needed bool) Interest {
	i.GivenPaths = needed && i.Kinds.Has(field.KindFileOpen)
	return i
}

// Admits says whether an event would be recorded.
func (i Interest) Admits(e *eventv1.Event) bool {
	kind := field.KindOf(e)
	open := e.GetFileOpen()
	if i.Kinds.Has(kind) && peerKinds.Has(kind) {
		return i.Peers.admit(e)
	}
	if !i.Kinds.Has(kind) || open == nil {
		return i.Kinds.Has(kind)
	}
	path := open.GetFile().GetPath()
	switch AccessOf(open.GetFlags()) {
	case WriteOnly:
		return i.Writes.Has(path)
	case ReadWrite:
		return i.Writes.Has(path) || i.Reads.Has(path)
	default:
		return i.Reads.Has(path)
	}
}

// Message is the interest as the collector is told. Processes that exist already are no class of records.
func (i Interest) Message() *collectorv1.Interest {
	m := &collectorv1.Interest{Classes: (i.Kinds &^ field.KindExisting).Classes()}
	if i.Kinds.Has(field.KindFileOpen) {
		m.Reads, m.Writes, m.GivenPaths = i.Reads.message(), i.Writes.message(), i.GivenPaths
	}
	if i.Kinds.Has(peerKinds) {
		m.Peers = i.Peers.message()
	}
	return m
}

func (p Paths) message() *collectorv1.Opens {
	return &collectorv1.Opens{All: p.All, Prefixes: p.Prefixes}
}

// String is the interest in few words.
func (i Interest) String() string {
	kinds := i.Kinds &^ field.KindExisting
	words := strings.Join(kinds.Classes(), " ")
	if kinds == field.AllKinds&^field.KindExisting {
		words = "everything"
	}
	if kinds.Has(field.KindFileOpen) {
		words += fmt.Sprintf(" (file_open: reads %s, writes %s", i.Reads.words(), i.Writes.words())
		if i.GivenPaths {
			words += ", with paths as given"
		}
		words += ")"
	}
	if kinds.Has(peerKinds) && !i.Peers.All {
		words += fmt.Sprintf(" (peers %s)", i.Peers.words())
	}
	return words
}

func (p Paths) words() string {
	switch {
	case p.All:
		return "all"
	case p.Empty():
		return "none"
	case len(p.Prefixes) == 1:
		return "below 1 path"
	}
	return fmt.Sprintf("below %d paths", len(p.Prefixes))
}

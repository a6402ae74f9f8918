// Package advisory keeps security advisories in OSV's form and says which of them apply to packages. Import makes a store of what
// people downloaded (zips, directories, files of records); Open reads it, without writing anything, for Match.
//
// A store is one file that never changes: Import writes a new one beside it and renames it into place, and a Store that is open goes
// on with what it opened. What advisories say is foreign: it is parsed once, by Import, within bounds, and names in it are never
// used as paths. What packages are called is foreign too, and is only compared.
package advisory

import (
	"errors"
	"fmt"
	"time"
)

// Directory is where the store is unless somebody says otherwise: root writes it, the scanner reads it.
const Directory = "/var/lib/palisade/advisories"

// Bounds of what is imported and of what is read.
const (
	// maxRecord bounds the bytes of a record, inflated.
	maxRecord = 16 << 20
	// maxRecords and maxTotal bound what one import takes in; all of OSV's ecosystems together have less than a third.
	maxRecords = 4_000_000
	maxTotal   = 64 << 30
	// maxVersion bounds a version: longer ones are not compared, because comparing takes time that grows with their square.
	maxVersion = 256
	// maxSummary is how much of a summary is kept.
	maxSummary = 300
	// maxListed is how many faults are listed; all are counted.
	maxListed = 20
	// maxAlike is how many ids one vulnerability may have. More come of one wrong alias, which would make one of many.
	maxAlike = 64
)

// Errors of opening and reading a store; each is wrapped in one that says what to do.
var (
	// ErrNone: nothing was imported into the directory.
	ErrNone = errors.New("there are no advisories")
	// ErrDamaged: what is there is not what Import wrote, or another version of Palisade wrote it.
	ErrDamaged = errors.New("the advisory store is damaged")
)

// Metadata says what a store holds.
type Metadata struct {
	ImportedAt time.Time `json:"imported_at"`
	Sources    []Source  `json:"sources"`
	// Advisories counts records that are kept, those withdrawn or about no package left out.
	Advisories int `json:"advisories"`
	// Withdrawn and Empty count records that are left out: no longer in force, or about no package (only commits, for example).
	Withdrawn int `json:"withdrawn"`
	Empty     int `json:"empty"`
	// Replaced counts records whose id came again, later modified.
	Replaced int `json:"replaced"`
	// Unrated counts kept records that neither say how severe they are nor have an alias that does.
	Unrated int `json:"unrated"`
	// LooseAliases counts aliases that were not followed, because a vulnerability would have had more than 64 ids.
	LooseAliases int `json:"loose_aliases"`
	// GitRanges counts ranges of commits, which are not matched.
	GitRanges int `json:"git_ranges"`
	// Faults counts records that could not be read; the first are listed, each with its archive and entry.
	Faults     int      `json:"faults"`
	FaultLines []string `json:"fault_lines,omitempty"`
	// Ecosystems counts kept records by ecosystem as OSV writes it, release included ("Debian:12"). One that is about several
	// counts for each.
	Ecosystems map[string]int `json:"ecosystems"`
}

// Source is a path that was imported.
type Source struct {
	Path string `json:"path"`
	// Records counts records in it, readable or not; Others what is no record (a name that does not end in .json).
	Records int `json:"records"`
	Others  int `json:"others"`
}

// record is what is kept of an advisory for one package.
type record struct {
	ID      string   `json:"i"`
	Names   []string `json:"n,omitempty"` // of the vulnerabilities it is about; its own id if there are none
	Summary string   `json:"s,omitempty"`
	// Published is in seconds since 1970; 0 if nobody knows.
	Published int64    `json:"p,omitempty"`
	Rating    *rating  `json:"c,omitempty"`
	Ranges    []span   `json:"r,omitempty"`
	Versions  []string `json:"v,omitempty"` // only those that no range covers
}

// vulnerability is what is kept of one under its name, whichever advisories tell of it.
type vulnerability struct {
	IDs    []string `json:"i,omitempty"` // all, its name among them
	Rating *rating  `json:"r,omitempty"` // the gravest that any of its advisories gives
}

// span is a range of versions.
type span struct {
	// SemVer compares by semver.org whatever the ecosystem.
	SemVer bool    `json:"s,omitempty"`
	Events []event `json:"e"`
}

// event is where a range begins or ends.
type event struct {
	Kind    eventKind `json:"k"`
	Version string    `json:"v"`
}

type eventKind string

const (
	introduced   eventKind = "i"
	fixed        eventKind = "f"
	lastAffected eventKind = "l"
	limit        eventKind = "m"
)

// faultList counts faults and keeps the first.
type faultList struct {
	count int
	lines []string
}

func (f *faultList) add(format string, args ...any) {
	f.count++
	if len(f.lines) < maxListed {
		f.lines = append(f.lines, fmt.Sprintf(format, args...))
	}
}

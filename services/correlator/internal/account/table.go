// Package account knows what the host's users and groups are called. Data in: the host's passwd and group files, which the gate hands
// over unparsed; data out: a table of names by id, a new one when the files have changed. A name is for showing and for comparing, as
// the host's owner wrote it: it is never evidence, and says nothing of the same id in a container.
package account

import (
	"bytes"
	"math"
	"strconv"
	"unicode"
	"unicode/utf8"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
)

const (
	// maxBytes bounds a file; the gate hands over no more.
	maxBytes = 1 << 20
	// maxNames bounds the users, and the groups, that are kept.
	maxNames = 1 << 16
	// maxNameBytes is LOGIN_NAME_MAX.
	maxNameBytes = 256
)

// Table is names by id. It is never changed. A nil table knows nobody.
type Table struct{ users, groups map[uint32]string }

// Parse reads passwd(5) and group(5). A line that is none is passed over, as the C library does; of two names for one id the first
// counts, as it does there.
func Parse(passwd, group []byte) *Table { return &Table{users: parse(passwd), groups: parse(group)} }

// User is what the host calls a user.
func (t *Table) User(id uint32) (name string, ok bool) {
	if t == nil {
		return "", false
	}
	name, ok = t.users[id]
	return name, ok
}

// Group is what the host calls a group.
func (t *Table) Group(id uint32) (name string, ok bool) {
	if t == nil {
		return "", false
	}
	name, ok = t.groups[id]
	return name, ok
}

// Len is how many users and groups have names.
func (t *Table) Len() (users, groups int) { return len(t.users), len(t.groups) }

// Message is the table for a recording, nil for a nil table.
func (t *Table) Message() *correlatorv1.Accounts {
	if t == nil {
		return nil
	}
	return &correlatorv1.Accounts{Users: t.users, Groups: t.groups}
}

// Of is the table of a recording, nil for none.
func Of(m *correlatorv1.Accounts) *Table {
	if m == nil {
		return nil
	}
	return &Table{users: m.GetUsers(), groups: m.GetGroups()}
}

// parse reads lines NAME:PASSWORD:ID, with whatever follows behind a further colon.
func parse(file []byte) map[uint32]string {
	names := map[uint32]string{}
	for line := range bytes.Lines(file[:min(len(file), maxBytes)]) {
		fields := bytes.SplitN(bytes.TrimRight(line, "\r\n"), []byte{':'}, 4)
		if len(fields) < 3 || !valid(fields[0]) {
			continue
		}
		id, err := strconv.ParseUint(string(fields[2]), 10, 32)
		if err != nil || id == math.MaxUint32 { // -1 is nobody (chown(2))
			continue
		}
		if _, named := names[uint32(id)]; !named {
			names[uint32(id)] = string(fields[0])
		}
		if len(names) >= maxNames {
			break
		}
	}
	return names
}

// valid says whether a name is one that can be shown: no comment, no entry of NIS, and nothing that drives a terminal.
func valid(name []byte) bool {
	if len(name) == 0 || len(name) > maxNameBytes || !utf8.Valid(name) {
		return false
	}
	if first := name[0]; first == '#' || first == '+' || first == '-' {
		return false
	}
	return !bytes.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
}

package main

import (
	"encoding/binary"
	"path/filepath"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/internal/privilege"
)

// entry is a directory, or the file at source, in an image.
type entry struct {
	name     string
	source   string
	mode     int64
	uid, gid int
	records  map[string]string
}

// Modes as tar writes them.
const (
	setgid = 0o2000
	sticky = 0o1000
)

// capabilityRecord is how tar carries a file's capabilities; it is what `tar --xattrs` writes.
const capabilityRecord = "SCHILY.xattr.security.capability"

// enroll is where the console leaves the node's certificate for the uplink.
const enroll = "/var/lib/palisade/enroll"

// layout is what the image of one process holds, parents first.
func layout(table privilege.Table, row privilege.Row, binaries string) ([]entry, error) {
	program := entry{name: "usr/bin/palisade-" + row.Name, source: filepath.Join(binaries, "palisade-"+row.Name), mode: 0o755}
	// Root gets its capabilities from the container; another uid only from the file.
	if len(row.Capabilities) > 0 && row.UID != 0 {
		value, err := fileCapabilities(row.Capabilities)
		if err != nil {
			return nil, err
		}
		program.records = map[string]string{capabilityRecord: value}
	}
	entries := []entry{program}
	if row.UID == 0 {
		entries = append(entries, entry{name: "usr/bin/palisade", source: filepath.Join(binaries, "palisade"), mode: 0o755})
	}
	entries = append(entries, entry{name: "etc/palisade", mode: 0o755})
	entries = append(entries, entry{name: relative(table.SocketDirectory), mode: sticky | 0o770, gid: int(table.SocketGroup)})
	for _, path := range append(slices.Clone(row.Writes), row.Reads...) {
		if path == enroll {
			owner, reader := table.UIDs()["console"], table.UIDs()["uplink"]
			entries = append(entries, entry{name: relative(path), mode: setgid | 0o750, uid: int(owner), gid: int(reader)})
		} else if strings.HasPrefix(path, "/var/lib/palisade/") {
			entries = append(entries, entry{name: relative(path), mode: 0o700, uid: int(row.UID), gid: int(row.UID)})
		}
	}
	return withParents(entries), nil
}

func relative(path string) string { return strings.TrimPrefix(path, "/") }

// withParents adds the directories above the entries, root's and readable, and sorts.
func withParents(entries []entry) []entry {
	known := map[string]bool{".": true}
	for _, e := range entries {
		known[e.name] = true
	}
	for _, e := range slices.Clone(entries) {
		for parent := filepath.Dir(e.name); !known[parent]; parent = filepath.Dir(parent) {
			known[parent] = true
			entries = append(entries, entry{name: parent, mode: 0o755})
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return entries
}

// fileCapabilities is the value of security.capability (struct vfs_cap_data, revision 2, little-endian): the names as
// permitted set, raised when the file is executed.
func fileCapabilities(names []string) (string, error) {
	const revision2, effective = 0x02000000, 1
	var permitted uint64
	for _, name := range names {
		value, err := privilege.Parse(name)
		if err != nil {
			return "", err
		}
		permitted |= 1 << uint(value)
	}
	raw := binary.LittleEndian.AppendUint32(nil, revision2|effective)
	for _, half := range []uint32{uint32(permitted), uint32(permitted >> 32)} { //nolint:gosec // each is one half
		raw = binary.LittleEndian.AppendUint32(raw, half)
		raw = binary.LittleEndian.AppendUint32(raw, 0) // inheritable
	}
	return string(raw), nil
}

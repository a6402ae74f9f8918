package main

import (
	"fmt"
	"slices"
	"strings"
)

// row is a kernel to test and how it is booted.
type row struct {
	name string
	// suite of Debian whose linux-image-cloud-amd64 is booted.
	suite string
	// lsm is the boot parameter lsm=; empty is the kernel's own list.
	lsm string
	// tier is what the collector must reach there: the tests get it as PALISADE_TEST_WANT_TIER.
	tier string
}

// rows is the matrix. Debian's own list has bpf from 6.1 on.
var rows = []row{
	{name: "5.10", suite: "bullseye", lsm: "lockdown,yama,apparmor,bpf", tier: "lsm"},
	{name: "6.1", suite: "bookworm", tier: "lsm"},
	{name: "6.1-without-bpf", suite: "bookworm", lsm: "lockdown,yama,apparmor", tier: "modify-return"},
	{name: "6.12", suite: "trixie", tier: "lsm"},
	{name: "newest", suite: "sid", tier: "lsm"},
}

func rowNames() string {
	var names []string
	for _, r := range rows {
		names = append(names, r.name)
	}
	return strings.Join(names, " ")
}

// chooseRows returns the rows of these names in the matrix's order, or all if there are none.
func chooseRows(names []string) ([]row, error) {
	if len(names) == 0 {
		return rows, nil
	}
	for _, name := range names {
		if !slices.ContainsFunc(rows, func(r row) bool { return r.name == name }) {
			return nil, fmt.Errorf("no kernel %q; there are %s", name, rowNames())
		}
	}
	var chosen []row
	for _, r := range rows {
		if slices.Contains(names, r.name) {
			chosen = append(chosen, r)
		}
	}
	return chosen, nil
}

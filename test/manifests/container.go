// Package manifests compares what compose and Kubernetes give Palisade's processes with deploy/privileges.yaml.
//
// In: the manifests, decoded strictly by the engines' own types, and the table of privileges. Out: one line for every
// difference. Both manifests are first brought into one shape, Container, so that there is one comparison.
package manifests

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/internal/privilege"
)

// Container is what an engine is asked to give one process.
type Container struct {
	Process string
	UID     int64
	// Groups besides the sockets' group: the uid's own, and the runtime socket's for the gate.
	InSocketGroup   bool
	Drop, Add       []string
	Privileged      bool
	NoNewPrivileges bool
	ReadOnlyRoot    bool
	HostPID         bool
	Network         privilege.Network
	// HostNamespaces are those of the host's it shares besides pid: network, ipc, user, uts.
	HostNamespaces []string
	// Unconfined are the confinements that are switched off: apparmor, seccomp, selinux, proc.
	Unconfined []string
	// Devices of the host it is given.
	Devices                []string
	MemoryBytes            int64
	CPUs                   float64
	PIDs                   int64
	Mounts                 []Mount
	RestartsAlways         bool
	HoldsServiceAccountKey bool
}

// Mount is a path inside the container that is not its image's.
type Mount struct {
	Target   string
	ReadOnly bool
	// Host is the path on the host, empty for a volume of the engine's. A configuration file beside the manifest
	// does not count.
	Host string
}

// Exception is a difference that stands, with its reason: the field is Got, and no third value.
type Exception struct {
	Process, Field, Got, Reason string
}

// Compare returns a line for every difference that has no exception, and for every exception that is not needed.
func Compare(table privilege.Table, processes []string, containers []Container, exceptions []Exception) []string {
	var faults []string
	used := make([]bool, len(exceptions))
	report := func(process, field string, got, want any) {
		for i, e := range exceptions {
			if e.Process == process && e.Field == field && e.Got == fmt.Sprint(got) {
				used[i] = true
				return
			}
		}
		faults = append(faults, fmt.Sprintf("%s: %s is %v, want %v", process, field, got, want))
	}
	var seen []string
	for _, c := range containers {
		row, helper := table.Helper(c.Process)
		if !helper {
			var err error
			if row, err = table.Row(c.Process); err != nil {
				faults = append(faults, err.Error())
				continue
			}
		}
		seen = append(seen, c.Process)
		c.compare(table, row, helper, func(field string, got, want any) {
			if fmt.Sprint(got) != fmt.Sprint(want) {
				report(c.Process, field, got, want)
			}
		})
	}
	slices.Sort(seen)
	if want := slices.Sorted(slices.Values(processes)); !slices.Equal(seen, want) {
		faults = append(faults, fmt.Sprintf("containers are for %v, want %v", seen, want))
	}
	for i, e := range exceptions {
		if !used[i] {
			faults = append(faults, fmt.Sprintf("%s: %s: exception is not needed: %s", e.Process, e.Field, e.Reason))
		}
	}
	return faults
}

func (c Container) compare(table privilege.Table, row privilege.Row, helper bool, check func(field string, got, want any)) {
	check("uid", c.UID, row.UID)
	check("in the sockets' group", c.InSocketGroup, !helper)
	check("dropped capabilities", c.Drop, []string{"ALL"})
	check("added capabilities", sorted(c.Add), sorted(row.Capabilities))
	check("privileged", c.Privileged, false)
	check("no new privileges", c.NoNewPrivileges, true)
	check("read-only root", c.ReadOnlyRoot, true)
	check("host_pid", c.HostPID, row.HostPID)
	check("network", c.Network, row.Network)
	check("host's namespaces", c.HostNamespaces, []string{})
	check("unconfined", c.Unconfined, []string{})
	check("devices", c.Devices, []string{})
	check("memory", c.MemoryBytes, row.Limits.MemoryBytes())
	check("cpus", c.CPUs, row.Limits.CPUs)
	check("pids", c.PIDs, row.Limits.PIDs)
	check("restarts always", c.RestartsAlways, true)
	check("service account's key", c.HoldsServiceAccountKey, false)
	c.compareMounts(table, row, helper, check)
}

// bpffs is where a container finds its directory of the host's BPF file system. That it is not the host's path shows that there
// is no other.
const bpffs = "/sys/fs/bpf"

func (c Container) compareMounts(table privilege.Table, row privilege.Row, helper bool, check func(field string, got, want any)) {
	pins := false
	var writes, foreign []string
	for _, m := range c.Mounts {
		switch {
		case row.Pins && !m.ReadOnly && m.Target == bpffs && filepath.Dir(m.Host) == table.PinsDirectory:
			pins = true
		case m.Target == table.SocketDirectory && !m.ReadOnly && m.Host == "":
		case m.ReadOnly && (slices.Contains(row.Reads, m.Target) && (m.Host == "" || m.Host == m.Target) || isConfiguration(m)):
		case m.ReadOnly && slices.Contains(row.Reads, m.Host) && m.Target == "/host"+m.Host:
		case !m.ReadOnly && slices.Contains(row.Writes, m.Target) && (m.Host == "" || m.Host == m.Target):
			writes = append(writes, m.Target)
		case !m.ReadOnly && slices.Contains(row.MayWrite, m.Target) && m.Host == m.Target:
		default:
			foreign = append(foreign, fmt.Sprintf("%+v", m))
		}
	}
	check("writes", sorted(writes), sorted(row.Writes))
	check("other mounts", foreign, []string{})
	sockets := slices.ContainsFunc(c.Mounts, func(m Mount) bool { return m.Target == table.SocketDirectory })
	check("has the sockets", sockets, !helper)
	check("has its pins", pins, row.Pins)
}

func isConfiguration(m Mount) bool {
	return m.Host == "" && (m.Target == "/etc/palisade" || strings.HasPrefix(m.Target, "/etc/palisade/"))
}

func sorted(names []string) []string { return slices.Sorted(slices.Values(names)) }

// Package privilege knows what each process may hold: it parses the table in deploy/privileges.yaml, and drops what a
// process no longer needs.
package privilege

import (
	"errors"
	"fmt"
	"slices"

	"github.com/palisade-sec/palisade/deploy"
	"github.com/palisade-sec/palisade/internal/config"
)

// Table is deploy/privileges.yaml.
type Table struct {
	SocketDirectory string `yaml:"socket_directory"`
	SocketGroup     uint32 `yaml:"socket_group"`
	// PinsDirectory is the host's, in its BPF file system; each node has a directory of its own in it.
	PinsDirectory string `yaml:"pins_directory"`
	Processes     []Row  `yaml:"processes"`
	// Helpers run in containers beside the processes. They have no socket and may share a uid.
	Helpers []Row `yaml:"helpers"`
}

// Row is what one process may hold.
type Row struct {
	Name string `yaml:"name"`
	UID  uint32 `yaml:"uid"`
	// RuntimeSocketGroup adds the groups that own the container runtimes' sockets.
	RuntimeSocketGroup bool `yaml:"runtime_socket_group"`
	// Capabilities at the start, without CAP_, sorted.
	Capabilities []string `yaml:"capabilities"`
	// Keeps is what is left of them once the process serves.
	Keeps   []string `yaml:"keeps"`
	Network Network  `yaml:"network"`
	HostPID bool     `yaml:"host_pid"`
	Reads   []string `yaml:"reads"`
	Writes  []string `yaml:"writes"`
	// MayWrite is what the node need not have: the sockets of further runtimes.
	MayWrite []string `yaml:"may_write"`
	// Pins says that what it loads into the kernel may outlive it.
	Pins   bool   `yaml:"pins"`
	Limits Limits `yaml:"limits"`
}

// Network is how far a process reaches.
type Network string

// The reaches of a process.
const (
	// NetworkNone is an empty network namespace.
	NetworkNone Network = "none"
	// NetworkEgress connects to the console.
	NetworkEgress Network = "egress"
	// NetworkServe listens.
	NetworkServe Network = "serve"
)

// Limits are the cgroup's.
type Limits struct {
	MemoryMiB int64   `yaml:"memory"`
	CPUs      float64 `yaml:"cpu"`
	PIDs      int64   `yaml:"pids"`
}

// MemoryBytes is the memory limit in bytes.
func (l Limits) MemoryBytes() int64 { return l.MemoryMiB << 20 }

// Load parses the table this build was made with.
func Load() (Table, error) {
	var table Table
	if err := config.Decode("deploy/privileges.yaml", deploy.Privileges, &table); err != nil {
		return Table{}, err
	}
	return table, table.Validate()
}

// Validate reports every row that cannot be enforced.
func (t Table) Validate() error {
	var errs []error
	seen := map[uint32]string{}
	for _, row := range t.Processes {
		if other, taken := seen[row.UID]; taken {
			errs = append(errs, fmt.Errorf("%s: uid: %d is %s's", row.Name, row.UID, other))
		}
		seen[row.UID] = row.Name
	}
	for _, row := range slices.Concat(t.Processes, t.Helpers) {
		if !slices.IsSorted(row.Capabilities) {
			errs = append(errs, fmt.Errorf("%s: capabilities: %v is not sorted", row.Name, row.Capabilities))
		}
		for _, kept := range row.Keeps {
			if !slices.Contains(row.Capabilities, kept) {
				errs = append(errs, fmt.Errorf("%s: keeps: %s is not among its capabilities", row.Name, kept))
			}
		}
		if !slices.Contains([]Network{NetworkNone, NetworkEgress, NetworkServe}, row.Network) {
			errs = append(errs, fmt.Errorf("%s: network: %q is not none, egress or serve", row.Name, row.Network))
		}
		if row.Limits.MemoryMiB <= 0 || row.Limits.CPUs <= 0 || row.Limits.PIDs <= 0 {
			errs = append(errs, fmt.Errorf("%s: limits: memory, cpu and pids must be positive", row.Name))
		}
	}
	return errors.Join(errs...)
}

// Row is the row of one process.
func (t Table) Row(name string) (Row, error) {
	for _, row := range t.Processes {
		if row.Name == name {
			return row, nil
		}
	}
	return Row{}, fmt.Errorf("no row for %q in the table of privileges", name)
}

// Helper is the row of one helper.
func (t Table) Helper(name string) (Row, bool) {
	at := slices.IndexFunc(t.Helpers, func(row Row) bool { return row.Name == name })
	if at < 0 {
		return Row{}, false
	}
	return t.Helpers[at], true
}

// UIDs maps each process, and the operator, to its uid, for the caller tables.
func (t Table) UIDs() map[string]uint32 {
	uids := map[string]uint32{"operator": 0}
	for _, row := range t.Processes {
		uids[row.Name] = row.UID
	}
	return uids
}

// Package guard puts deny rules into the kernel. In: the enforcer's list of guards. Out: entries in the maps that
// bpf/guard.h looks into, under a new generation, and one store that switches to it.
package guard

import (
	"errors"
	"fmt"
	"math"
	"net/netip"

	collectorv1 "github.com/palisade-sec/palisade/api/palisade/collector/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/probe"
)

// Families of guards, as bpf/guard.h has them.
const (
	familyExec    = 1
	familyWrite   = 2
	familyConnect = 4
	familyName    = 8
)

// Properties of executables, as bpf/event.h has them in file_facts.flags.
const (
	propertyMemfd      = 1 << 1
	propertyUpperLayer = 1 << 2
)

// Bytes of the keys of longest-prefix maps before what is compared by prefix, and the longest path.
const (
	fixedBytes = 12
	maxPath    = 240
)

// ErrInvalid means that a guard cannot be what it says; the error names its place in the list.
var ErrInvalid = errors.New("invalid guard")

// entries are what a list of guards comes to in the maps, but for the generation.
type entries struct {
	families   uint32
	scopes     map[uint64]uint32 // cgroup id to number of scope, from 1
	files      map[probe.GuardFileKey]uint32
	properties map[probe.GuardPropertyKey]uint32
	paths      map[probe.GuardPathKey]uint32
	networks   map[probe.GuardNetworkKey]uint32
	names      map[probe.GuardNameKey]uint32
}

// compile checks every guard and reports every fault.
func compile(guards []*collectorv1.Guard) (entries, error) {
	e := entries{
		scopes: map[uint64]uint32{}, files: map[probe.GuardFileKey]uint32{}, properties: map[probe.GuardPropertyKey]uint32{},
		paths: map[probe.GuardPathKey]uint32{}, networks: map[probe.GuardNetworkKey]uint32{},
		names: map[probe.GuardNameKey]uint32{},
	}
	var errs []error
	for i, guard := range guards {
		err := e.add(guard)
		if id := guard.GetId(); err == nil && (id == 0 || id == math.MaxUint32) {
			err = fmt.Errorf("id %d is not between 1 and %d", id, uint32(math.MaxUint32-1))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%w: guards[%d]: %w", ErrInvalid, i, err))
		}
	}
	return e, errors.Join(errs...)
}

func (e *entries) add(guard *collectorv1.Guard) error {
	scope := e.scope(guard.GetCgroupId())
	switch subject := guard.GetSubject().(type) {
	case *collectorv1.Guard_ExecFile:
		e.families |= familyExec
		e.files[probe.GuardFileKey{Device: subject.ExecFile.GetDevice(), Inode: subject.ExecFile.GetInode(), Scope: scope}] = guard.GetId()
		return nil
	case *collectorv1.Guard_ExecProperty:
		return e.addProperty(scope, subject.ExecProperty, guard.GetId())
	case *collectorv1.Guard_ExecPrefix:
		return e.addPath(scope, familyExec, "exec_prefix", subject.ExecPrefix, guard.GetId())
	case *collectorv1.Guard_WritePrefix:
		return e.addPath(scope, familyWrite, "write_prefix", subject.WritePrefix, guard.GetId())
	case *collectorv1.Guard_Connect:
		return e.addNetwork(scope, subject.Connect, guard.GetId())
	case *collectorv1.Guard_DnsName:
		return e.addName(scope, subject.DnsName, guard.GetId())
	}
	return errors.New("subject is missing")
}

// scope is the number of a cgroup's scope; 0 is everybody.
func (e *entries) scope(cgroupID uint64) uint32 {
	if cgroupID == 0 {
		return 0
	}
	number, ok := e.scopes[cgroupID]
	if !ok {
		number = uint32(len(e.scopes) + 1) //nolint:gosec // one for each guard at most
		e.scopes[cgroupID] = number
	}
	return number
}

func (e *entries) addProperty(scope uint32, property collectorv1.ExecProperty, id uint32) error {
	bits := map[collectorv1.ExecProperty]uint32{
		collectorv1.ExecProperty_EXEC_PROPERTY_UPPER_LAYER: propertyUpperLayer,
		collectorv1.ExecProperty_EXEC_PROPERTY_MEMFD:       propertyMemfd,
	}
	bit, ok := bits[property]
	if !ok {
		return fmt.Errorf("exec_property: %v is none", property)
	}
	e.families |= familyExec
	e.properties[probe.GuardPropertyKey{Property: bit, Scope: scope}] = id
	return nil
}

func (e *entries) addPath(scope, family uint32, field, prefix string, id uint32) error {
	if len(prefix) == 0 || prefix[0] != '/' || len(prefix) > maxPath {
		return fmt.Errorf("%s: %q is not an absolute path of at most %d bytes", field, prefix, maxPath)
	}
	key := probe.GuardPathKey{Bits: uint32(fixedBytes+len(prefix)) * 8, Scope: scope, Family: family} //nolint:gosec // at most 240
	for i := range len(prefix) {
		key.Path[i] = int8(prefix[i]) //nolint:gosec // bytes, as C's char
	}
	e.families |= family
	e.paths[key] = id
	return nil
}

func (e *entries) addNetwork(scope uint32, network *collectorv1.Network, id uint32) error {
	prefix, err := netip.ParsePrefix(network.GetCidr())
	if err != nil {
		return fmt.Errorf("connect: cidr: %w", err)
	}
	if network.GetPort() > math.MaxUint16 {
		return fmt.Errorf("connect: port: %d is above %d", network.GetPort(), math.MaxUint16)
	}
	bits, ip := probe.MappedPrefix(prefix)
	e.families |= familyConnect
	e.networks[probe.GuardNetworkKey{Bits: uint32(fixedBytes*8 + bits), Scope: scope, Port: network.GetPort(), Ip: ip}] = id //nolint:gosec // at most 224
	return nil
}

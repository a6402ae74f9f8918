package probe

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	eventv1 "github.com/palisade-sec/palisade/api/palisade/event/v1"
	"github.com/palisade-sec/palisade/services/collector/internal/record"
)

// Progress says how far the reading of a ring has come, see ring.Progress.
type Progress struct {
	Acknowledged, Freed uint64
}

// Numbers of the rings, as in Event.ring.
const (
	UrgentRing uint32 = 1
	BulkRing   uint32 = 2
)

// Progress reads how far the reading of a ring had come, also by an earlier collector.
func (s *Set) Progress(ring uint32) (Progress, error) {
	var value collectorProgress
	if err := s.maps.Progress.Lookup(ring, &value); err != nil {
		return Progress{}, fmt.Errorf("read progress of ring %d: %w", ring, err)
	}
	return Progress{Acknowledged: value.Acknowledged, Freed: value.Freed}, nil
}

// SetProgress keeps it.
func (s *Set) SetProgress(ring uint32, p Progress) error {
	if err := s.maps.Progress.Put(ring, collectorProgress{Acknowledged: p.Acknowledged, Freed: p.Freed}); err != nil {
		return fmt.Errorf("keep progress of ring %d: %w", ring, err)
	}
	return nil
}

// SetAwake says whether the programs need not wake up who reads the rings, because it looks at them by itself.
func (s *Set) SetAwake(awake bool) error {
	if err := s.maps.Awake.Put(uint32(0), uint32(flag(awake))); err != nil {
		return fmt.Errorf("ask for wake-ups: %w", err)
	}
	return nil
}

// Epoch names the rings, for ever: it was chosen at random when they were made.
func (s *Set) Epoch() (string, error) {
	var value collectorIdentity
	if err := s.maps.Identity.Lookup(uint32(0), &value); err != nil {
		return "", fmt.Errorf("read the rings' identity: %w", err)
	}
	return hex.EncodeToString(value.Epoch[:]), nil
}

// Told is what SetTold kept.
func (s *Set) Told() (map[Account]Shortfall, error) { return readAccounts(s.maps.Told) }

// SetTold notes that these counts are known to the subscriber.
func (s *Set) SetTold(told map[Account]Shortfall) error {
	for account, short := range told {
		key := collectorShortfallKey{CgroupId: account.CgroupID, Kind: uint32(account.Kind), Cpu: uint32(account.CPU)} //nolint:gosec // processors are few
		if err := s.maps.Told.Put(key, collectorShortfall{Lost: short.Lost, Dropped: short.Dropped}); err != nil {
			return fmt.Errorf("note what was told of lost records: %w", err)
		}
	}
	return nil
}

func readAccounts(from *ebpf.Map) (map[Account]Shortfall, error) {
	all := make(map[Account]Shortfall)
	var key collectorShortfallKey
	var value collectorShortfall
	entries := from.Iterate()
	for entries.Next(&key, &value) {
		all[Account{CgroupID: key.CgroupId, Kind: record.Kind(key.Kind), CPU: int(key.Cpu)}] = Shortfall{Lost: value.Lost, Dropped: value.Dropped}
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("read shortfalls: %w", err)
	}
	return all, nil
}

// Account says whose records of which kind are missing.
type Account struct {
	// CgroupID is the workload's, 0 if it is not known.
	CgroupID uint64
	Kind     record.Kind
	CPU      int
}

// Shortfall counts records that nobody will read.
type Shortfall struct {
	// Lost did not fit the ring, Dropped were over the workload's rate.
	Lost, Dropped uint64
}

// Shortfalls reads the counters, which only grow.
func (s *Set) Shortfalls() (map[Account]Shortfall, error) {
	all, err := readAccounts(s.maps.Shortfalls)
	if err != nil {
		return nil, err
	}
	var perCPU []collectorShortfall
	for kind := record.Kind(1); kind < record.Kinds; kind++ {
		if err := s.maps.ShortfallsOther.Lookup(uint32(kind), &perCPU); err != nil {
			return nil, fmt.Errorf("read shortfalls of %s: %w", kind.Class(), err)
		}
		for cpu, value := range perCPU {
			if value.Lost+value.Dropped > 0 {
				all[Account{Kind: kind, CPU: cpu}] = Shortfall{Lost: value.Lost, Dropped: value.Dropped}
			}
		}
	}
	return all, nil
}

// Short counts the records that are missing since the rings were made, by kind, whoever's they are.
func (s *Set) Short() ([record.Kinds]Shortfall, error) {
	var sums [record.Kinds]Shortfall
	all, err := s.Shortfalls()
	for account, short := range all {
		if account.Kind < record.Kinds {
			sums[account.Kind].Lost += short.Lost
			sums[account.Kind].Dropped += short.Dropped
		}
	}
	return sums, err
}

// syscallsMap is the map that the programs note system calls in. It has room only if they are to.
const syscallsMap = "syscalls_used"

// SyscallTable is one of the tables of system calls that a workload uses.
type SyscallTable struct {
	CgroupID uint64
	ABI      eventv1.Abi
}

// Syscalls is a set of numbers of system calls: number n is bit n%64 of word n/64.
type Syscalls [len(collectorSyscallsUsed{}.Bits)]uint64

// Numbers lists the set, ascending.
func (s Syscalls) Numbers() []uint32 {
	var numbers []uint32
	for n := range uint32(64 * len(s)) {
		if s[n/64]>>(n%64)&1 != 0 {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// Without is what is in the set and not in another.
func (s Syscalls) Without(other Syscalls) Syscalls {
	for i := range s {
		s[i] &^= other[i]
	}
	return s
}

// Syscalls reads which system calls workloads have made since the programs were loaded. Of more than 4096 tables those that were
// longest without use begin anew.
func (s *Set) Syscalls() (map[SyscallTable]Syscalls, error) {
	all := make(map[SyscallTable]Syscalls)
	var key collectorSyscallsKey
	used := make([]collectorSyscallsUsed, 1)
	value := any(&used[0])
	if s.maps.SyscallsUsed.Type() == ebpf.LRUCPUHash { // Linux 5.10
		value = &used
	}
	entries := s.maps.SyscallsUsed.Iterate()
	for entries.Next(&key, value) {
		var set Syscalls
		for _, one := range used {
			for i, word := range one.Bits {
				set[i] |= word
			}
		}
		all[SyscallTable{CgroupID: key.CgroupId, ABI: record.ABI(key.Abi)}] = set
	}
	// What is aborted is a walk from which a table has just been dropped; the next one has the rest.
	if err := entries.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("read the system calls that workloads use: %w", err)
	}
	return all, nil
}

// Lost is Short without a difference between lost and dropped.
func (s *Set) Lost() ([record.Kinds]uint64, error) {
	var sums [record.Kinds]uint64
	all, err := s.Short()
	for kind, short := range all {
		sums[kind] = short.Lost + short.Dropped
	}
	return sums, err
}

// LeftOut says how often the kernel did not run a program, because it was running on that processor already: interrupted, or
// preempted on Linux 7. The count only grows as long as the program is loaded.
type LeftOut struct {
	Program
	// ID is the kernel's, which no other program gets before the next boot.
	ID    uint32
	Count uint64
}

// LeftOut lists the programs that were ever left out. Linux before 5.12 leaves them out too, and does not count.
func (s *Set) LeftOut() ([]LeftOut, error) {
	var all []LeftOut
	if s.kernel.Legacy {
		return nil, nil
	}
	for _, h := range s.held {
		if !s.mayBeLeftOut(h) {
			continue
		}
		stats, err := h.program.Stats()
		if err != nil {
			return nil, fmt.Errorf("read how often %s was left out: %w", h.place, err)
		}
		if stats.RecursionMisses > 0 {
			all = append(all, LeftOut{Program: Program{Hook: h.hook, Place: h.place}, ID: h.id, Count: stats.RecursionMisses})
		}
	}
	return all, nil
}

// mayBeLeftOut is what kernel/bpf/trampoline.c and bpf_trace_run decide: programs on packets never, security modules' until
// Linux 6.2, others always.
func (s *Set) mayBeLeftOut(h held) bool {
	if h.hook.Place == Cgroup {
		return false
	}
	return h.program.Type() != ebpf.LSM || !s.kernel.Cast
}

// ToldLeftOut is what SetToldLeftOut kept, by the programs' ids, of programs that are still attached.
func (s *Set) ToldLeftOut() (map[uint32]uint64, error) {
	attached := make(map[uint32]bool, len(s.held))
	for _, h := range s.held {
		attached[h.id] = true
	}
	told := make(map[uint32]uint64)
	var id uint32
	var count uint64
	var old []uint32
	entries := s.maps.ToldLeftOut.Iterate()
	for entries.Next(&id, &count) {
		if attached[id] {
			told[id] = count
		} else {
			old = append(old, id)
		}
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("read what was told of programs left out: %w", err)
	}
	for _, id := range old {
		if err := s.maps.ToldLeftOut.Delete(id); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, fmt.Errorf("forget an old program: %w", err)
		}
	}
	return told, nil
}

// SetToldLeftOut notes that these counts are known to the subscriber.
func (s *Set) SetToldLeftOut(told map[uint32]uint64) error {
	for id, count := range told {
		if err := s.maps.ToldLeftOut.Put(id, count); err != nil {
			return fmt.Errorf("note what was told of programs left out: %w", err)
		}
	}
	return nil
}

// LossRing stands in for a ring in the names of losses, for which there is no record: their positions are notices' numbers.
const LossRing uint32 = 3

// MaxNotices is how many notices are kept at once.
const MaxNotices = 16384

// Notice is one report of what is missing. It is kept from before anybody hears of it until it is acknowledged, so that a
// collector that takes over from one that was killed says it again, in the same words and by the same name. It is laid out as it
// is kept.
type Notice struct {
	// Number is its name within the rings' epoch, from 1.
	Number     uint64
	BoottimeNs uint64
	CgroupID   uint64 // 0 if it is not known
	// Before and Total are what the counter had come to when it was told of last, and now.
	Before, Total uint64
	Reason        eventv1.LossReason
	Kind          uint32 // record.Kind, 0 if it is not known
	CPU           int32  // -1 if it is not known
	// Source is the program's id of what was left out, and the ring's number of what a kill has lost.
	Source uint32
}

// noticesMap is no program's, and so not in the object. Under key 0 it has the number that was given last.
const noticesMap = "notices"

func noticesSpec() *ebpf.MapSpec {
	return &ebpf.MapSpec{
		Name: noticesMap, Type: ebpf.Hash, KeySize: 8, ValueSize: uint32(binary.Size(Notice{})), MaxEntries: MaxNotices + 1, //nolint:gosec // a few words
		Flags: unix.BPF_F_NO_PREALLOC,
	}
}

// Notices lists those that are kept, in the order of their numbers, and the number that was given last, to whichever.
func (s *Set) Notices() (kept []Notice, last uint64, err error) {
	var number uint64
	var value Notice
	entries := s.notices.Iterate()
	for entries.Next(&number, &value) {
		last = max(last, value.Number)
		if number != 0 {
			kept = append(kept, value)
		}
	}
	if err := entries.Err(); err != nil {
		return nil, 0, fmt.Errorf("read notices of losses: %w", err)
	}
	slices.SortFunc(kept, func(a, b Notice) int { return cmp.Compare(a.Number, b.Number) })
	return kept, last, nil
}

// KeepNotices keeps them, of which the last has the greatest number. If it is cut short, some are not kept; none is changed.
func (s *Set) KeepNotices(notices []Notice) error {
	if len(notices) == 0 {
		return nil
	}
	if err := s.notices.Put(uint64(0), Notice{Number: notices[len(notices)-1].Number}); err != nil {
		return fmt.Errorf("keep the number of a notice: %w", err)
	}
	for _, notice := range notices {
		if err := s.notices.Put(notice.Number, notice); err != nil {
			return fmt.Errorf("keep a notice of losses: %w", err)
		}
	}
	return nil
}

// DropNotices forgets those that were acknowledged.
func (s *Set) DropNotices(notices []Notice) error {
	for _, notice := range notices {
		if err := s.notices.Delete(notice.Number); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget a notice of losses: %w", err)
		}
	}
	return nil
}

// number asks the kernel for the programs' ids.
func (s *Set) number() error {
	for i := range s.held {
		info, err := s.held[i].program.Info()
		if err != nil {
			return fmt.Errorf("read the id of %s: %w", s.held[i].place, err)
		}
		id, _ := info.ID() // there since Linux 4.13
		s.held[i].id = uint32(id)
	}
	return nil
}

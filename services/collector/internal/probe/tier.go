package probe

import (
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Tier is what the kernel allows us.
type Tier string

// The tiers, best first.
const (
	// TierLSM: BPF programs are among the kernel's security modules, see every decision and can refuse.
	TierLSM Tier = "lsm"
	// TierModifyReturn: they are not, but can sit on the functions that ask the modules.
	TierModifyReturn Tier = "modify-return"
	// TierTracepoint: neither; what happened is seen at its end.
	TierTracepoint Tier = "tracepoint"
)

// CanDeny says whether an operation can be refused before it happens.
func (t Tier) CanDeny() bool { return t == TierLSM || t == TierModifyReturn }

// detectTier tries the tiers for real, best first. That a program attaches proves nothing: without "bpf" in the boot's lsm=
// list the kernel takes LSM programs and never calls them.
func detectTier(object *ebpf.CollectionSpec) (Tier, error) {
	for _, tier := range []Tier{TierLSM, TierModifyReturn} {
		fires, err := firesIn(tier, object)
		if err != nil {
			return "", err
		}
		if fires {
			return tier, nil
		}
	}
	return TierTracepoint, nil
}

// trial is the program that is tried: it notes that a file was opened.
const trial = "on_trial"

// firesIn attaches the trial and opens a file. A kernel that refuses the attachment has not this tier; that is no error.
func firesIn(tier Tier, object *ebpf.CollectionSpec) (bool, error) {
	spec := object.Copy()
	program := spec.Programs[trial]
	target(program, Hook{Name: "file_open", Place: Decision}, tier)
	spec.Programs = map[string]*ebpf.ProgramSpec{trial: program}
	spec.Maps = map[string]*ebpf.MapSpec{".bss": spec.Maps[".bss"]}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return false, nil //nolint:nilerr // the kernel has not this tier
	}
	defer collection.Close()
	attached, err := attachProgram(collection.Programs[trial])
	if err != nil {
		return false, nil //nolint:nilerr // the kernel has not this tier
	}
	defer attached.Close()
	f, err := os.Open("/proc/self/stat")
	if err != nil {
		return false, fmt.Errorf("try tier %s: %w", tier, err)
	}
	defer f.Close()
	var fired uint32
	if err := collection.Variables["trial_fired"].Get(&fired); err != nil {
		return false, fmt.Errorf("read trial_fired: %w", err)
	}
	return fired != 0, nil
}

// target points a program at its place in a tier.
func target(program *ebpf.ProgramSpec, hook Hook, tier Tier) {
	switch {
	case hook.Place == Decision && tier == TierModifyReturn:
		program.Type, program.AttachType = ebpf.Tracing, ebpf.AttachModifyReturn
		program.AttachTo = "security_" + hook.Name
	case hook.Place == Announcement && tier == TierModifyReturn:
		program.Type, program.AttachType = ebpf.Tracing, ebpf.AttachTraceFEntry
		program.AttachTo = "security_" + hook.Name
	case hook.Place == Decision || hook.Place == Announcement:
		program.Type, program.AttachType = ebpf.LSM, ebpf.AttachLSMMac
		program.AttachTo = hook.Name
	case hook.Place == Tracepoint:
		program.AttachTo = hook.Name
	}
}

// attachProgram attaches a program to what it was loaded for.
func attachProgram(program *ebpf.Program) (link.Link, error) {
	if program.Type() == ebpf.LSM {
		return link.AttachLSM(link.LSMOptions{Program: program})
	}
	return link.AttachTracing(link.TracingOptions{Program: program})
}

package probe

import (
	"errors"
	"fmt"
	"maps"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/palisade-sec/palisade/services/collector/internal/kernel"
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

// detectTier tries the tiers for real, best first, and says why the better ones do not work. That a program attaches proves
// nothing: without "bpf" in the boot's lsm= list the kernel takes LSM programs and never calls them.
func detectTier(object *ebpf.CollectionSpec) (best Tier, reasons []string) {
	for _, tier := range []Tier{TierLSM, TierModifyReturn} {
		err := try(tier, object)
		if err == nil {
			return tier, reasons
		}
		reasons = append(reasons, fmt.Sprintf("%s: %v", tier, err))
	}
	return TierTracepoint, reasons
}

// trial is the program that is tried: it notes that a file was opened.
const trial = "on_trial"

var errNotCalled = errors.New(`the kernel takes such programs but does not call them: "bpf" is not in the boot parameter lsm=`)

// try attaches the trial and opens a file. Its error is why a kernel does not have the tier.
func try(tier Tier, object *ebpf.CollectionSpec) error {
	spec := object.Copy()
	program := spec.Programs[trial]
	target(program, Hook{Name: "file_open", Place: Decision}, tier)
	spec.Programs = map[string]*ebpf.ProgramSpec{trial: program}
	maps.DeleteFunc(spec.Maps, func(name string, _ *ebpf.MapSpec) bool { return name[0] != '.' }) // variables stay
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return kernel.OneLine(err)
	}
	defer collection.Close()
	attached, err := attachProgram(collection.Programs[trial])
	if err != nil {
		return kernel.OneLine(err)
	}
	defer attached.Close()
	f, err := os.Open("/proc/self/stat")
	if err != nil {
		return fmt.Errorf("open a file: %w", err)
	}
	defer f.Close()
	var fired uint32
	if err := collection.Variables["trial_fired"].Get(&fired); err != nil {
		return fmt.Errorf("read trial_fired: %w", err)
	}
	if fired == 0 {
		return errNotCalled
	}
	return nil
}

// target points a program at its place in a tier.
func target(program *ebpf.ProgramSpec, hook Hook, tier Tier) {
	switch {
	case hook.Place == Decision && tier == TierModifyReturn:
		program.Type, program.AttachType = ebpf.Tracing, ebpf.AttachModifyReturn
		program.AttachTo = hook.function()
	case hook.Place == Announcement && tier == TierModifyReturn:
		program.Type, program.AttachType = ebpf.Tracing, ebpf.AttachTraceFEntry
		program.AttachTo = hook.function()
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

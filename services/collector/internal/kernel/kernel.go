// Package kernel says what the running kernel is like, and what its refusals mean. In: its type information, release and this
// process's cgroups and capabilities. Out: facts that programs must know before they are loaded, and errors of one line.
package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// Kernel is what the programs must know about the running one before they are loaded.
type Kernel struct {
	Release string
	// ExitTellsGroupDead: sched_process_exit has its second argument (Linux 6.16).
	ExitTellsGroupDead bool
	// CgroupByMemory: no cgroup2 hierarchy, so containers differ only in their v1 cgroups.
	CgroupByMemory bool
	// Legacy: before Linux 5.13, programs know no typed current task and no atomic exchange.
	Legacy bool
	// StructArguments: programs on the kernel's functions can be given structs (Linux 6.1).
	StructArguments bool
	// Loop: programs can loop without the verifier following each turn (Linux 5.17).
	Loop bool
	// Cast: programs can say of what type a pointer is (Linux 6.2).
	Cast bool
	// MapsNeedCapability: where sysctl kernel.unprivileged_bpf_disabled is set, as distributions do, not even who holds a map may
	// read it without CAP_BPF (before Linux 5.19, __sys_bpf()).
	MapsNeedCapability bool

	Types *btf.Spec
}

const (
	btfPath    = "/sys/kernel/btf/vmlinux"
	cgroupPath = "/proc/self/cgroup"
)

// ErrNoBTF means that the kernel was built without the type information the programs need.
var ErrNoBTF = errors.New("no kernel type information")

// Read reads them. It fails without type information.
func Read() (Kernel, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return Kernel{}, fmt.Errorf("read kernel release: %w", err)
	}
	k := Kernel{Release: unix.ByteSliceToString(name.Release[:])}
	if err := checkBTF(btfPath, k.Release); err != nil {
		return Kernel{}, err
	}
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return Kernel{}, fmt.Errorf("read %s: %w", btfPath, err)
	}
	k.Types = types
	k.ExitTellsGroupDead = len(TracepointArguments(types, "sched_process_exit")) >= 2
	k.StructArguments = hasHelper(types, "BPF_FUNC_user_ringbuf_drain") // of 6.1
	k.Loop = hasHelper(types, "BPF_FUNC_loop")
	k.Legacy = !hasHelper(types, "BPF_FUNC_for_each_map_elem") // of 5.13
	k.Cast = k.HasFunction("bpf_rdonly_cast")
	k.MapsNeedCapability = !hasHelper(types, "BPF_FUNC_dynptr_from_mem") // of 5.19
	cgroups, err := os.ReadFile(cgroupPath)
	if err != nil {
		return Kernel{}, fmt.Errorf("read own cgroups: %w", err)
	}
	k.CgroupByMemory = onlyV1(cgroups)
	return k, nil
}

func checkBTF(path, release string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s is missing on kernel %s: use a kernel with CONFIG_DEBUG_INFO_BTF=y (every "+
			"distribution's since 2021) and mount /sys", ErrNoBTF, path, release)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoBTF, err)
	}
	return f.Close()
}

// HasFunction says whether the kernel's type information has a function.
func (k Kernel) HasFunction(name string) bool {
	var function *btf.Func
	return k.Types.TypeByName(name, &function) == nil
}

// TracepointArguments are what a typed tracepoint passes, without the leading private pointer.
func TracepointArguments(types *btf.Spec, name string) []btf.FuncParam {
	var def *btf.Typedef
	if err := types.TypeByName("btf_trace_"+name, &def); err != nil {
		return nil
	}
	pointer, ok := def.Type.(*btf.Pointer)
	if !ok {
		return nil
	}
	proto, ok := pointer.Target.(*btf.FuncProto)
	if !ok || len(proto.Params) == 0 {
		return nil
	}
	return proto.Params[1:]
}

// IsPointerTo says whether a type is a pointer to a struct of that name.
func IsPointerTo(t btf.Type, name string) bool {
	pointer, ok := t.(*btf.Pointer)
	if !ok {
		return false
	}
	target, ok := pointer.Target.(*btf.Struct)
	return ok && target.Name == name
}

// hasHelper says whether the kernel knows a helper, by its name in enum bpf_func_id.
func hasHelper(types *btf.Spec, name string) bool {
	var helpers *btf.Enum
	if err := types.TypeByName("bpf_func_id", &helpers); err != nil {
		return false
	}
	return slices.ContainsFunc(helpers.Values, func(v btf.EnumValue) bool { return v.Name == name })
}

// onlyV1 reads /proc/self/cgroup, which has a line 0:: once the cgroup2 hierarchy is in use on the host, whatever
// this process's own mounts show.
func onlyV1(cgroups []byte) bool {
	for line := range bytes.Lines(cgroups) {
		if strings.HasPrefix(string(line), "0::") {
			return false
		}
	}
	return true
}

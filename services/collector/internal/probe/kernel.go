package probe

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// kernel is what the programs must know about the running one before they are loaded.
type kernel struct {
	release string
	// exitTellsGroupDead: sched_process_exit has its second argument (Linux 6.16).
	exitTellsGroupDead bool
	// cgroupByMemory: no cgroup2 hierarchy, so containers differ only in their v1 cgroups.
	cgroupByMemory bool
}

const (
	btfPath    = "/sys/kernel/btf/vmlinux"
	cgroupPath = "/proc/self/cgroup"
)

// ErrNoBTF means that the kernel was built without the type information the programs need.
var ErrNoBTF = errors.New("no kernel type information")

func readKernel() (kernel, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return kernel{}, fmt.Errorf("read kernel release: %w", err)
	}
	k := kernel{release: unix.ByteSliceToString(name.Release[:])}
	if err := checkBTF(btfPath, k.release); err != nil {
		return kernel{}, err
	}
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return kernel{}, fmt.Errorf("read %s: %w", btfPath, err)
	}
	k.exitTellsGroupDead = tracepointArguments(types, "sched_process_exit") >= 2
	cgroups, err := os.ReadFile(cgroupPath)
	if err != nil {
		return kernel{}, fmt.Errorf("read own cgroups: %w", err)
	}
	k.cgroupByMemory = onlyV1(cgroups)
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

// tracepointArguments counts what a typed tracepoint passes, without the leading private pointer.
func tracepointArguments(types *btf.Spec, name string) int {
	var def *btf.Typedef
	if err := types.TypeByName("btf_trace_"+name, &def); err != nil {
		return 0
	}
	pointer, ok := def.Type.(*btf.Pointer)
	if !ok {
		return 0
	}
	proto, ok := pointer.Target.(*btf.FuncProto)
	if !ok {
		return 0
	}
	return len(proto.Params) - 1
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

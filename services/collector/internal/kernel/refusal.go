package kernel

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

var (
	// ErrCapability means that the process may not use bpf().
	ErrCapability = errors.New("missing capability")
	// ErrRefused means that the kernel's verifier did not accept a program.
	ErrRefused = errors.New("refused by the kernel's verifier")
)

// Explain makes one line of an error: what is missing, where, and what to do. cilium/ebpf answers a missing
// capability with advice on MEMLOCK, and a refusal with the verifier's whole log.
func Explain(hook, release string, err error) error {
	missing := missingCapabilities()
	if errors.Is(err, unix.EPERM) && len(missing) > 0 {
		return fmt.Errorf("%w %s: start the collector through `palisade up`, or give its binary "+
			"cap_bpf,cap_net_admin,cap_perfmon+ep or its container BPF, NET_ADMIN and PERFMON", ErrCapability, strings.Join(missing, " and "))
	}
	if errors.Is(err, unix.EPERM) && memlockShort(release) {
		return fmt.Errorf("load %s: Linux %s charges BPF maps to the user, whose limit of locked memory is too low: %w: "+
			"raise it (ulimit -l unlimited, LimitMEMLOCK=infinity)", hook, release, unix.EPERM)
	}
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("attach %s: kernel %s refuses this kind of program (a lockdown, an LSM or a seccomp "+
			"profile that blocks bpf): %w", hook, release, unix.EPERM)
	}
	if refusal := (*ebpf.VerifierError)(nil); errors.As(err, &refusal) {
		return fmt.Errorf("load %s: %w of Linux %s: %w: %s: report this with the kernel's version",
			hook, ErrRefused, release, refusal.Cause, lastLine(refusal.Log))
	}
	if errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("load %s: not supported by Linux %s, needs 5.10 or later: %w", hook, release, err)
	}
	return fmt.Errorf("load %s on Linux %s: %w", hook, release, err)
}

// memlockShort says whether the limit of locked memory is below what maps need where they are charged to it. Newer kernels
// charge the control group, and then it means nothing.
func memlockShort(release string) bool {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) != nil {
		return false
	}
	var major, minor int
	_, err := fmt.Sscanf(release, "%d.%d", &major, &minor)
	const needed = 64 << 20
	return err == nil && (major < 5 || major == 5 && minor < 11) && limit.Cur < needed
}

// OneLine is an error of cilium/ebpf without the verifier's log and without advice on MEMLOCK.
func OneLine(err error) error {
	if refusal := (*ebpf.VerifierError)(nil); errors.As(err, &refusal) {
		return fmt.Errorf("%w: %s", refusal.Cause, lastLine(refusal.Log))
	}
	if errors.Is(err, unix.EPERM) {
		return unix.EPERM
	}
	return err
}

// lastLine is the verifier's last complaint, before its statistics.
func lastLine(log []string) string {
	for _, line := range slices.Backward(log) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "processed ") {
			return line
		}
	}
	return "no reason given"
}

// missingCapabilities names those of the needed capabilities that this thread does not have. CAP_SYS_ADMIN implies
// them.
func missingCapabilities() []string {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil
	}
	has := func(capability int) bool {
		return data[capability/32].Effective&(1<<(capability%32)) != 0
	}
	if has(unix.CAP_SYS_ADMIN) {
		return nil
	}
	var missing []string
	if !has(unix.CAP_BPF) {
		missing = append(missing, "CAP_BPF")
	}
	if !has(unix.CAP_PERFMON) {
		missing = append(missing, "CAP_PERFMON")
	}
	return missing
}

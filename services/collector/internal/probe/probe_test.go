package probe

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

func TestHooksNameProgramsThatExist(t *testing.T) {
	for name, load := range map[string]func() (*ebpf.CollectionSpec, error){"collector": loadCollector, "legacy": loadLegacy} {
		object, err := load()
		if err != nil {
			t.Fatal(err)
		}
		packet, err := loadDns()
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(object.Programs, packet.Programs)
		used := map[string]bool{trial: true}
		for _, hook := range slices.Concat(lifecycle, ends, decisions, packets, []Hook{ringRequest, ringEntry, ringOpcode}) {
			if _, ok := object.Programs[hook.Program]; !ok {
				t.Errorf("%s: hook %s: no program %s", name, hook.Name, hook.Program)
			}
			if !hook.Required && hook.Without == "" {
				t.Errorf("hook %s: optional, but nothing says what is missing without it", hook.Name)
			}
			if (hook.Place == Call) != (len(hook.Calls) > 0) || hook.Family == "" {
				t.Errorf("hook %s: calls %v, family %q do not fit its place", hook.Name, hook.Calls, hook.Family)
			}
			used[hook.Program] = true
		}
		for program := range object.Programs {
			if !used[program] {
				t.Errorf("%s: program %s is on no hook", name, program)
			}
		}
	}
}

func TestConfigValidate(t *testing.T) {
	for size, ok := range map[uint32]bool{0: false, 1: false, 2048: false, 4096: true, 5000: false, 16 << 20: true, 1 << 30: true, 1 << 31: false} {
		cfg := DefaultConfig()
		cfg.BulkBytes = size
		err := cfg.Validate()
		if (err == nil) != ok {
			t.Errorf("Validate(%d) = %v, want ok %v", size, err, ok)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "probes.bulk_bytes: ") {
			t.Errorf("Validate(%d) = %v, want the key first", size, err)
		}
	}
	bad := Config{Tier: "best", Pins: "here", Rates: Rates{UrgentPerSecond: 1 << 31, BulkPerSecond: 1 << 31, BurstSeconds: 1 << 20}}
	err := bad.Validate()
	for _, key := range []string{"urgent_bytes", "bulk_bytes", "tier", "pins", "rates.urgent_per_second", "rates.bulk_per_second", "rates.burst_seconds"} {
		if err == nil || !strings.Contains(err.Error(), "probes."+key+": ") {
			t.Errorf("Validate = %v, want a fault of probes.%s", err, key)
		}
	}
}

func TestOnlyV1(t *testing.T) {
	tests := []struct {
		name, cgroups string
		want          bool
	}{
		{name: "pure v1", cgroups: "9:name=systemd:/\n4:memory:/docker/x\n", want: true},
		{name: "hybrid", cgroups: "4:memory:/docker/x\n0::/docker/x\n"},
		{name: "v2", cgroups: "0::/system.slice\n"},
		{name: "a cgroup that is named like it", cgroups: "4:memory:/0::/\n", want: true},
	}
	for _, tt := range tests {
		if got := onlyV1([]byte(tt.cgroups)); got != tt.want {
			t.Errorf("%s: onlyV1 = %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestNoBTF(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vmlinux")
	err := checkBTF(path, "6.1.0")
	if !errors.Is(err, ErrNoBTF) {
		t.Fatalf("checkBTF = %v, want ErrNoBTF", err)
	}
	for _, want := range []string{path, "6.1.0", "CONFIG_DEBUG_INFO_BTF"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("checkBTF = %v, want %q in it", err, want)
		}
	}
}

func TestExplain(t *testing.T) {
	refusal := fmt.Errorf("program on_sys_exit: load program: %w", &ebpf.VerifierError{
		Cause: unix.EACCES, Log: []string{"0: (85) call foo", "R1 max value is outside of the memory range", "processed 12 insns"}})
	l, ok := refused(refusal, []loadable{{hook: lifecycle[0], place: lifecycle[0].Name}, {hook: ends[0], place: ends[0].Name}})
	hook := l.hook
	if !ok || hook.Name != "sys_exit" {
		t.Fatalf("refused = %v, %v, want sys_exit", hook, ok)
	}
	tests := []struct {
		name     string
		err      error
		want     []string
		sentinel error
	}{
		{name: "verifier", err: refusal, sentinel: ErrRefused, want: []string{"load sys_exit", "6.1.0", "R1 max value", "permission denied"}},
		{name: "too old", err: fmt.Errorf("x: %w", ebpf.ErrNotSupported), sentinel: ebpf.ErrNotSupported, want: []string{"6.1.0", "needs 5.10"}},
		{name: "other", err: unix.ENOMEM, sentinel: unix.ENOMEM, want: []string{"sys_exit", "6.1.0"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := explain(hook.Name, "6.1.0", tt.err)
			if !errors.Is(got, tt.sentinel) || strings.Contains(got.Error(), "\n") || strings.Contains(got.Error(), "MEMLOCK") {
				t.Errorf("explain = %v, want one line that is %v", got, tt.sentinel)
			}
			for _, want := range tt.want {
				if !strings.Contains(got.Error(), want) {
					t.Errorf("explain = %v, want %q in it", got, want)
				}
			}
		})
	}
}

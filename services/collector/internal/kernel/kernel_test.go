package kernel

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

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
			got := Explain("sys_exit", "6.1.0", tt.err)
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

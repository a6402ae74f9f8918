// Command matrix runs the collector's kernel tests in VMs (QEMU, no KVM needed), one for each kernel and boot setting
// of the table in row.go, one after the other.
//
// In: the test binary and the 32-bit program it starts, both built before; kernels come from Debian's archive and are
// kept. Out: for each VM what passed, failed and was skipped and why, then a table; whole logs in <work>/<row>/. With
// -fetch it only prints where a row's kernel is, for scripts that boot it themselves.
//
// # Privileges
//
// None: apt runs with a state directory of its own, QEMU needs no device. Writes below <work> and nowhere else. The VM is
// a child that dies with this process.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/palisade-sec/palisade/internal/daemon"
)

// settings are the command line's.
type settings struct {
	work    string
	scripts string
	tests   string
	timeout time.Duration
	full    bool
	fetch   string
}

func main() { daemon.Main("kernels", run) }

func run(ctx context.Context, env daemon.Env) error {
	var s settings
	flags := flag.NewFlagSet(env.Name, flag.ContinueOnError)
	flags.StringVar(&s.work, "work", "bin/vm", "`directory` with kernel.test and compat32; kernels and logs go there too")
	flags.StringVar(&s.scripts, "scripts", "test/vm", "`directory` of the VM's scripts")
	flags.StringVar(&s.tests, "run", "", "run only tests that match this `regexp`")
	flags.DurationVar(&s.timeout, "timeout", 30*time.Minute, "longest time a VM may take")
	flags.BoolVar(&s.full, "full", false, "the whole of every count (PALISADE_TEST_FULL); give it the time")
	flags.StringVar(&s.fetch, "fetch", "", "only fetch the kernel of this `row` and print its directory")
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "usage: %s [flags] [row…]\nrows: %s\n", env.Name, rowNames())
		flags.PrintDefaults()
	}
	if err := flags.Parse(env.Args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	kernels := store{directory: filepath.Join(s.work, "kernels"), progress: os.Stderr}
	if s.fetch != "" {
		return printKernel(ctx, env, kernels, s.fetch)
	}
	chosen, err := chooseRows(flags.Args())
	if err != nil {
		return err
	}
	return s.runRows(ctx, env, kernels, chosen)
}

// printKernel makes sure that the kernel of a row is there and says where.
func printKernel(ctx context.Context, env daemon.Env, kernels store, name string) error {
	chosen, err := chooseRows([]string{name})
	if err != nil {
		return err
	}
	k, err := kernels.fetch(ctx, chosen[0].suite)
	if err != nil {
		return err
	}
	fmt.Fprintln(env.Stdout, k.directory)
	return nil
}

// runRows tests every row, whatever became of the ones before, and fails if any did or if nothing was tested.
func (s settings) runRows(ctx context.Context, env daemon.Env, kernels store, chosen []row) error {
	var all []result
	for _, r := range chosen {
		result := s.runRow(ctx, kernels, r)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		writeResult(env.Stdout, result)
		all = append(all, result)
	}
	return writeTable(env.Stdout, all)
}

// runRow boots one VM and reads what its tests say. A fault on the way is part of the result.
func (s settings) runRow(ctx context.Context, kernels store, r row) result {
	res := result{row: r, logs: filepath.Join(s.work, r.name)}
	k, err := kernels.fetch(ctx, r.suite)
	if err != nil {
		res.fault = err
		return res
	}
	res.release = k.release
	if err := os.MkdirAll(res.logs, 0o750); err != nil {
		res.fault = err
		return res
	}
	initrd := filepath.Join(res.logs, "initrd.cpio")
	if err := s.writeInitrd(initrd, k, r); err != nil {
		res.fault = fmt.Errorf("make initramfs: %w", err)
		return res
	}
	fmt.Fprintf(kernels.progress, "kernels: %s: booting %s\n", r.name, k.release)
	res.tests.finished = func(t *test) { writeProgress(kernels.progress, r, t) }
	start := time.Now()
	res.fault = vm{kernel: k.vmlinux(), initrd: initrd, lsm: r.lsm, logs: res.logs, timeout: s.timeout}.run(ctx, &res.tests)
	res.took = time.Since(start)
	return res
}

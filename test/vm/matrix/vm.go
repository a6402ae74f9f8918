package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Files in a row's directory.
const (
	consoleLog = "console.log"
	outputLog  = "output.log"
)

// bootParameters are what a VM without KVM needs to be quick and quiet; see test/vm/run.sh too. syscall.x32 switches on x32's
// calls in those of Debian's kernels that have them.
const bootParameters = "syscall.x32=y console=ttyS0 panic=-1 quiet loglevel=4 mitigations=off random.trust_cpu=on no_timer_check tsc=reliable"

// vm is one boot: its console goes to a file, its second serial port to us.
type vm struct {
	kernel, initrd, lsm, logs string
	timeout                   time.Duration
}

// arguments of QEMU. One thread for both processors: with thread=multi, QEMU 7.2 sometimes runs a breakpoint that the
// kernel has already taken out of its text again ("Oops: int3" in trace_syscall_exit), and the tests make the kernel patch
// itself with every attach and detach. It takes no longer, and leaves the host its other processors.
func (v vm) arguments() []string {
	parameters := bootParameters
	if v.lsm != "" {
		parameters += " lsm=" + v.lsm
	}
	return []string{
		"-M", "q35", "-accel", "tcg,thread=single", "-cpu", "max,cx16=off", "-smp", "2", "-m", "2048",
		"-display", "none", "-no-reboot", "-nodefaults", "-monitor", "none",
		"-chardev", "file,id=console,path=" + filepath.Join(v.logs, consoleLog), "-serial", "chardev:console",
		"-chardev", "stdio,id=output,signal=off", "-serial", "chardev:output",
		"-kernel", v.kernel, "-initrd", v.initrd, "-append", parameters,
	}
}

// run boots and reads the tests' output until the VM is off. The error says what became of the VM, not of the tests.
func (v vm) run(ctx context.Context, tests *testRun) error {
	log, err := os.Create(filepath.Join(v.logs, outputLog))
	if err != nil {
		return err
	}
	defer log.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, v.timeout, fmt.Errorf("no end after %v", v.timeout))
	defer cancel()
	// Pdeathsig is sent when the thread that started the child ends, so keep this one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", v.arguments()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := readLines(io.TeeReader(out, log), tests.line)
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("qemu: %w: %s", err, strings.TrimSpace(complaints.String()))
	case readErr != nil:
		return fmt.Errorf("read the VM's output: %w", readErr)
	case !tests.ended:
		return errors.New("went off before the tests had ended")
	}
	return nil
}

// readLines calls line for each line, however long, without its end. A serial port ends lines with CR LF.
func readLines(r io.Reader, line func(string)) error {
	buffered := bufio.NewReader(r)
	for {
		text, err := buffered.ReadString('\n')
		if text != "" {
			line(strings.TrimRight(text, "\r\n"))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// tail is the end of a log, for people.
func tail(path string, lines int) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(raw), "\r", "")), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

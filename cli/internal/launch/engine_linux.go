package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
)

// Engine runs a process's binary for a person's question: as the caller, with its output, and it ends with ctx or the caller. What it
// has to say of a fault it says itself; the error is then that of its exit code.
func Engine(ctx context.Context, binary string, args []string, stdout, stderr io.Writer) error {
	cmd := exec.CommandContext(ctx, binary, args...) //nolint:gosec // one of Palisade's own binaries, beside this one
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return fmt.Errorf("%s ended with exit code %d", binary, exit.ExitCode())
	}
	return err
}

package launch

import (
	"fmt"
	"os"
	"syscall"
)

// Replace turns this process into another program of Palisade's, with the same user, files and environment. It returns only with an
// error.
func Replace(binary string, args []string) error {
	if err := syscall.Exec(binary, append([]string{binary}, args...), os.Environ()); err != nil {
		return fmt.Errorf("execute %s: %w: name the directory of Palisade's programs with --bin", binary, err)
	}
	return nil
}

// Command palisade-runc is the runC shim: an OCI runtime that stands where runC stood, and becomes the real one.
//
// It has nothing to do with containerd's shims. A container engine calls it with runC's command line. It reads that,
// finds the real runC, and is replaced by it (execve), with the same arguments, environment, descriptors, limits, signals
// and working directory. From then on there is only runC: exit code, output, signals and log are its own. If nothing of
// Palisade is left on the host but this file, it does the same.
//
// # Privileges
//
// Those of its caller, a container engine: nearly always root with everything. It starts no process, changes no file
// (but runC's log, if there is no runC to write it) and opens no network socket. It reads the files of candidates for
// the real runC that are small enough to be shims themselves. It trusts its caller, and the owners of the directories of PATH.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/commandline"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/handover"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/realrunc"
	"github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/runclog"
)

func main() { os.Exit(run()) }

// run returns only if there is no runC to become, with runC's exit code for whatever goes wrong.
func run() int {
	argv := os.Args
	if len(argv) == 0 {
		argv = []string{realrunc.Name}
	}
	err := become(argv)
	// An error in the command line is runC's to tell; what is known of the log is good enough to tell this.
	invocation, _ := commandline.Parse(argv[1:])
	log := runclog.Log{Path: invocation.Log, JSON: invocation.LogFormat == "json"}
	_ = log.Error(os.Stderr, time.Now(), err.Error()) // there is nowhere else to tell it
	return 1
}

// become turns this process into the real runC, and returns why it could not.
func become(argv []string) error {
	self, err := realrunc.FindSelf()
	if err != nil {
		return fmt.Errorf("%s finds no runC to run: %w: put runC itself at %s", realrunc.Name, err, self.Kept())
	}
	var tried []string
	for path := range self.Candidates(os.Getenv("PATH")) {
		err := handover.Exec(path, named(argv, path))
		if errors.Is(err, syscall.E2BIG) {
			return err // of the arguments, not of the program
		}
		tried = append(tried, err.Error())
	}
	why := "there is none beside it or in PATH"
	if len(tried) > 0 {
		why = strings.Join(tried, ", ")
	}
	return fmt.Errorf("%s finds no runC to run (%s): install runC (Debian's package runc), or put it at %s", realrunc.Name, why, self.Kept())
}

// named gives the arguments that name to runC by which it was called, or would have been: it tells it in messages and
// gives it to the process that it starts in the container.
func named(argv []string, path string) []string {
	if filepath.Base(argv[0]) == filepath.Base(path) {
		return argv
	}
	return append([]string{filepath.Base(path)}, argv[1:]...)
}
